package controller

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"headstart.dev/readiness"
)

// Reasons of events.
const (
	reasonHeld     = "ReadinessHeld"
	reasonReleased = "ReadinessReleased"
	reasonTimedOut = "ReadinessTimedOut"
	reasonConflict = "Conflict"
	reasonInvalid  = "Invalid"
	// reasonUnclaimed is on a Node: a taint of ours that no rule names.
	reasonUnclaimed = "UnclaimedTaint"
)

// What became of an event, the values of the label result.
const (
	eventSent    = "sent"
	eventDropped = "dropped"
	eventFailed  = "failed"
)

// Events have a budget of their own: a wave of a thousand nodes must not spend the API server's time on telling of itself
// (at most 0.02 requests a node, events and statuses together). Warnings come if late, as long as no more wait than their queue
// holds: each tells of a node that was let go although it is not ready, and the more there are at once the more they matter.
const (
	eventsPerSecond   = 0.2
	eventBurst        = 5
	eventQueue        = 256
	warningsPerSecond = 5
	warningBurst      = 25
	warningQueue      = 10_000
	maxEventMessage   = 1024
	eventTimeout      = 5 * time.Second
	eventComponent    = "headstart-controller"
	eventsNamespace   = metav1.NamespaceDefault
	reasonsInMessage  = 3
)

// recorder posts events beside the path of the writes: offer never blocks. Normal events over their budget are dropped, warnings
// wait.
type recorder struct {
	log      logr.Logger
	client   corev1client.EventsGetter
	metrics  *metrics
	queue    chan *corev1.Event
	warnings chan *corev1.Event
	normal   *rate.Limiter
	warning  *rate.Limiter
}

func newRecorder(log logr.Logger, client corev1client.EventsGetter, m *metrics) *recorder {
	return &recorder{
		log: log, client: client, metrics: m, queue: make(chan *corev1.Event, eventQueue), warnings: make(chan *corev1.Event, warningQueue),
		normal:  rate.NewLimiter(eventsPerSecond, eventBurst),
		warning: rate.NewLimiter(warningsPerSecond, warningBurst),
	}
}

// Run posts until ctx ends.
func (r *recorder) Run(ctx context.Context) error {
	var posting sync.WaitGroup
	posting.Go(func() { r.drain(ctx, r.queue, nil) })
	posting.Go(func() { r.drain(ctx, r.warnings, r.warning) })
	posting.Wait()
	return nil
}

// drain posts what is queued, at the pace of a limiter if there is one, until ctx ends.
func (r *recorder) drain(ctx context.Context, queue <-chan *corev1.Event, pace *rate.Limiter) {
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-queue:
			if pace != nil && pace.Wait(ctx) != nil {
				return
			}
			if err := r.post(ctx, event); err != nil {
				r.log.V(1).Info("posting event failed", "reason", event.Reason, "error", err.Error())
			}
		}
	}
}

func (r *recorder) post(ctx context.Context, event *corev1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if _, err := r.client.Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
		r.metrics.events.WithLabelValues(eventFailed).Inc()
		return fmt.Errorf("post event %s: %w", event.Reason, err)
	}
	r.metrics.events.WithLabelValues(eventSent).Inc()
	return nil
}

// offer queues an event: a warning, or one within the budget.
func (r *recorder) offer(event *corev1.Event) {
	warning := event.Type == corev1.EventTypeWarning
	queue := r.queue
	if warning {
		queue = r.warnings
	}
	if warning || r.normal.Allow() {
		select {
		case queue <- event:
			return
		default:
		}
	}
	r.metrics.events.WithLabelValues(eventDropped).Inc()
}

// unclaimed tells of a taint that no rule names.
func (r *recorder) unclaimed(node *corev1.Node, message string) {
	r.offer(nodeEvent(node, corev1.EventTypeWarning, reasonUnclaimed, message))
}

// transition tells of what a write brought about.
func (r *recorder) transition(node *corev1.Node, t readiness.Transition) {
	if t.Untainted {
		return
	}
	if t.Rule.Form == readiness.FormUpstream {
		r.upstreamTransition(node, &t)
		return
	}
	switch t.State {
	case readiness.StateHeld:
		r.offer(nodeEvent(node, corev1.EventTypeNormal, reasonHeld, heldMessage(&t)))
	case readiness.StateReleased:
		r.offer(nodeEvent(node, corev1.EventTypeNormal, reasonReleased,
			fmt.Sprintf("rule %s: all that is required is there, taint %s is off", t.Rule.Name, readiness.TaintID(&t.Rule.Taint))))
	case readiness.StateTimedOut:
		r.offer(nodeEvent(node, corev1.EventTypeWarning, reasonTimedOut,
			fmt.Sprintf("rule %s: not ready within %s, taint %s is off; missing: %s", t.Rule.Name, t.Rule.Timeout, readiness.TaintID(&t.Rule.Taint), missing(t.Reasons))))
	case readiness.StateUnbound:
		r.offer(nodeEvent(node, corev1.EventTypeNormal, reasonReleased,
			fmt.Sprintf("rule %s does not govern the node, and %s have passed: taint %s is off", t.Rule.Name, t.Rule.Timeout, readiness.TaintID(&t.Rule.Taint))))
	case readiness.StateIgnored, readiness.StateForeign, readiness.StateUndecided, readiness.StateSuspended:
	}
}

func heldMessage(t *readiness.Transition) string {
	until := ""
	if !t.Deadline.IsZero() {
		until = fmt.Sprintf("; %s at %s", t.Rule.OnTimeout, t.Deadline.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("rule %s holds the node with taint %s: %s%s", t.Rule.Name, readiness.TaintID(&t.Rule.Taint), missing(t.Reasons), until)
}

func missing(reasons []readiness.Reason) string {
	var parts []string
	for i, reason := range reasons {
		if i == reasonsInMessage {
			parts = append(parts, fmt.Sprintf("and %d more", len(reasons)-i))
			break
		}
		parts = append(parts, reason.Message)
	}
	return strings.Join(parts, "; ")
}

func nodeEvent(node *corev1.Node, kind, reason, message string) *corev1.Event {
	return newEvent(corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}, kind, reason, message)
}

func newEvent(about corev1.ObjectReference, kind, reason, message string) *corev1.Event {
	if len(message) > maxEventMessage {
		message = strings.ToValidUTF8(message[:maxEventMessage], "")
	}
	now := metav1.Now()
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: eventsNamespace, GenerateName: eventName(about.Name)},
		InvolvedObject: about, Type: kind, Reason: reason, Message: message,
		Source:         corev1.EventSource{Component: eventComponent},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
}

// eventName leaves room for what the API server adds to a generated name.
func eventName(object string) string {
	return object[:min(len(object), 200)] + "."
}
