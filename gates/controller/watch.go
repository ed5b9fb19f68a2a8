package controller

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"

	"headstart.dev/internal/room"
)

// Selectors of the two pod watches. Every pod is in at most one of them.
const (
	selectUnscheduled = "spec.nodeName="
	selectBound       = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
)

// boundPod is a pod that takes room on a node.
type boundPod struct {
	key     types.NamespacedName
	uid     types.UID
	version string
	node    string
	takes   room.Pod
}

// GetObjectMeta makes a boundPod an object for caches.
func (p *boundPod) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: p.key.Namespace, Name: p.key.Name, UID: p.uid, ResourceVersion: p.version}
}

// newPodInformer watches pods and keeps of each only what transform makes of it.
func newPodInformer(client rest.Interface, selector string, transform func(*corev1.Pod) (any, error)) (toolscache.SharedIndexInformer, error) {
	fieldSelector, err := fields.ParseSelector(selector)
	if err != nil {
		return nil, fmt.Errorf("parse selector %q: %w", selector, err)
	}
	source := toolscache.NewListWatchFromClient(client, "pods", metav1.NamespaceAll, fieldSelector)
	informer := toolscache.NewSharedIndexInformer(source, &corev1.Pod{}, 0, nil)
	err = informer.SetTransform(func(object any) (any, error) {
		// A watch that was interrupted hands over its own tombstones and objects that are transformed already.
		if pod, ok := object.(*corev1.Pod); ok {
			return transform(pod)
		}
		return object, nil
	})
	if err != nil {
		return nil, fmt.Errorf("set transform of pod watch: %w", err)
	}
	return informer, nil
}

func transformBound(pod *corev1.Pod) (any, error) {
	return &boundPod{
		key: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID, version: pod.ResourceVersion,
		node: pod.Spec.NodeName, takes: room.Takes(pod),
	}, nil
}

// handlers calls set for each object that is new or changed and remove for each that is gone.
func handlers[T any](set, remove func(T)) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if typed, ok := object.(T); ok {
				set(typed)
			}
		},
		UpdateFunc: func(_, object any) {
			if typed, ok := object.(T); ok {
				set(typed)
			}
		},
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			if typed, ok := object.(T); ok {
				remove(typed)
			}
		},
	}
}

// logWatchErrors makes an informer's trouble visible as one line an attempt, and tells of it; it retries by itself.
func logWatchErrors(informer toolscache.SharedIndexInformer, log logr.Logger, tell func(error)) error {
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *toolscache.Reflector, err error) {
		log.V(1).Info("watch interrupted", "reason", err.Error())
		if tell != nil {
			tell(err)
		}
	})
	if err != nil {
		return fmt.Errorf("set watch error handler: %w", err)
	}
	return nil
}
