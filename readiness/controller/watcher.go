package controller

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// watcher runs exactly those watches that the rules need; that of nodes is the process's (nodewatch).
type watcher struct {
	engine *Engine
	client kubernetes.Interface
	// objects watches the objects that rules name.
	objects *objectWatcher
}

// Run watches until ctx ends.
func (w *watcher) Run(ctx context.Context) {
	running := map[watchKey]*watching{}
	for {
		wanted := w.engine.wantedWatches()
		for key, one := range running {
			if !wanted[key] {
				one.stop()
				<-one.done
				w.engine.unwatch(key)
				delete(running, key)
			}
		}
		for key := range wanted {
			if running[key] == nil {
				running[key] = w.start(ctx, key)
			}
		}
		select {
		case <-ctx.Done():
			for _, one := range running {
				one.stop()
				<-one.done
			}
			return
		case <-w.engine.watchEvent:
		}
	}
}

// watching is a running watch; done is closed when it has ended.
type watching struct {
	stop context.CancelFunc
	done chan struct{}
}

func (w *watcher) start(ctx context.Context, key watchKey) *watching {
	ctx, stop := context.WithCancel(ctx)
	one := &watching{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(one.done)
		w.watch(ctx, key)
	}()
	return one
}

func (w *watcher) watch(ctx context.Context, key watchKey) {
	e := w.engine
	synced := func() { e.watchSynced(key, true) }
	asked := func(err error) { e.watchAsked(key, err) }
	switch key.kind {
	case watchDaemonSets:
		feed(ctx, lister(w.client.AppsV1().RESTClient(), "daemonsets", "", nil), &appsv1.DaemonSet{}, sink[*appsv1.DaemonSet]{
			kind: "daemonsets", strip: stripDaemonSet, observe: e.ObserveDaemonSet, replace: e.ReplaceDaemonSets, synced: synced, asked: asked,
		})
	case watchCSINodes:
		feed(ctx, lister(w.client.StorageV1().RESTClient(), "csinodes", "", nil), &storagev1.CSINode{}, sink[*storagev1.CSINode]{
			kind: "csinodes", strip: stripCSINode, observe: e.ObserveCSINode, replace: e.ReplaceCSINodes, synced: synced, asked: asked,
		})
	case watchResourceSlices:
		feed(ctx, lister(w.client.ResourceV1().RESTClient(), "resourceslices", "", nil), &resourcev1.ResourceSlice{}, sink[*resourcev1.ResourceSlice]{
			kind: "resourceslices", strip: stripSlice, observe: e.ObserveSlice, replace: e.ReplaceSlices, synced: synced, asked: asked,
		})
	case watchObject:
		w.objects.watch(ctx, key, synced, asked)
	case watchPods:
		options := func(o *metav1.ListOptions) {
			o.LabelSelector = key.selector
			o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
		}
		feed(ctx, lister(w.client.CoreV1().RESTClient(), "pods", key.namespace, options), &corev1.Pod{}, sink[*corev1.Pod]{
			kind: "pods", strip: stripPod,
			observe: func(p *corev1.Pod, known bool) { e.ObservePod(key, p, known) },
			replace: func(list []*corev1.Pod) { e.ReplacePods(key, list) },
			synced:  synced,
			asked:   asked,
		})
	}
}

func lister(client rest.Interface, resource, namespace string, options func(*metav1.ListOptions)) cache.ListerWatcher {
	if options == nil {
		options = func(*metav1.ListOptions) {}
	}
	return cache.NewFilteredListWatchFromClient(client, resource, namespace, options)
}
