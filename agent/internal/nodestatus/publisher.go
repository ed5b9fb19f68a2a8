package nodestatus

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

const (
	// burst is how long the first change of a burst waits for others.
	burst = 10 * time.Millisecond
	// lazyDelay is how long lazy annotations wait for a patch to ride along with.
	lazyDelay = 5 * time.Second
	// wordsMost is the longest that other words for what the Node says already wait. The first go at once, and each time that
	// nothing but words had to be written the next wait four times as long: a fleet that lacks one image may not write for ever.
	wordsMost = 10 * time.Minute
	// requestTimeout bounds one request.
	requestTimeout = 10 * time.Second
)

// Source is what the publisher publishes, and what it tells of the Node. It is called from the goroutine of Run.
type Source interface {
	// Desired is the newest state, as it would be published at that moment.
	Desired(at time.Time) Desired
	// Published is called when the Node holds all of want, which was asked for at that moment.
	Published(want Desired, at time.Time)
	// NodeSeen is called with every state of the Node, and with nil while there is none.
	NodeSeen(node *corev1.Node)
}

// Publisher keeps one Node's status equal to its Source.
type Publisher struct {
	source  Source
	log     logr.Logger
	observe func(result error)
	changed chan struct{}
}

// New returns a Publisher. observe is told of the result of every patch.
func New(source Source, log logr.Logger, observe func(error)) *Publisher {
	return &Publisher{source: source, log: log, observe: observe, changed: make(chan struct{}, 1)}
}

// Notify says that the Source may have something new. It does not block.
func (p *Publisher) Notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Run publishes through node until ctx ends, or until the server no longer knows who we are; then it returns that error,
// and the caller connects anew.
func (p *Publisher) Run(ctx context.Context, node Node) error {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan *corev1.Node)
	watched := make(chan error, 1)
	go func() {
		defer close(watched)
		watched <- p.watch(ctx, node, events)
	}()
	s := session{Publisher: p, node: node}
	err := s.run(ctx, events, watched)
	cancel()
	// Its last words may have been read already: what counts is that it has ended.
	for last := range watched {
		err = errors.Join(err, last)
	}
	return err
}

// session is one connection's state.
type session struct {
	*Publisher
	node    Node
	known   *corev1.Node
	retry   backoff
	last    time.Time
	wordy   time.Duration // how long words wait by now
	failing bool

	timer *time.Timer
	due   time.Time
}

func (s *session) run(ctx context.Context, events <-chan *corev1.Node, watched <-chan error) error {
	s.timer = time.NewTimer(time.Hour)
	s.timer.Stop()
	defer s.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watched:
			return err
		case node := <-events:
			if s.outdated(node) {
				continue
			}
			s.known = node
			s.source.NodeSeen(node)
			s.arm(0)
		case <-s.changed:
			s.arm(burst)
		case <-s.timer.C:
			s.due = time.Time{}
			if err := s.publish(ctx); err != nil {
				return err
			}
		}
	}
}

// arm makes publish run after delay, or when it is due already if that is sooner. While patches fail, only the backoff
// decides.
func (s *session) arm(delay time.Duration) {
	at := time.Now().Add(delay)
	if !s.due.IsZero() && (s.failing || s.due.Before(at)) {
		return
	}
	s.due = at
	s.timer.Reset(delay)
}

// outdated says whether a watch event is older than what a patch has returned already.
func (s *session) outdated(node *corev1.Node) bool {
	if s.known == nil || node == nil || s.known.UID != node.UID {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(node.ResourceVersion, s.known.ResourceVersion)
	return err == nil && order <= 0
}

// publish writes what the Node lacks. It returns an error when the server does not know us any more.
func (s *session) publish(ctx context.Context) error {
	if s.known == nil {
		return nil
	}
	now := time.Now()
	want := s.source.Desired(now)
	lacks := diff(want, s.known)
	if lacks.empty() {
		s.source.Published(want, now)
		return nil
	}
	if since, wait := now.Sub(s.last), s.wait(lacks); since < wait {
		if len(lacks.annotations) == 0 {
			s.source.Published(want, now) // in other words
		}
		s.arm(wait - since)
		return nil
	}
	patch, err := lacks.patch(s.known, metav1.NewTime(now))
	if err != nil {
		return err
	}
	requestCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	updated, err := s.node.PatchStatus(requestCtx, patch)
	s.observe(err)
	if err != nil {
		return s.refused(ctx, err)
	}
	if s.failing {
		s.log.Info("published again")
	}
	s.retry.reset()
	switch {
	case lacks.urgent:
		s.wordy = 0
	case lacks.words:
		s.wordy = min(max(4*s.wordy, lazyDelay), wordsMost)
	}
	s.failing, s.last, s.known = false, now, updated
	s.source.Published(want, now)
	return nil
}

// wait is how long after the last patch what the Node lacks is written.
func (s *session) wait(lacks difference) time.Duration {
	switch {
	case lacks.urgent:
		return 0
	case len(lacks.annotations) == 0:
		return s.wordy
	default:
		return lazyDelay
	}
}

// refused keeps what is to be published for the next attempt. A Node that is gone, or is another one by now, is no
// different: the watch replaces what is known of it.
func (s *session) refused(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the end of ctx is the cause, and no failure
	}
	if apierrors.IsUnauthorized(err) {
		return err
	}
	if !s.failing && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		s.log.Error(err, "publish node status, goes on trying", "advice", advice(err))
	}
	s.failing = true
	delay := s.retry.next()
	s.due = time.Now().Add(delay)
	s.timer.Reset(delay)
	return nil
}

// advice says what a person can do about a refused request.
func advice(err error) string {
	if apierrors.IsForbidden(err) {
		return "apply the RBAC of deploy/rbac/agent, or use the kubelet's kubeconfig"
	}
	return "check that the API server can be reached from this node"
}
