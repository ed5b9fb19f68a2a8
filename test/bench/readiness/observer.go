package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// observer watches for the taints to go, in every phase alike, so that its cost is in every figure.
type observer struct {
	mu   sync.Mutex
	want int
	gone map[string]time.Time
	// flips are when the flips were seen: what the API server's watch takes in the same wave.
	flips   map[string]time.Time
	done    chan struct{}
	closed  bool
	failure error
}

func newObserver() *observer { return &observer{} }

// reset begins to count: n nodes are to lose their taints.
func (o *observer) reset(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.want, o.gone, o.done, o.closed = n, make(map[string]time.Time, n), make(chan struct{}), false
	o.flips = make(map[string]time.Time, n)
}

func (o *observer) watch(ctx context.Context, c kubernetes.Interface) error {
	list, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	o.reset(0)
	// The API server closes a watch that lags behind, as it may in a wave: the next one goes on where it ended.
	from := list.ResourceVersion
	w, err := watchFrom(ctx, c, from)
	if err != nil {
		return err
	}
	go func() {
		for {
			for event := range w.ResultChan() {
				from = o.take(event, from)
			}
			if w, err = watchFrom(ctx, c, from); err != nil {
				o.fail(ctx, err)
				return
			}
		}
	}()
	return nil
}

func watchFrom(ctx context.Context, c kubernetes.Interface, version string) (watch.Interface, error) {
	hour := int64(3600)
	return c.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{ResourceVersion: version, TimeoutSeconds: &hour})
}

func (o *observer) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failure = err
}

// take notes an event, and returns the version to go on from: that of the event, or the one before where it has none.
func (o *observer) take(event watch.Event, from string) string {
	n, ok := event.Object.(*corev1.Node)
	o.mu.Lock()
	defer o.mu.Unlock()
	if !ok {
		o.failure = fmt.Errorf("watch: %v", event.Object)
		return from
	}
	if _, known := o.flips[n.Name]; !known && hasFlipped(n) {
		o.flips[n.Name] = time.Now()
	}
	if event.Type == watch.Deleted || len(n.Spec.Taints) > 0 || o.closed {
		return n.ResourceVersion
	}
	if _, known := o.gone[n.Name]; known {
		return n.ResourceVersion
	}
	o.gone[n.Name] = time.Now()
	if len(o.gone) == o.want {
		o.closed = true
		close(o.done)
	}
	return n.ResourceVersion
}

func (o *observer) wait(ctx context.Context) error {
	timer := time.NewTimer(waveTimeout)
	defer timer.Stop()
	select {
	case <-o.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		o.mu.Lock()
		defer o.mu.Unlock()
		return errors.Join(fmt.Errorf("%d of %d nodes were released in %s", len(o.gone), o.want, waveTimeout), o.failure)
	}
}

func hasFlipped(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == flipped && c.Status == corev1.ConditionTrue
	})
}

func (o *observer) times() map[string]time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.gone)
}

func (o *observer) flipTimes() map[string]time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.flips)
}

func (o *observer) last() time.Time {
	var last time.Time
	for _, at := range o.times() {
		if at.After(last) {
			last = at
		}
	}
	return last
}
