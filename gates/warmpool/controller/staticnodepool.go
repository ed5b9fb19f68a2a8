package controller

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
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
// that hold work. The NodePool is the user's, who lets the pool size it by an annotation; nothing but its size is touched,
// and it stays when the pool goes.
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
	if owner := nodePool.GetAnnotations()[LabelPool]; owner != wp.Namespace+"/"+wp.Name {
		return notOptedIn(name, owner, wp)
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
	return heldBack(nodePool, wanted)
}

// notOptedIn refuses to size a NodePool that does not name the pool: a WarmPool is its namespace's, a NodePool the cluster's.
// That one name fits in the annotation also keeps two pools from sizing one NodePool in turn.
func notOptedIn(name, owner string, wp *v1alpha1.WarmPool) error {
	if owner != "" {
		return unavailable(reasonNotOptedIn, "NodePool %q lets WarmPool %s size it, by its annotation %s: give this pool a NodePool of its own", name, owner, LabelPool)
	}
	return unavailable(reasonNotOptedIn, "NodePool %q does not let this pool size it: kubectl annotate nodepool %s %s=%s/%s", name, name, LabelPool, wp.Namespace, wp.Name)
}

// heldBack says what keeps a NodePool from having its nodes.
func heldBack(nodePool *unstructured.Unstructured, wanted int64) error {
	limits, _, err := unstructured.NestedMap(nodePool.Object, "spec", "limits")
	if err == nil && limits["nodes"] != nil {
		most, err := resource.ParseQuantity(fmt.Sprint(limits["nodes"]))
		if err == nil && most.CmpInt64(wanted) < 0 {
			return short(reasonNodePoolLimit, "%d nodes are wanted, free ones and those at work, and limits.nodes of NodePool %q is %s", wanted, nodePool.GetName(), most.String())
		}
	}
	if status, reason, message := stateOf(nodePool, "Ready"); status == "False" {
		return short(reason, "NodePool %q is not ready: %s", nodePool.GetName(), message)
	}
	return nil
}

func (b *staticNodePool) release(context.Context, *v1alpha1.WarmPool) error { return nil }
