package controller

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

// nodePoolKind is Karpenter's NodePool. Source: sigs.k8s.io/karpenter pkg/apis/v1@v1.14.1.
var nodePoolKind = schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodePool"}

// labelNodePool names a node's NodePool.
const labelNodePool = "karpenter.sh/nodepool"

// staticNodePool is the backend that scales a static NodePool: replicas are whole nodes that are free, on top of those
// that hold work. The NodePool is the user's; nothing but its size is touched, and it stays when the pool goes.
type staticNodePool struct {
	client client.Client
	live   client.Reader
}

var _ backend = (*staticNodePool)(nil)

func (b *staticNodePool) apply(ctx context.Context, wp *v1alpha1.WarmPool, req request) error {
	name := wp.Spec.Template.NodeSelector[labelNodePool]
	nodePool := &unstructured.Unstructured{}
	nodePool.SetGroupVersionKind(nodePoolKind)
	err := b.live.Get(ctx, types.NamespacedName{Name: name}, nodePool)
	switch {
	case meta.IsNoMatchError(err):
		return unavailable(reasonMissingCRD, "the cluster has no karpenter.sh/v1 NodePool: install Karpenter, or use backend PausePods")
	case apierrors.IsNotFound(err):
		return unavailable(reasonNotStatic, "NodePool %q, which template.nodeSelector names, does not exist", name)
	case err != nil:
		return fmt.Errorf("read NodePool %q: %w", name, err)
	}
	have, static, err := unstructured.NestedInt64(nodePool.Object, "spec", "replicas")
	if err != nil || !static {
		return unavailable(reasonNotStatic, "NodePool %q has no spec.replicas: make it static, with Karpenter's feature gate StaticCapacity, or use backend PausePods", name)
	}
	wanted := int64(req.replicas) + int64(req.busy)
	if have != wanted {
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, wanted))
		if err := b.client.Patch(ctx, nodePool, patch); err != nil {
			return fmt.Errorf("scale NodePool %q to %d: %w", name, wanted, err)
		}
	}
	return nil
}

func (b *staticNodePool) release(context.Context, *v1alpha1.WarmPool) error { return nil }
