package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"headstart.dev/prepull/feed"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/prepull/workload"
)

// kinds of Kubernetes itself, whose apiVersion a policy may leave out.
var builtin = map[string]string{
	"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "ReplicaSet": "apps/v1",
	"Job": "batch/v1", "CronJob": "batch/v1", "PodTemplate": "v1",
}

// retryKind is how often a kind that the cluster does not have is looked for again.
const retryKind = 30 * time.Second

// requestTimeout bounds one request to the API server.
const requestTimeout = 10 * time.Second

// sourceKey is one watch: a kind in a namespace ("" for all), of which images are read at paths, one a line.
type sourceKey struct{ apiVersion, kind, namespace, paths string }

func keyOf(s v1alpha1.WorkloadSource) sourceKey {
	return sourceKey{cmp.Or(s.APIVersion, builtin[s.Kind]), s.Kind, s.Namespace, strings.Join(s.ImagePaths, "\n")}
}

// discoverer lists the kinds of one apiVersion.
type discoverer interface {
	ServerResourcesForGroupVersionWithContext(ctx context.Context, groupVersion string) (*metav1.APIResourceList, error)
}

// workloads follows the templates of those workloads that policies name. It is safe for concurrent use.
type workloads struct {
	client    dynamic.Interface
	discovery discoverer
	changed   func()

	mu      sync.Mutex
	sources map[sourceKey]*source
}

// source is one running watch.
type source struct {
	stop    context.CancelFunc
	objects map[string]template // by namespace/name
	synced  bool
	err     error
}

// template is what is kept of a workload.
type template struct {
	labels labels.Set
	images []string
}

func newWorkloads(client dynamic.Interface, disco discoverer, changed func()) *workloads {
	return &workloads{client: client, discovery: disco, changed: changed, sources: map[sourceKey]*source{}}
}

// want starts the watches that are missing and stops those that nobody wants. They end with ctx.
func (w *workloads) want(ctx context.Context, keys map[sourceKey]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, src := range w.sources {
		if !keys[key] {
			src.stop()
			delete(w.sources, key)
		}
	}
	for key := range keys {
		if w.sources[key] == nil {
			ctx, stop := context.WithCancel(ctx)
			src := &source{stop: stop, objects: map[string]template{}}
			w.sources[key] = src
			go w.follow(ctx, key, src)
		}
	}
}

// found is what a source has.
type found struct {
	// images of the workloads, in order of namespace and name.
	images []string
	// imageless describes the workloads in which no image is found.
	imageless []string
	// settled is false until the first list has come.
	settled bool
}

// images returns what the workloads that a source chooses have. The error says why their list does not come.
func (w *workloads) images(from v1alpha1.WorkloadSource) (found, error) {
	selector := labels.Everything()
	if from.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(from.Selector); err != nil {
			return found{settled: true}, fmt.Errorf("read selector of %s: %w", from.Kind, err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	src := w.sources[keyOf(from)]
	if src == nil {
		return found{}, nil
	}
	var names, without []string
	for name, t := range src.objects {
		if selector.Matches(t.labels) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := found{settled: src.synced || src.err != nil}
	for _, name := range names {
		images := src.objects[name].images
		if len(images) == 0 {
			without = append(without, name)
		}
		out.images = append(out.images, images...)
	}
	if len(without) > 0 {
		out.imageless = []string{fmt.Sprintf("%d of kind %s, such as %s", len(without), from.Kind, without[0])}
	}
	return out, src.err
}

// follow feeds one source until ctx ends; a kind that the cluster does not have yet is waited for.
func (w *workloads) follow(ctx context.Context, key sourceKey, src *source) {
	var gvr schema.GroupVersionResource
	for {
		var err error
		if gvr, err = w.resource(ctx, key); err == nil {
			break
		}
		w.failed(src, err)
		timer := time.NewTimer(retryKind)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
	paths, err := workload.ParsePaths(strings.FieldsFunc(key.paths, func(r rune) bool { return r == '\n' }))
	if err != nil {
		w.failed(src, err)
		return
	}
	client := w.client.Resource(gvr).Namespace(key.namespace)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := client.List(ctx, options)
			if err != nil {
				w.failed(src, fmt.Errorf("list %s of %s: %w", gvr.Resource, key.apiVersion, err))
				return nil, err
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			stream, err := client.Watch(ctx, options)
			if err != nil {
				w.failed(src, fmt.Errorf("watch %s of %s: %w", gvr.Resource, key.apiVersion, err))
				return nil, err
			}
			return stream, nil
		},
	}
	feed.Run(ctx, gvr.Resource, lw, &unstructured.Unstructured{}, feed.Handler[*unstructured.Unstructured]{
		Strip: func(obj *unstructured.Unstructured) *unstructured.Unstructured {
			obj.Object = workload.Strip(obj.Object, paths...)
			return obj
		},
		Replace: func(list []*unstructured.Unstructured) {
			w.update(func() bool {
				src.objects = make(map[string]template, len(list))
				for _, obj := range list {
					src.objects[id(obj)] = read(obj)
				}
				src.synced, src.err = true, nil
				return true
			})
		},
		Set: func(obj *unstructured.Unstructured) {
			w.update(func() bool {
				now, before := read(obj), src.objects[id(obj)]
				src.objects[id(obj)] = now
				return !slices.Equal(now.images, before.images) || !labels.Equals(now.labels, before.labels)
			})
		},
		Delete: func(obj *unstructured.Unstructured) {
			w.update(func() bool {
				delete(src.objects, id(obj))
				return true
			})
		},
	})
}

func id(obj *unstructured.Unstructured) string { return obj.GetNamespace() + "/" + obj.GetName() }

func read(obj *unstructured.Unstructured) template {
	return template{labels: obj.GetLabels(), images: workload.Images(obj.Object)}
}

func (w *workloads) update(change func() bool) {
	w.mu.Lock()
	changed := change()
	w.mu.Unlock()
	if changed {
		w.changed()
	}
}

func (w *workloads) failed(src *source, err error) {
	w.update(func() bool {
		news := src.err == nil || src.err.Error() != err.Error()
		src.err = err
		return news
	})
}

// resource finds the plural of a kind.
func (w *workloads) resource(ctx context.Context, key sourceKey) (schema.GroupVersionResource, error) {
	gv, err := schema.ParseGroupVersion(key.apiVersion)
	if err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("read apiVersion of %s: %w", key.kind, err)
	}
	if builtin[key.kind] == key.apiVersion {
		return gv.WithResource(strings.ToLower(key.kind) + "s"), nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := w.discovery.ServerResourcesForGroupVersionWithContext(ctx, key.apiVersion)
	if err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("find kind %s of %s: %w", key.kind, key.apiVersion, err)
	}
	for _, r := range list.APIResources {
		if r.Kind == key.kind && slices.Contains(r.Verbs, "watch") {
			return gv.WithResource(r.Name), nil
		}
	}
	return schema.GroupVersionResource{}, fmt.Errorf("find kind %s: %s of this cluster has none", key.kind, key.apiVersion)
}
