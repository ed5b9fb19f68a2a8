package controller

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/resources"
	"headstart.dev/prepull"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
)

const (
	kindDeployment  = "Deployment"
	kindStatefulSet = "StatefulSet"
	kindReplicaSet  = "ReplicaSet"
)

// replicaModel is what one replica of a pool is: its size, where it goes, and for a workload whose pods are the demand.
type replicaModel struct {
	shape    corev1.ResourceList
	template v1alpha1.WarmPoolTemplate
	pods     labels.Selector
	// scale is how many pods the workload is to have.
	scale int32
}

// replicaModel reads what one replica is.
func (r *reconciler) replicaModel(ctx context.Context, wp *v1alpha1.WarmPool) (replicaModel, error) {
	ref := wp.Spec.Shape.ScalableRef
	if ref == nil {
		return replicaModel{shape: wp.Spec.Shape.Resources, template: templateOf(wp, nil)}, checkShape(wp.Spec.Shape.Resources)
	}
	var template *corev1.PodTemplateSpec
	var selector *metav1.LabelSelector
	var scale *int32
	key := types.NamespacedName{Namespace: wp.Namespace, Name: ref.Name}
	get := func(object client.Object) error {
		if err := r.follow(ctx, ref.Kind, object); err != nil {
			return err
		}
		return r.client.Get(ctx, key, object)
	}
	var err error
	switch ref.Kind {
	case kindDeployment:
		var workload appsv1.Deployment
		err = get(&workload)
		template, selector, scale = &workload.Spec.Template, workload.Spec.Selector, workload.Spec.Replicas
	case kindStatefulSet:
		var workload appsv1.StatefulSet
		err = get(&workload)
		template, selector, scale = &workload.Spec.Template, workload.Spec.Selector, workload.Spec.Replicas
	case kindReplicaSet:
		var workload appsv1.ReplicaSet
		err = get(&workload)
		template, selector, scale = &workload.Spec.Template, workload.Spec.Selector, workload.Spec.Replicas
	default:
		return replicaModel{}, unavailable(reasonNoWorkload, "shape.scalableRef.kind %q: want Deployment, StatefulSet or ReplicaSet", ref.Kind)
	}
	if apierrors.IsNotFound(err) {
		return replicaModel{}, unavailable(reasonNoWorkload, "%s %q, which shape.scalableRef names, is not in namespace %q", ref.Kind, ref.Name, wp.Namespace)
	}
	if err != nil {
		return replicaModel{}, fmt.Errorf("read %s %q: %w", ref.Kind, ref.Name, err)
	}
	pods, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return replicaModel{}, unavailable(reasonNoWorkload, "%s %q has a selector that cannot be read: %v", ref.Kind, ref.Name, err)
	}
	requests := resources.OfPod(&corev1.Pod{Spec: template.Spec})
	if len(resources.New(requests)) == 0 {
		return replicaModel{}, unavailable(reasonNoWorkload, "the pods of %s %q request nothing: a replica of no size holds no room; give them requests, or set shape.resources", ref.Kind, ref.Name)
	}
	out := replicaModel{shape: requests, template: templateOf(wp, template), pods: pods, scale: 1}
	if scale != nil {
		out.scale = *scale
	}
	return out, checkShape(requests)
}

// warmth returns what makes a node warm for the pool. A policy that cannot be found makes every node cold, and says so.
func (r *reconciler) warmth(ctx context.Context, wp *v1alpha1.WarmPool) (warmth, string, error) {
	if wp.Spec.Warm == nil {
		return warmth{}, "", nil
	}
	w := warmth{rule: wp.Spec.Warm.Rule}
	name := wp.Spec.Warm.Prepull
	if name == "" {
		return w, "", nil
	}
	w.wantImages = true
	if !r.prepullPolicies {
		w.unknown = true
		return w, "nothing is warm: the cluster has no PrepullPolicy CRD", nil
	}
	var policy prepullv1alpha1.PrepullPolicy
	err := r.client.Get(ctx, types.NamespacedName{Name: name}, &policy)
	if apierrors.IsNotFound(err) {
		w.unknown = true
		return w, fmt.Sprintf("nothing is warm: PrepullPolicy %q, which warm.prepull names, does not exist", name), nil
	}
	if err != nil {
		return w, "", fmt.Errorf("read PrepullPolicy %q: %w", name, err)
	}
	w.images = imagesOf(&policy)
	return w, "", nil
}

// imagesOf lists the images that a policy has nodes pull: what its controller made of it, or, until it has, its list.
func imagesOf(policy *prepullv1alpha1.PrepullPolicy) []prepull.InventoryImage {
	var images []prepull.InventoryImage
	add := func(ref, digest string) {
		if name, err := prepull.Normalize(ref); err == nil {
			images = append(images, prepull.InventoryImage{Name: name, Digest: prepull.DigestPrefix(digest)})
		}
	}
	for _, image := range policy.Status.Images {
		switch {
		case image.LeftOut != "":
		case image.Reported: // nodes pull it by its tag
			add(image.Image, "")
		default:
			add(image.Image, image.Digest)
		}
	}
	if policy.Status.ObservedGeneration != policy.Generation || len(policy.Status.Images) == 0 {
		for _, image := range policy.Spec.Images {
			add(image.Image, "")
		}
	}
	return images
}
