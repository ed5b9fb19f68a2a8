package controller

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

// bufferKind is the autoscalers' own API for spare capacity.
// Source: sigs.k8s.io/karpenter pkg/apis/autoscaling/v1beta1@v1.14.1; kubernetes/autoscaler cluster-autoscaler@1.35.
var bufferKind = schema.GroupVersionKind{Group: "autoscaling.x-k8s.io", Version: "v1beta1", Kind: "CapacityBuffer"}

const (
	bufferStrategy = "buffer.x-k8s.io/active-capacity"
	// conditionReadyForProvisioning is set by whichever autoscaler serves the buffer.
	conditionReadyForProvisioning = "ReadyForProvisioning"
)

// capacityBuffer is the backend that has the autoscaler itself keep room, by pods that exist only in its head.
type capacityBuffer struct {
	client client.Client
	live   client.Reader
}

var _ backend = (*capacityBuffer)(nil)

func (b *capacityBuffer) apply(ctx context.Context, wp *v1alpha1.WarmPool, req request) error {
	buffer, err := b.get(ctx, wp)
	if err != nil {
		return err
	}
	if err := b.applyTemplate(ctx, wp, req); err != nil {
		return err
	}
	spec := map[string]any{
		"provisioningStrategy": bufferStrategy, "replicas": int64(req.replicas),
		"podTemplateRef": map[string]any{"name": wp.Name},
	}
	switch {
	case buffer == nil:
		buffer = newBuffer(wp)
		buffer.Object["spec"] = spec
		if err := b.client.Create(ctx, buffer); err != nil {
			return fmt.Errorf("create CapacityBuffer of warm pool: %w", err)
		}
	case !metav1.IsControlledBy(buffer, wp):
		return unavailable(reasonConflict, "a CapacityBuffer %q that is not this pool's is in the way: rename the pool or the buffer", wp.Name)
	case !equality.Semantic.DeepEqual(buffer.Object["spec"], spec):
		before := buffer.DeepCopy()
		buffer.Object["spec"] = spec
		if err := b.client.Patch(ctx, buffer, client.MergeFrom(before)); err != nil {
			return fmt.Errorf("scale CapacityBuffer of warm pool to %d: %w", req.replicas, err)
		}
	}
	return served(buffer)
}

// conditionProvisioning is set by the autoscaler that buys nodes for the buffer.
const conditionProvisioning = "Provisioning"

// served tells a buffer that an autoscaler works on from one that nobody looks at. It has a minute to be noticed.
func served(buffer *unstructured.Unstructured) error {
	conditions, _, err := unstructured.NestedSlice(buffer.Object, "status", "conditions")
	if err != nil || len(conditions) == 0 {
		return unavailable(reasonNotServed, "no autoscaler has looked at CapacityBuffer %q yet: Karpenter serves it with the feature gate CapacityBuffer, "+
			"Cluster Autoscaler with --capacity-buffer-controller-enabled and --capacity-buffer-pod-injection-enabled", buffer.GetName())
	}
	if status, _, message := stateOf(buffer, conditionReadyForProvisioning); status == string(metav1.ConditionFalse) {
		return unavailable(reasonNotServed, "the autoscaler refuses CapacityBuffer %q: %s", buffer.GetName(), message)
	}
	if status, reason, message := stateOf(buffer, conditionProvisioning); status == string(metav1.ConditionFalse) {
		return short(reason, "the autoscaler provisions nothing for CapacityBuffer %q: %s", buffer.GetName(), message)
	}
	return nil
}

func (b *capacityBuffer) get(ctx context.Context, wp *v1alpha1.WarmPool) (*unstructured.Unstructured, error) {
	buffer := newBuffer(wp)
	err := b.live.Get(ctx, client.ObjectKeyFromObject(wp), buffer)
	switch {
	case meta.IsNoMatchError(err):
		return nil, unavailable(reasonMissingCRD, "the cluster has no %s: install Karpenter's or Cluster Autoscaler's CRD, or use backend PausePods", bufferKind.GroupVersion().String()+" CapacityBuffer")
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // no buffer yet is an ordinary answer
	case err != nil:
		return nil, fmt.Errorf("read CapacityBuffer of warm pool: %w", err)
	}
	return buffer, nil
}

func newBuffer(wp *v1alpha1.WarmPool) *unstructured.Unstructured {
	buffer := &unstructured.Unstructured{}
	buffer.SetGroupVersionKind(bufferKind)
	buffer.SetNamespace(wp.Namespace)
	buffer.SetName(wp.Name)
	buffer.SetLabels(map[string]string{LabelPool: wp.Name, labelManagedBy: managedBy})
	buffer.SetOwnerReferences([]metav1.OwnerReference{*ownerReference(wp)})
	return buffer
}

// applyTemplate keeps the PodTemplate that the buffer names. No priority class: the pods never exist.
func (b *capacityBuffer) applyTemplate(ctx context.Context, wp *v1alpha1.WarmPool, req request) error {
	template := podTemplate(wp, req.template, req.shape, cmp.Or(req.template.Image, defaultPauseImage))
	template.Spec.PriorityClassName = ""
	hash, err := hashOf(template)
	if err != nil {
		return err
	}
	wanted := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: wp.Namespace, Name: wp.Name, Labels: map[string]string{LabelPool: wp.Name, labelManagedBy: managedBy},
			Annotations:     map[string]string{annotationTemplate: hash},
			OwnerReferences: []metav1.OwnerReference{*ownerReference(wp)},
		},
		Template: template,
	}
	var current corev1.PodTemplate
	err = b.live.Get(ctx, client.ObjectKeyFromObject(wp), &current)
	switch {
	case apierrors.IsNotFound(err):
		if err := b.client.Create(ctx, wanted); err != nil {
			return fmt.Errorf("create PodTemplate of warm pool: %w", err)
		}
	case err != nil:
		return fmt.Errorf("read PodTemplate of warm pool: %w", err)
	case !metav1.IsControlledBy(&current, wp):
		return unavailable(reasonConflict, "a PodTemplate %q that is not this pool's is in the way: rename the pool or the PodTemplate", wp.Name)
	case current.Annotations[annotationTemplate] != hash || !equality.Semantic.DeepDerivative(wanted.Template, current.Template):
		wanted.ResourceVersion = current.ResourceVersion
		if err := b.client.Update(ctx, wanted); err != nil {
			return fmt.Errorf("update PodTemplate of warm pool: %w", err)
		}
	}
	return nil
}

// release takes away what is left of a time in which the pool had this backend. Where the controller may not look, the
// backend was never granted to it, and nothing of its can be there: that must not stop a pool of another backend.
func (b *capacityBuffer) release(ctx context.Context, wp *v1alpha1.WarmPool) error {
	buffer := newBuffer(wp)
	err := b.live.Get(ctx, client.ObjectKeyFromObject(wp), buffer)
	if err == nil && metav1.IsControlledBy(buffer, wp) {
		err = b.client.Delete(ctx, buffer)
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) && !meta.IsNoMatchError(err) {
		return fmt.Errorf("delete CapacityBuffer of warm pool: %w", err)
	}
	var template corev1.PodTemplate
	err = b.live.Get(ctx, client.ObjectKeyFromObject(wp), &template)
	if err == nil && metav1.IsControlledBy(&template, wp) {
		err = b.client.Delete(ctx, &template)
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return fmt.Errorf("delete PodTemplate of warm pool: %w", err)
	}
	return nil
}
