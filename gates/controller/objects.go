package controller

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	toolscache "k8s.io/client-go/tools/cache"

	"headstart.dev/gates"
)

// referenceResources says where the objects that a pod names are served.
func referenceResource(kind gates.Kind) (schema.GroupVersionResource, bool) {
	switch kind {
	case gates.KindConfigMap:
		return schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, true
	case gates.KindSecret:
		return schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, true
	case gates.KindPersistentVolumeClaim:
		return schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}, true
	case gates.KindServiceAccount:
		return schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, true
	case gates.KindResourceClaim:
		return schema.GroupVersionResource{Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaims"}, true
	case gates.KindResourceClaimTemplate:
		return schema.GroupVersionResource{Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaimtemplates"}, true
	case gates.KindStorageClass:
		return schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}, true
	case gates.KindPriorityClass:
		return schema.GroupVersionResource{Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses"}, true
	case gates.KindRuntimeClass:
		return schema.GroupVersionResource{Group: "node.k8s.io", Version: "v1", Resource: "runtimeclasses"}, true
	default:
		return schema.GroupVersionResource{}, false
	}
}

// objects knows which of the objects that pods name exist. A kind is watched, as metadata without its content, from the
// first pod on that names an object of it; until that watch has synced nobody knows of its objects.
type objects struct {
	client  metadata.Interface
	typed   kubernetes.Interface
	log     logr.Logger
	arrived func(gates.Dependency)
	// answered is called when a kind is known, or known not to be readable.
	answered func()

	mu    sync.Mutex
	ctx   func() context.Context // nil until start
	kinds map[gates.Kind]*kindWatch
}

// kindWatch is the watch of one kind.
type kindWatch struct {
	store   toolscache.Store
	synced  func() bool
	problem string // why it is not synced
	denied  bool   // the last answer was that this controller may not list them
	// stop ends the watch; ended is when that was done because the kind is denied by default, zero while it goes on.
	stop  context.CancelFunc
	ended time.Time
}

// askAgain is how old a denial may be that a pod which begins to wait is judged by.
const askAgain = 10 * time.Second

// known says that a watch need not be begun anew.
func (w *kindWatch) known() bool {
	return w != nil && (w.ended.IsZero() || time.Since(w.ended) < askAgain)
}

// start gives the watches their life.
func (o *objects) start(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kinds = map[gates.Kind]*kindWatch{}
	o.ctx = func() context.Context { return ctx }
}

// exists says whether an object is there and not being deleted.
func (o *objects) exists(dependency gates.Dependency) gates.Existence {
	o.mu.Lock()
	defer o.mu.Unlock()
	watch := o.kinds[dependency.Kind]
	if watch == nil || !watch.ended.IsZero() || !watch.synced() {
		out := gates.Existence{Unknown: true}
		if watch != nil {
			out.Problem, out.Denied = watch.problem, watch.denied
		}
		return out
	}
	object, found, err := watch.store.GetByKey(toolscache.NewObjectName(dependency.Namespace, dependency.Name).String())
	if err != nil || !found {
		return gates.Existence{}
	}
	if known, ok := object.(*thing); ok {
		return known.existence()
	}
	return gates.Existence{}
}

// need begins to watch the kind of a dependency, once; one that was denied again, as the right may have been granted.
func (o *objects) need(dependency gates.Dependency) {
	kind := dependency.Kind
	if _, ok := referenceResource(kind); !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx == nil || o.kinds[kind].known() {
		return
	}
	informer, watch := o.informer(kind), &kindWatch{}
	log := o.log.WithValues("kind", kind)
	if err := logWatchErrors(informer, log, func(err error) { o.failed(kind, watch, err) }); err != nil {
		log.Error(err, "watch incomplete")
	}
	if err := informer.SetTransform(readThing); err != nil {
		log.Error(err, "watch incomplete")
	}
	tell := func(now *thing) {
		if !now.deleting {
			o.arrived(gates.Dependency{Kind: kind, Namespace: now.namespace, Name: now.name})
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if now, ok := object.(*thing); ok {
				tell(now)
			}
		},
		// An object that exists does not exist more by a change, unless its names changed.
		UpdateFunc: func(before, object any) {
			old, _ := before.(*thing)
			if now, ok := object.(*thing); ok && (old == nil || !old.same(now)) {
				tell(now)
			}
		},
	})
	if err != nil {
		log.Error(err, "watch incomplete")
		return
	}
	watch.store, watch.synced = informer.GetStore(), registration.HasSynced
	o.kinds[kind] = watch
	ctx, stop := context.WithCancel(o.ctx())
	watch.stop = stop
	go informer.RunWithContext(ctx)
	go func() {
		if toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			o.answered()
		}
	}()
}

// informer watches metadata, but ServiceAccounts whole: which pull secrets a pod has of its account stands in their body,
// and no secret does.
func (o *objects) informer(kind gates.Kind) toolscache.SharedIndexInformer {
	if kind == gates.KindServiceAccount {
		source := toolscache.NewListWatchFromClient(o.typed.CoreV1().RESTClient(), "serviceaccounts", metav1.NamespaceAll, fields.Everything())
		return toolscache.NewSharedIndexInformer(source, &corev1.ServiceAccount{}, 0, nil)
	}
	resource, _ := referenceResource(kind)
	return metadatainformer.NewFilteredMetadataInformer(o.client, resource, metav1.NamespaceAll, 0, nil, nil).Informer()
}

// failed takes note that a kind cannot be listed; the first time those who wait are told. What is denied by default is asked
// for no longer: no pod waits for it, and an idle cluster is silent.
func (o *objects) failed(kind gates.Kind, watch *kindWatch, err error) {
	o.mu.Lock()
	first := watch.problem == ""
	watch.problem, watch.denied = err.Error(), apierrors.IsForbidden(err)
	if watch.denied && kind.MayBeDenied() {
		watch.ended = time.Now()
		watch.stop()
	}
	o.mu.Unlock()
	if first {
		o.answered()
	}
}
