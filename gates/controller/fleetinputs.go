package controller

import (
	"context"
	"fmt"
	"sync"

	toolscache "k8s.io/client-go/tools/cache"
)

// fleetInputs are the watches of nodes and of bound pods: what says where pods could run. Until both are there no room is
// given away; deadlines run all the same.
type fleetInputs struct {
	nodes <-chan struct{} // closed when the nodes have been listed

	mu    sync.Mutex
	begun bool // the watch of bound pods
	bound bool // they have been listed
	why   string
}

// problem says what is missing, "" when nothing is.
func (f *fleetInputs) problem() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.nodes:
	default:
		return "nodes have not been listed yet"
	}
	if f.bound {
		return ""
	}
	if f.why != "" {
		return "bound pods cannot be listed: " + f.why
	}
	return "bound pods have not been listed yet"
}

// wanted says whether a policy asks where pods could run.
func (f *fleetInputs) wanted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun
}

func (f *fleetInputs) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why = err.Error()
}

func (f *fleetInputs) listed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bound, f.why = true, ""
}

// awaitNodes wakes everybody when the nodes are known.
func (s *source) awaitNodes(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.fleet.nodes:
		s.enqueue(s.waitlist.everyone())
		s.ring()
	}
}

// watchBound begins to watch bound pods, once: their requests are what makes a node full. It is begun with the first
// policy that asks where pods could run.
func (s *source) watchBound(ctx context.Context) error {
	var err error
	s.boundOnce.Do(func() { err = s.startBound(ctx) })
	return err
}

func (s *source) startBound(ctx context.Context) error {
	s.fleet.mu.Lock()
	s.fleet.begun = true
	s.fleet.mu.Unlock()
	informer, err := newPodInformer(s.clients.CoreV1().RESTClient(), selectBound, transformBound)
	if err != nil {
		return err
	}
	registration, err := informer.AddEventHandler(handlers(
		func(pod *boundPod) { s.enqueue(s.waitlist.bindPod(pod)) },
		func(pod *boundPod) {
			s.enqueue(s.waitlist.unbindPod(pod))
			s.ring()
		}))
	if err != nil {
		return fmt.Errorf("watch bound pods: %w", err)
	}
	tell := func(err error) {
		s.fleet.failed(err)
		s.ring()
	}
	if err := logWatchErrors(informer, s.log, tell); err != nil {
		return err
	}
	go informer.RunWithContext(ctx)
	go func() {
		if toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			s.fleet.listed()
			s.enqueue(s.waitlist.everyone())
			s.ring()
		}
	}()
	return nil
}
