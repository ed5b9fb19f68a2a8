// Package nodewatch reads the Nodes of the API server once for all that follow them in a process: one stream, each event
// decoded once. It keeps no copy of a Node; every follower makes of it what it needs, as soon as it comes off the wire,
// and holds that. Start from New and Follow.
package nodewatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"headstart.dev/readiness/connection"
	"headstart.dev/readiness/health"
)

// Watch is the one watch of Nodes. Make it with New, add what follows it, then Start it.
type Watch struct {
	client    rest.Interface
	followers []follower
	// labels are those of the Nodes that followers know, by name. Only the reflector's goroutine touches it.
	labels map[string]map[string]string
	once   sync.Once
	synced chan struct{}
	// work is what followers are being told.
	work    health.Work
	hearing hearing
}

// New makes a watch of the API server of config; nothing is sent before Start.
func New(config *rest.Config) (*Watch, error) {
	w := newWatch()
	config = rest.CopyConfig(config)
	config.Wrap(w.hearing.wrap)
	var err error
	if w.client, err = newClient(config); err != nil {
		return nil, fmt.Errorf("make client for nodes: %w", err)
	}
	return w, nil
}

func newWatch() *Watch {
	return &Watch{labels: map[string]map[string]string{}, synced: make(chan struct{})}
}

// Handler is what a follower does with Nodes. Its functions are called one at a time, and must not block: all other
// followers wait for them.
type Handler[T any] struct {
	// Read makes of a Node what the follower holds. It must not keep the Node itself, but may keep its maps and slices, and
	// must change none. The Node has all but what is taken out before it is decoded: managedFields, and of the status
	// capacity, addresses, volumes, runtime handlers, messages of conditions and their reasons but ExecNotAllowed, and
	// images over MaxImageBytes. Required.
	Read func(*corev1.Node) T
	// Set takes a Node that is new or has changed. Required.
	Set func(T)
	// Delete takes the name of a Node that is gone. Required.
	Delete func(name string)
	// Replace, where set, takes a complete list in place of Set and Delete for each: at the start, and again after a watch
	// was lost.
	Replace func([]T)
}

// Follow adds a follower. It must be called before Start; followers are told in the order in which they came.
func Follow[T any](w *Watch, h Handler[T]) { w.followers = append(w.followers, typed[T]{h}) }

// Synced is closed when all Nodes that were there at the start have been told of.
func (w *Watch) Synced() <-chan struct{} { return w.synced }

// HasSynced says whether Synced is closed.
func (w *Watch) HasSynced() bool {
	select {
	case <-w.synced:
		return true
	default:
		return false
	}
}

// Ready fails until all Nodes that were there at the start have been told of, and while nothing is heard of them. Like
// Healthy it has the form of controller-runtime's healthz.Checker.
func (w *Watch) Ready(*http.Request) error {
	if !w.HasSynced() {
		return errors.New("nodes have not been listed yet")
	}
	return w.hears(connection.SilentAfter)
}

// Healthy fails where a follower does not return: all others wait for it.
func (w *Watch) Healthy(r *http.Request) error { return w.work.Check(r) }

// backoff is for an API server that is away: it is looked for often, because nodes wait for it.
var backoff = wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: 2 * time.Second}

// Start watches until ctx ends. It implements controller-runtime's Runnable.
func (w *Watch) Start(ctx context.Context) error {
	lw := cache.NewListWatchFromClient(w.client, "nodes", metav1.NamespaceAll, fields.Everything())
	delay := backoff
	w.hearing.heard() // from now on somebody listens
	cache.NewReflectorWithOptions(lw, &partialNode{}, sink{w}, cache.ReflectorOptions{Name: "nodes", Backoff: &delay}).RunWithContext(ctx)
	return nil
}

// NeedLeaderElection says no: a standby's followers are warm.
func (*Watch) NeedLeaderElection() bool { return false }

// read makes a Node what all followers hold of it.
func (w *Watch) read(in *corev1.Node) *item {
	in.Labels = internAll(in.Labels)
	out := &item{ObjectMeta: metav1.ObjectMeta{Name: in.Name, ResourceVersion: in.ResourceVersion, Labels: in.Labels}, views: make([]any, len(w.followers))}
	for i, f := range w.followers {
		out.views[i] = f.read(in)
	}
	return out
}

func (w *Watch) set(in *corev1.Node) {
	defer w.work.Begin().End()
	// Most events change no label: then all versions of a Node share one map.
	if old, known := w.labels[in.Name]; known && maps.Equal(old, in.Labels) {
		in.Labels = old
	} else {
		in.Labels = internAll(in.Labels)
		w.labels[in.Name] = in.Labels
	}
	for _, f := range w.followers {
		f.set(f.read(in))
	}
}

func (w *Watch) gone(name string) {
	defer w.work.Begin().End()
	delete(w.labels, name)
	for _, f := range w.followers {
		f.gone(name)
	}
}

func (w *Watch) replace(list []*item) {
	defer w.work.Begin().End()
	gone := w.labels
	w.labels = make(map[string]map[string]string, len(list))
	for _, one := range list {
		w.labels[one.Name] = one.Labels
		delete(gone, one.Name)
	}
	for i, f := range w.followers {
		f.replace(i, list, gone)
	}
	w.once.Do(func() { close(w.synced) })
}

// internAll keeps strings that most nodes share once, for all followers.
func internAll(in map[string]string) map[string]string {
	if in == nil {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[unique.Make(k).Value()] = unique.Make(v).Value()
	}
	return out
}

// item is a Node as the followers hold it: a view for each.
type item struct {
	metav1.ObjectMeta

	views []any
}

// sink takes what the reflector delivers. A first list comes through Transformer, Node by Node, so that it never stands
// in memory whole.
type sink struct{ w *Watch }

var _ cache.TransformingStore = sink{}

func (s sink) Add(obj any) error    { return s.set(obj) }
func (s sink) Update(obj any) error { return s.set(obj) }
func (s sink) Resync() error        { return nil }

func (s sink) set(obj any) error {
	in, ok := nodeOf(obj)
	if !ok {
		return fmt.Errorf("watch nodes: %T is none", obj)
	}
	s.w.set(in)
	return nil
}

func (s sink) Delete(obj any) error {
	in, ok := nodeOf(obj)
	if !ok {
		return fmt.Errorf("watch nodes: %T is none", obj)
	}
	s.w.gone(in.Name)
	return nil
}

func (s sink) Replace(list []any, _ string) error {
	out := make([]*item, 0, len(list))
	for _, obj := range list {
		if one, ok := obj.(*item); ok {
			out = append(out, one)
			continue
		}
		in, ok := nodeOf(obj)
		if !ok {
			return fmt.Errorf("list nodes: %T is none", obj)
		}
		out = append(out, s.w.read(in))
	}
	s.w.replace(out)
	return nil
}

// Transformer reads the Nodes of a first list one by one.
func (s sink) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if in, ok := nodeOf(obj); ok {
			return s.w.read(in), nil
		}
		return obj, nil
	}
}
