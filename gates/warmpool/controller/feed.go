package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// feed leads watches into the model and the model's findings into the queue. As a source it starts with the controller,
// so on the leader alone, and no pool is reconciled before the model has seen all that was there.
type feed struct {
	cache   cache.Cache
	watches []watch
	synced  []toolscache.InformerSynced
	queue   atomic.Pointer[queue]
	leads   <-chan struct{} // closed when this replica leads

	mu       sync.Mutex
	followed map[string]bool // kinds of workloads
	full     atomic.Bool     // the model has seen all that was there
}

type watch struct {
	object  client.Object
	handler toolscache.ResourceEventHandler
}

var _ source.TypedSyncingSource[reconcile.Request] = (*feed)(nil)

func (f *feed) watch(object client.Object, handler toolscache.ResourceEventHandler) {
	f.watches = append(f.watches, watch{object, handler})
}

// Start begins to feed. It does not block beyond the making of the informers.
func (f *feed) Start(ctx context.Context, q queue) error {
	f.queue.Store(&q)
	for _, w := range f.watches {
		informer, err := f.cache.GetInformer(ctx, w.object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.object, err)
		}
		registration, err := informer.AddEventHandler(w.handler)
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.object, err)
		}
		f.synced = append(f.synced, registration.HasSynced)
	}
	return nil
}

// WaitForSync blocks until the model has seen all that was there.
func (f *feed) WaitForSync(ctx context.Context) error {
	if !toolscache.WaitForCacheSync(ctx.Done(), f.synced...) {
		return errors.New("fill the model of warm pools: stopped before all was seen")
	}
	f.full.Store(true)
	return nil
}

// ready fails on a leader that has not seen all that was there yet. A standby has nothing to see: warm pools are in no
// hurry.
func (f *feed) ready(*http.Request) error {
	select {
	case <-f.leads:
		if !f.full.Load() {
			return errors.New("pods, policies and nodes have not been listed yet")
		}
	default:
	}
	return nil
}

// enqueue never blocks: the queue folds what is in it already.
func (f *feed) enqueue(pool types.NamespacedName) {
	if q := f.queue.Load(); q != nil {
		(*q).Add(reconcile.Request{NamespacedName: pool})
	}
}

// follow has pools looked at when a workload of a kind changes its spec, from the first pool on that names one: Deployments
// are watched anyway, and a cluster has many ReplicaSets that no pool is for.
func (r *reconciler) follow(ctx context.Context, kind string, object client.Object) error {
	if kind == kindDeployment || r.feed == nil {
		return nil
	}
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	if r.feed.followed[kind] {
		return nil
	}
	// The client reads from this informer; the context of one reconcile bounds only the wait for it.
	informer, err := r.feed.cache.GetInformer(ctx, object)
	if err != nil {
		return fmt.Errorf("watch %s: %w", kind, err)
	}
	pools := r.poolsOfWorkload(kind)
	look := func(obj any) {
		workload, ok := last(obj).(client.Object)
		if !ok {
			return
		}
		list, cancel := context.WithTimeout(context.WithoutCancel(ctx), reconcileTimeout)
		defer cancel()
		for _, request := range pools(list, workload) {
			r.feed.enqueue(request.NamespacedName)
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: look, DeleteFunc: look,
		UpdateFunc: func(before, now any) {
			a, okA := before.(client.Object)
			b, okB := now.(client.Object)
			if okA && okB && a.GetGeneration() != b.GetGeneration() {
				look(now)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch %s: %w", kind, err)
	}
	if r.feed.followed == nil {
		r.feed.followed = map[string]bool{}
	}
	r.feed.followed[kind] = true
	return nil
}
