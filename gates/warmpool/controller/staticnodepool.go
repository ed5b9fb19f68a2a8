package controller

import (
	"cmp"
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
	var pools v1alpha1.WarmPoolList
	if err := b.client.List(ctx, &pools); err != nil {
		return fmt.Errorf("list the warm pools of NodePool %q: %w", name, err)
	}
	if master := masterOf(pools.Items, wp); master != "" {
		return unavailable(reasonConflict, "NodePool %q is sized by WarmPool %s, which is older: give each a NodePool of its own", name, master)
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

// masterOf returns the WarmPool that sizes wp's NodePool in wp's place, "" where that is wp itself. Two that both did would
// buy and remove nodes in turn for ever.
func masterOf(pools []v1alpha1.WarmPool, wp *v1alpha1.WarmPool) string {
	master := wp
	for i := range pools {
		other := &pools[i]
		if backendOf(other) == v1alpha1.BackendStaticNodePool && other.DeletionTimestamp == nil &&
			other.Spec.Template.NodeSelector[labelNodePool] == wp.Spec.Template.NodeSelector[labelNodePool] && older(other, master) {
			master = other
		}
	}
	if master.UID == wp.UID {
		return ""
	}
	return master.Namespace + "/" + master.Name
}

func older(a, b *v1alpha1.WarmPool) bool {
	return cmp.Or(
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
	) < 0
}

func (b *staticNodePool) release(context.Context, *v1alpha1.WarmPool) error { return nil }
