package controller

import (
	"context"
	"sync"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
// first pod on that names an object of it; until that watch has synced its objects do not exist.
type objects struct {
	client  metadata.Interface
	log     logr.Logger
	arrived func(gates.Dependency)

	mu sync.Mutex
	// run begins a watch that lives as long as the controller; nil until start.
	run    func(toolscache.SharedIndexInformer)
	stores map[gates.Kind]toolscache.Store
}

// start gives the watches their life.
func (o *objects) start(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stores = map[gates.Kind]toolscache.Store{}
	o.run = func(informer toolscache.SharedIndexInformer) { go informer.RunWithContext(ctx) }
}

// exists says whether an object is there and not being deleted.
func (o *objects) exists(dependency gates.Dependency) bool {
	o.mu.Lock()
	store := o.stores[dependency.Kind]
	o.mu.Unlock()
	if store == nil {
		return false
	}
	object, found, err := store.GetByKey(toolscache.NewObjectName(dependency.Namespace, dependency.Name).String())
	if err != nil || !found {
		return false
	}
	meta, ok := object.(*metav1.PartialObjectMetadata)
	return ok && meta.DeletionTimestamp == nil
}

// need begins to watch the kind of a dependency, once.
func (o *objects) need(dependency gates.Dependency) {
	kind := dependency.Kind
	resource, ok := referenceResource(kind)
	if !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stores[kind] != nil || o.run == nil {
		return
	}
	informer := metadatainformer.NewFilteredMetadataInformer(o.client, resource, metav1.NamespaceAll, 0, nil, nil).Informer()
	log := o.log.WithValues("kind", kind)
	if err := logWatchErrors(informer, log); err != nil {
		log.Error(err, "watch incomplete")
	}
	if err := informer.SetTransform(keepIdentity); err != nil {
		log.Error(err, "watch incomplete")
	}
	set := func(object *metav1.PartialObjectMetadata) {
		if object.DeletionTimestamp == nil {
			o.arrived(gates.Dependency{Kind: kind, Namespace: object.Namespace, Name: object.Name})
		}
	}
	added := toolscache.ResourceEventHandlerFuncs{
		// An object that exists does not exist more by a change: only its coming counts.
		AddFunc: func(object any) {
			if meta, ok := object.(*metav1.PartialObjectMetadata); ok {
				set(meta)
			}
		},
		UpdateFunc: func(before, object any) {
			old, _ := before.(*metav1.PartialObjectMetadata)
			meta, ok := object.(*metav1.PartialObjectMetadata)
			if ok && (old == nil || old.UID != meta.UID) {
				set(meta)
			}
		},
	}
	if _, err := informer.AddEventHandler(added); err != nil {
		log.Error(err, "watch incomplete")
	}
	o.stores[kind] = informer.GetStore()
	o.run(informer)
}

// keepIdentity drops everything that says more than that the object exists.
func keepIdentity(object any) (any, error) {
	meta, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
		DeletionTimestamp: meta.DeletionTimestamp,
	}}, nil
}
