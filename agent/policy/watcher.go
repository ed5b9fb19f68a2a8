package policy

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/prepull"
	"headstart.dev/prepull/feed"
	"headstart.dev/prepull/v1alpha1"
)

// Source brings the policies until ctx ends.
type Source interface {
	Run(ctx context.Context, h feed.Handler[*v1alpha1.PrepullPolicy])
}

var _ Source = (*feed.Policies)(nil)

// Watcher joins the static list with what policies want on this node. All methods are safe for concurrent use.
type Watcher struct {
	static []prepull.Image
	apply  func([]prepull.Image)

	mu       sync.Mutex
	node     node
	known    bool // the node's labels
	policies map[string]*subscription
	applied  []prepull.Image
	wake     chan struct{}
}

// New makes a Watcher of the static list. apply is called with the whole list when it changes, one call at a time; never
// with the static list alone before a policy has added to it.
func New(static []prepull.Image, apply func([]prepull.Image)) *Watcher {
	return &Watcher{
		static: union(static), apply: apply, applied: union(static), policies: map[string]*subscription{},
		wake: make(chan struct{}, 1),
	}
}

// SetNode tells which node this is and what its labels are. Until then no policy chooses it.
func (w *Watcher) SetNode(name string, set map[string]string) {
	w.mu.Lock()
	changed := !w.known || w.node.name != name || !maps.Equal(w.node.labels, labels.Set(set))
	w.node, w.known = node{name, maps.Clone(set)}, true
	w.mu.Unlock()
	if changed {
		w.nudge()
	}
}

// Run follows the policies until ctx ends. It may be called again, with a source that reaches the API server another way:
// what is wanted stays until the new source has answered.
func (w *Watcher) Run(ctx context.Context, source Source) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		source.Run(ctx, feed.Handler[*v1alpha1.PrepullPolicy]{Strip: strip, Replace: w.replace, Set: w.set, Delete: w.delete})
	})
	for {
		next := w.settle()
		timer := time.NewTimer(time.Hour)
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-w.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// strip drops what an agent does not read.
func strip(in *v1alpha1.PrepullPolicy) *v1alpha1.PrepullPolicy {
	in.ManagedFields, in.Annotations, in.Status.Conditions = nil, nil, nil
	return in
}

func (w *Watcher) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Watcher) replace(list []*v1alpha1.PrepullPolicy) {
	w.mu.Lock()
	gone := maps.Clone(w.policies)
	for _, p := range list {
		w.take(p)
		delete(gone, p.Name)
	}
	for name := range gone {
		delete(w.policies, name)
	}
	w.mu.Unlock()
	w.nudge()
}

func (w *Watcher) set(p *v1alpha1.PrepullPolicy) {
	w.mu.Lock()
	w.take(p)
	w.mu.Unlock()
	w.nudge()
}

func (w *Watcher) delete(p *v1alpha1.PrepullPolicy) {
	w.mu.Lock()
	delete(w.policies, p.Name)
	w.mu.Unlock()
	w.nudge()
}

// take takes a policy over. The caller holds mu.
func (w *Watcher) take(p *v1alpha1.PrepullPolicy) {
	s := w.policies[p.Name]
	if p.Unreadable != "" && s != nil && s.policy.UID == p.UID {
		return // what it said last stays
	}
	if p.Unreadable != "" {
		delete(w.policies, p.Name)
		return
	}
	switch {
	case s == nil || s.policy.UID != p.UID:
		w.policies[p.Name] = &subscription{policy: p, since: time.Now()}
		return
	case s.policy.Generation != p.Generation:
		s.since = time.Now()
	}
	s.policy = p
}

// settle applies what is wanted now, and returns when that changes by time alone.
func (w *Watcher) settle() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known {
		return time.Time{}
	}
	now := time.Now()
	var next time.Time
	lists := [][]prepull.Image{w.static}
	for _, name := range slices.Sorted(maps.Keys(w.policies)) {
		s := w.policies[name]
		next = earliest(next, s.settle(w.node, now))
		lists = append(lists, s.images)
	}
	wanted := union(lists...)
	if !slices.Equal(wanted, w.applied) {
		w.applied = wanted
		w.apply(wanted)
	}
	return next
}
