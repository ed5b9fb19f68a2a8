package controller

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
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
	// asked takes the outcome of every request that opens a list or a watch; nil to tell nobody.
	asked func(error)
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
	if s.asked != nil {
		lw = asking{cache.ToListerWatcherWithContext(lw), s.asked}
	}
	cache.NewReflectorWithOptions(lw, expected, s, cache.ReflectorOptions{Name: "readiness " + s.kind, Backoff: &delay}).RunWithContext(ctx)
}

// asking tells of the outcome of each request. What ends with its context is none.
type asking struct {
	cache.ListerWatcherWithContext

	outcome func(error)
}

var _ cache.ListerWatcher = asking{}

func (a asking) tell(ctx context.Context, err error) {
	if ctx.Err() == nil {
		a.outcome(err)
	}
}

// ListWithContext lists.
func (a asking) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	out, err := a.ListerWatcherWithContext.ListWithContext(ctx, options)
	a.tell(ctx, err)
	return out, err
}

// WatchWithContext watches.
func (a asking) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	out, err := a.ListerWatcherWithContext.WatchWithContext(ctx, options)
	a.tell(ctx, err)
	return out, err
}

// List is for callers without a context, of which there are none.
func (a asking) List(options metav1.ListOptions) (runtime.Object, error) {
	return a.ListWithContext(context.Background(), options)
}

// Watch likewise.
func (a asking) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return a.WatchWithContext(context.Background(), options)
}

// cannotList says in one line why a resource cannot be looked at; "" where it can.
func cannotList(resource string, err error) string {
	switch {
	case err == nil:
		return ""
	case apierrors.IsForbidden(err):
		return bounded(fmt.Sprintf("cannot list %s: forbidden: %v", resource, err))
	default:
		return bounded(fmt.Sprintf("cannot list %s: %v", resource, err))
	}
}

// maxReason bounds a text that goes into a status.
const maxReason = 1024

func bounded(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "")
}
