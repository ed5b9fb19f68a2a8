package controller

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"headstart.dev/gates"
)

// named watches single things by name, each for as long as a pod waits for it: the object of an expression, the
// EndpointSlices of a Service.
type named struct {
	dynamic dynamic.Interface
	clients kubernetes.Interface
	mapper  meta.RESTMapper
	log     logr.Logger
	changed func(gates.Dependency)

	mu      sync.Mutex
	begin   func(func(context.Context)) (cancel context.CancelFunc) // nil until start
	watches map[gates.Dependency]*namedWatch
}

type namedWatch struct {
	store   toolscache.Store // nil until the kind is known to the API server
	synced  func() bool
	problem string // why it has not synced
	cancel  context.CancelFunc
}

func (n *named) start(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watches = map[gates.Dependency]*namedWatch{}
	n.begin = func(run func(context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		go run(ctx)
		return cancel
	}
}

// need begins the watch of a thing that a first pod waits for.
func (n *named) need(dependency gates.Dependency) {
	if dependency.Kind != gates.KindObject && dependency.Kind != gates.KindService {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.begin == nil || n.watches[dependency] != nil {
		return
	}
	watch := &namedWatch{}
	n.watches[dependency] = watch
	watch.cancel = n.begin(func(ctx context.Context) { n.watch(ctx, dependency, watch) })
}

// drop ends the watch of a thing that no pod waits for any more.
func (n *named) drop(dependency gates.Dependency) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if watch := n.watches[dependency]; watch != nil {
		delete(n.watches, dependency)
		watch.cancel()
	}
}

func (n *named) watch(ctx context.Context, dependency gates.Dependency, watch *namedWatch) {
	log := n.log.WithValues("dependency", dependency.String())
	failed := func(err error) { n.failed(dependency, watch, err) }
	informer, err := n.informer(ctx, dependency, failed)
	if err != nil {
		if ctx.Err() == nil {
			failed(err)
			log.Error(err, "cannot watch what pods wait for")
		}
		return
	}
	if err := logWatchErrors(informer, log, failed); err != nil {
		log.Error(err, "watch incomplete")
	}
	tell := func(any) { n.changed(dependency) }
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: tell, UpdateFunc: func(_, object any) { tell(object) }, DeleteFunc: tell,
	})
	if err != nil {
		log.Error(err, "watch incomplete")
		return
	}
	n.mu.Lock()
	watch.store, watch.synced = informer.GetStore(), registration.HasSynced
	n.mu.Unlock()
	go func() {
		if toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			n.changed(dependency)
		}
	}()
	informer.RunWithContext(ctx)
}

// failed takes note that a thing cannot be read; the first time those who wait for it are told.
func (n *named) failed(dependency gates.Dependency, watch *namedWatch, err error) {
	n.mu.Lock()
	first := watch.problem == ""
	watch.problem = err.Error()
	n.mu.Unlock()
	if first {
		n.changed(dependency)
	}
}

func (n *named) informer(ctx context.Context, dependency gates.Dependency, failed func(error)) (toolscache.SharedIndexInformer, error) {
	if dependency.Kind == gates.KindService {
		selector := labels.Set{discoveryv1.LabelServiceName: dependency.Name}.String()
		return discoveryinformers.NewFilteredEndpointSliceInformer(n.clients, dependency.Namespace, 0, nil, func(o *metav1.ListOptions) {
			o.LabelSelector = selector
		}), nil
	}
	resource, namespaced, err := n.resolve(ctx, dependency, failed)
	if err != nil {
		return nil, err
	}
	namespace := dependency.Namespace
	if !namespaced {
		namespace = metav1.NamespaceAll
	}
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, dependency.Name).String()
	return dynamicinformer.NewFilteredDynamicInformer(n.dynamic, resource, namespace, 0, nil, func(o *metav1.ListOptions) {
		o.FieldSelector = selector
	}).Informer(), nil
}

// resolve finds where a kind is served. A kind that the cluster does not know yet is looked for until it does: its CRD
// may come with what the pod waits for.
func (n *named) resolve(ctx context.Context, dependency gates.Dependency, failed func(error)) (schema.GroupVersionResource, bool, error) {
	gvk, err := groupVersionKind(dependency)
	if err != nil {
		return schema.GroupVersionResource{}, false, err
	}
	for wait := newPace(); ; {
		mapping, err := n.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil && anyVersion(dependency.Type) {
			mapping, err = n.mapper.RESTMapping(gvk.GroupKind())
		}
		if err == nil {
			return mapping.Resource, mapping.Scope.Name() == meta.RESTScopeNameNamespace, nil
		}
		n.log.V(1).Info("kind not served yet", "dependency", dependency.String(), "reason", err.Error())
		failed(err)
		if err := wait.next(ctx); err != nil {
			return schema.GroupVersionResource{}, false, err
		}
	}
}

// anyVersion says whether the version was our choice, not the user's: another one is as good.
func anyVersion(typ string) bool { return typ == gates.PodGroupType || typ == gates.TrustBundleType }

func groupVersionKind(dependency gates.Dependency) (schema.GroupVersionKind, error) {
	at := strings.LastIndex(dependency.Type, "/")
	if at < 0 {
		return schema.GroupVersionKind{}, fmt.Errorf("parse type %q: want apiVersion/Kind", dependency.Type)
	}
	gv, err := schema.ParseGroupVersion(dependency.Type[:at])
	if err != nil {
		return schema.GroupVersionKind{}, fmt.Errorf("parse type %q: %w", dependency.Type, err)
	}
	return gv.WithKind(dependency.Type[at+1:]), nil
}

// items lists what a watch has seen, once it has seen all.
func (n *named) items(dependency gates.Dependency) ([]any, gates.Existence) {
	n.mu.Lock()
	defer n.mu.Unlock()
	watch := n.watches[dependency]
	switch {
	case watch == nil:
		return nil, gates.Existence{Unknown: true}
	case watch.synced == nil || !watch.synced():
		return nil, gates.Existence{Unknown: true, Problem: watch.problem}
	}
	return watch.store.List(), gates.There(true)
}

// object returns the object of an expression.
func (n *named) object(dependency gates.Dependency) (gates.Object, gates.Existence) {
	items, is := n.items(dependency)
	if is.Unknown {
		return gates.Object{}, is
	}
	for _, item := range items {
		if object, ok := item.(*unstructured.Unstructured); ok {
			read, there := readObject(object)
			return read, gates.There(there)
		}
	}
	return gates.Object{}, gates.There(false)
}

func readObject(object *unstructured.Unstructured) (gates.Object, bool) {
	if object.GetDeletionTimestamp() != nil {
		return gates.Object{}, false
	}
	return gates.Object{Version: string(object.GetUID()) + "/" + object.GetResourceVersion(), Content: object.Object}, true
}

// readyEndpoints counts the ready endpoints of a Service.
func (n *named) readyEndpoints(dependency gates.Dependency) (int, gates.Existence) {
	var slices []*discoveryv1.EndpointSlice
	items, is := n.items(dependency)
	for _, item := range items {
		if slice, ok := item.(*discoveryv1.EndpointSlice); ok {
			slices = append(slices, slice)
		}
	}
	return countReady(slices), is
}

// countReady counts ready endpoints, each once: a dual-stack Service has a slice for each family, so the larger family
// counts, and an endpoint may stand in two slices while they are rewritten.
func countReady(slices []*discoveryv1.EndpointSlice) int {
	byFamily := map[discoveryv1.AddressType]map[string]bool{}
	most := 0
	for _, slice := range slices {
		if byFamily[slice.AddressType] == nil {
			byFamily[slice.AddressType] = map[string]bool{}
		}
		for _, endpoint := range slice.Endpoints {
			// Ready nil means unknown, which consumers are told to take for ready.
			if len(endpoint.Addresses) > 0 && (endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready) {
				byFamily[slice.AddressType][endpoint.Addresses[0]] = true
			}
		}
		most = max(most, len(byFamily[slice.AddressType]))
	}
	return most
}
