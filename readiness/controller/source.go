package controller

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

// sink takes what a watch of T delivers straight into the engine: there is no cache between, the model is the only copy.
// strip keeps the fields in use, as soon as an object comes off the wire.
type sink[T runtime.Object] struct {
	kind    string
	strip   func(T) T
	observe func(T, bool)
	replace func([]T)
	synced  func()
}

var _ cache.TransformingStore = sink[runtime.Object]{}

func (s sink[T]) Add(obj any) error    { return s.take(obj, true) }
func (s sink[T]) Update(obj any) error { return s.take(obj, true) }
func (s sink[T]) Delete(obj any) error { return s.take(obj, false) }
func (s sink[T]) Resync() error        { return nil }

func (s sink[T]) take(obj any, known bool) error {
	in, ok := obj.(T)
	if !ok {
		return fmt.Errorf("watch %s: %T is none", s.kind, obj)
	}
	s.observe(s.strip(in), known)
	return nil
}

func (s sink[T]) Replace(list []any, _ string) error {
	out := make([]T, 0, len(list))
	for _, obj := range list {
		in, ok := obj.(T)
		if !ok {
			return fmt.Errorf("list %s: %T is none", s.kind, obj)
		}
		out = append(out, s.strip(in))
	}
	s.replace(out)
	s.synced()
	return nil
}

// Transformer strips the objects of a first list one by one, so that it never stands in memory whole.
func (s sink[T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if in, ok := obj.(T); ok {
			return s.strip(in), nil
		}
		return obj, nil
	}
}

// watchBackoff is for an API server that is away: it is looked for often, because nodes wait for it.
var watchBackoff = wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: 2 * time.Second}

// feed runs a watch into s until ctx ends.
func feed[T runtime.Object](ctx context.Context, lw cache.ListerWatcher, expected T, s sink[T]) {
	delay := watchBackoff
	cache.NewReflectorWithOptions(lw, expected, s, cache.ReflectorOptions{Name: "readiness " + s.kind, Backoff: &delay}).RunWithContext(ctx)
}
