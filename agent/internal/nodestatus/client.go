package nodestatus

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Node is this node's object on the API server.
type Node interface {
	// Get returns the Node, or nil while there is none, and the resource version to watch from.
	Get(ctx context.Context) (node *corev1.Node, resourceVersion string, err error)
	// Watch streams changes of this Node alone, from a resource version on.
	Watch(ctx context.Context, resourceVersion string) (watch.Interface, error)
	// PatchStatus applies a strategic-merge patch to the status subresource.
	PatchStatus(ctx context.Context, patch []byte) (*corev1.Node, error)
}

// apiNode is a Node on a real API server.
type apiNode struct {
	name  string
	nodes typedcorev1.NodeInterface
}

var _ Node = (*apiNode)(nil)

func (n *apiNode) options() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, n.name).String()}
}

// Get lists by name rather than gets, because the resource version of the list is where a watch can begin even while
// there is no Node.
func (n *apiNode) Get(ctx context.Context) (*corev1.Node, string, error) {
	list, err := n.nodes.List(ctx, n.options())
	if err != nil {
		return nil, "", fmt.Errorf("get node %s: %w", n.name, err)
	}
	if len(list.Items) == 0 {
		return nil, list.ResourceVersion, nil
	}
	return &list.Items[0], list.ResourceVersion, nil
}

// Watch leaves the length of the watch to the server, which is half an hour at least: an idle node asks for nothing.
func (n *apiNode) Watch(ctx context.Context, resourceVersion string) (watch.Interface, error) {
	options := n.options()
	options.ResourceVersion = resourceVersion
	options.AllowWatchBookmarks = true
	stream, err := n.nodes.Watch(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("watch node %s: %w", n.name, err)
	}
	return stream, nil
}

func (n *apiNode) PatchStatus(ctx context.Context, patch []byte) (*corev1.Node, error) {
	node, err := n.nodes.Patch(ctx, n.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("patch status of node %s: %w", n.name, err)
	}
	return node, nil
}
