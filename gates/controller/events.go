package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

// Reasons of events.
const (
	eventLifted   = "GateLifted"
	eventWaiting  = "GateWaiting"
	eventDeadline = "GateDeadline"
	eventRefused  = "GateLiftRefused"
)

const (
	// waitingGrace spares pods that wait for a moment only from being told of.
	waitingGrace = 2 * time.Second
	// Events go out one by one at this pace, so that they are never in the way of the lifts that they tell of. What
	// does not fit in the queue is dropped: metrics and status count everything.
	eventsPerSecond = 50
	eventsBurst     = 100
	eventsQueued    = 20_000
	// While lifts are under way events wait, each for so long at most: on a busy API server each would delay a lift.
	eventsPatience = 2 * time.Second
	eventsLook     = 50 * time.Millisecond
	messageLimit   = 1024
	nameLimit      = 200
	// toldLimit bounds the memory of what was told, of pods that were deleted while they waited too.
	toldLimit = 100_000
)

// events writes events to the API server, later and slowly. Names are made of what the event tells, so that an event
// that was written before a restart is not written again.
type events struct {
	clients kubernetes.Interface
	log     logr.Logger
	limit   *rate.Limiter
	lifts   atomic.Int64 // patches in flight
	now     chan *corev1.Event
	later   chan delayedEvent
	// stillWaiting says whether a pod still has a gate; events that have become untrue are not sent.
	stillWaiting func(pod types.NamespacedName, uid types.UID, gate string) bool

	mu   sync.Mutex
	told map[string]struct{} // names of GateWaiting events that are written or queued
}

type delayedEvent struct {
	event *corev1.Event
	due   time.Time
	pod   types.NamespacedName
	uid   types.UID
	gate  string
}

func newEvents(clients kubernetes.Interface, log logr.Logger) *events {
	return &events{
		clients: clients, log: log, limit: rate.NewLimiter(eventsPerSecond, eventsBurst),
		now: make(chan *corev1.Event, eventsQueued), later: make(chan delayedEvent, eventsQueued), told: map[string]struct{}{},
	}
}

// waiting tells once why a pod waits, if it still does after a grace.
func (e *events) waiting(pod *gates.Pod, g gateDecision) {
	object := podReference(pod)
	name := eventName(object, eventWaiting, g.about())
	if !e.first(name) {
		return
	}
	message := fmt.Sprintf("gate %s waits (policy %s): %s", g.policy.GateName, g.policy.Name, gates.Describe(g.verdict.Unmet))
	if g.policy.Deleted() {
		message = fmt.Sprintf("gate %s is held by nobody: GatePolicy %s, which said onDeadline: Hold, was deleted; make a policy for the gate, or take it off",
			g.policy.GateName, g.policy.Name)
	}
	event := newEvent(object, corev1.EventTypeNormal, eventWaiting, g.about(), message)
	select {
	case e.later <- delayedEvent{event, pod.Created.Add(waitingGrace), pod.Key(), pod.UID, g.policy.GateName}:
	default: // full: see eventsQueued
	}
}

// lifted tells that a gate was lifted, and why.
func (e *events) lifted(d decision, g gateDecision) {
	pod := d.pod
	object := podReference(pod)
	e.mu.Lock()
	delete(e.told, eventName(object, eventWaiting, g.policy.GateName))
	e.mu.Unlock()
	if g.verdict.Outcome == gates.Release {
		e.send(newEvent(object, corev1.EventTypeWarning, eventDeadline, g.policy.GateName, fmt.Sprintf(
			"gate %s lifted because its deadline of %s came (policy %s); still missing: %s",
			g.policy.GateName, g.policy.Deadline, g.policy.Name, gates.Describe(g.verdict.Unmet))))
		return
	}
	message := fmt.Sprintf("gate %s lifted: all that policy %s requires holds", g.policy.GateName, g.policy.Name)
	switch g.verdict.Outcome {
	case gates.Overflow:
		message = fmt.Sprintf("gate %s lifted: no node could run the pod now or soon, and none comes while it is gated (policy %s); still missing: %s",
			g.policy.GateName, g.policy.Name, gates.Describe(g.verdict.Unmet))
	case gates.Deleted:
		message = fmt.Sprintf("gate %s lifted: GatePolicy %s was deleted", g.policy.GateName, g.policy.Name)
	default: // all holds
	}
	if d.steer != nil {
		message += "; steered to warm node " + gates.SteeredTo(*d.steer)
	}
	if d.require != "" {
		message += "; it may run on nodes with the label " + d.require + " only"
	}
	e.send(newEvent(object, corev1.EventTypeNormal, eventLifted, g.policy.GateName, message))
}

// about distinguishes the events of one reason on a pod.
func (g gateDecision) about() string {
	if g.policy.Deleted() {
		return g.policy.GateName + " deleted"
	}
	return g.policy.GateName
}

// liftRefused tells once that the API server refuses to lift a gate.
func (e *events) liftRefused(pod *gates.Pod, g gateDecision, err error) {
	object := podReference(pod)
	if name := eventName(object, eventRefused, g.policy.GateName); !e.first(name) {
		return
	}
	e.send(newEvent(object, corev1.EventTypeWarning, eventRefused, g.policy.GateName,
		fmt.Sprintf("gate %s is to be lifted (policy %s), and the API server refuses it: %v", g.policy.GateName, g.policy.Name, err)))
}

// first says whether an event has not been told of, and takes note that it is now.
func (e *events) first(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, told := e.told[name]
	if len(e.told) >= toldLimit {
		clear(e.told) // the names keep an event from being written twice all the same
	}
	e.told[name] = struct{}{}
	return !told
}

// refused tells that a policy is not in force.
func (e *events) refused(policy *v1alpha1.GatePolicy, reason, message string) {
	object := corev1.ObjectReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "GatePolicy", Name: policy.Name, UID: policy.UID,
	}
	e.send(newEvent(object, corev1.EventTypeWarning, reason, fmt.Sprint(policy.Generation), message))
}

func (e *events) send(event *corev1.Event) {
	select {
	case e.now <- event:
	default: // full: see eventsQueued
	}
}

// run sends events until ctx ends.
func (e *events) run(ctx context.Context) error {
	e.recall(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case event := <-e.now:
				e.write(ctx, event)
			}
		}
	}()
	e.runLater(ctx)
	<-done
	return nil
}

func (e *events) runLater(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-e.later:
			timer := time.NewTimer(time.Until(d.due))
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			if e.stillWaiting(d.pod, d.uid, d.gate) {
				e.write(ctx, d.event)
			}
		}
	}
}

// recall reads which pods were told of by an earlier run: a restart writes nothing anew.
func (e *events) recall(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	list, err := e.clients.CoreV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("reason", eventWaiting).String(),
	})
	if err != nil {
		e.log.V(1).Info("cannot read earlier events", "reason", err.Error())
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range list.Items {
		e.told[list.Items[i].Name] = struct{}{}
	}
}

// giveWay waits while lifts are under way, for eventsPatience at most.
func (e *events) giveWay(ctx context.Context) {
	tick := time.NewTicker(eventsLook)
	defer tick.Stop()
	for end := time.Now().Add(eventsPatience); e.lifts.Load() > 0 && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (e *events) write(ctx context.Context, event *corev1.Event) {
	e.giveWay(ctx)
	if err := e.limit.Wait(ctx); err != nil {
		return // the controller stops
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	_, err := e.clients.CoreV1().Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
		e.log.V(1).Info("event not written", "reason", err.Error())
	}
}

func podReference(pod *gates.Pod) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}

// newEvent makes an event; about is what distinguishes it from others of its reason on the same object.
func newEvent(object corev1.ObjectReference, kind, reason, about, message string) *corev1.Event {
	now := metav1.Now()
	namespace := object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: eventName(object, reason, about)},
		InvolvedObject: object, Type: kind, Reason: reason, Message: message[:min(len(message), messageLimit)],
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: Name}, ReportingController: Name,
	}
}

func eventName(object corev1.ObjectReference, reason, about string) string {
	sum := sha256.Sum256([]byte(string(object.UID) + "\x00" + reason + "\x00" + about))
	name := strings.TrimRight(object.Name[:min(len(object.Name), nameLimit)], "-.")
	return name + "." + hex.EncodeToString(sum[:8])
}
