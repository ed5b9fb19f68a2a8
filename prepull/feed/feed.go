// Package feed brings objects of the API server to functions as they change, and keeps no copy of them: whoever listens
// holds what it needs. Start from Run, and from Policies for PrepullPolicies.
package feed

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

// Handler takes objects of one kind. Its functions are called one at a time, and must not block for long.
type Handler[T runtime.Object] struct {
	// Strip, when set, drops what nobody reads, as soon as an object has come off the wire. It may be given what it has
	// stripped before.
	Strip func(T) T
	// Replace takes all objects there are: at the start, and again after a watch was lost. Required.
	Replace func([]T)
	// Set takes an object that is new or has changed. Required.
	Set func(T)
	// Delete takes an object that has gone. Required.
	Delete func(T)
}

// watchTimeout is how long a watch lasts at least: an idle node asks for nothing.
const watchTimeout = 30 * time.Minute

// Run feeds the handler until ctx ends.
func Run[T runtime.Object](ctx context.Context, name string, lw cache.ListerWatcher, expected T, h Handler[T]) {
	// An API server that is away is looked for often at first, because nodes wait for it, and by each of a thousand
	// agents at another time.
	delay := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 10, Cap: 10 * time.Second}
	cache.NewReflectorWithOptions(lw, expected, sink[T]{h}, cache.ReflectorOptions{
		Name: name, Backoff: &delay, MinWatchTimeout: watchTimeout,
	}).RunWithContext(ctx)
}

// sink is the store of a reflector that stores nothing.
type sink[T runtime.Object] struct{ h Handler[T] }

var _ cache.TransformingStore = sink[runtime.Object]{}

func (s sink[T]) Add(obj any) error    { return s.pass(obj, s.h.Set) }
func (s sink[T]) Update(obj any) error { return s.pass(obj, s.h.Set) }
func (s sink[T]) Delete(obj any) error { return s.pass(obj, s.h.Delete) }
func (s sink[T]) Resync() error        { return nil }

func (s sink[T]) pass(obj any, to func(T)) error {
	in, ok := obj.(T)
	if !ok {
		return fmt.Errorf("watch: %T is of another kind", obj)
	}
	to(s.strip(in))
	return nil
}

func (s sink[T]) strip(in T) T {
	if s.h.Strip == nil {
		return in
	}
	return s.h.Strip(in)
}

func (s sink[T]) Replace(list []any, _ string) error {
	out := make([]T, 0, len(list))
	for _, obj := range list {
		in, ok := obj.(T)
		if !ok {
			return fmt.Errorf("list: %T is of another kind", obj)
		}
		out = append(out, s.strip(in))
	}
	s.h.Replace(out)
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
