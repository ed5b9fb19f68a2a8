package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

const (
	// pausePriority is the lowest for which Cluster Autoscaler buys nodes (its expendable-pods-priority-cutoff); with
	// Karpenter any priority does. Source: kubernetes/autoscaler cluster-autoscaler FAQ.
	pausePriority = -10
	// defaultPauseImage is used where no node says what it has.
	defaultPauseImage = "registry.k8s.io/pause:3.10.1"

	annotationTemplate = "headstart.dev/template-hash"
	// annotationDisruptionCost makes Karpenter (>= 1.15) take a node for emptier than its pods make it; ReplicaSets look
	// at pod-deletion-cost, as does Karpenter before 1.15. Source: sigs.k8s.io/karpenter pkg/utils/disruption@v1.15.0.
	annotationDisruptionCost = "karpenter.sh/disruption-cost"
	// surplusCost is the cost at and below which Karpenter takes a pod for nothing: -2^27.
	surplusCost = "-134217728"
	// nobody is the user of the pause container.
	nobody = 65535
)

// pausePods is the backend of pods that do nothing and give way to all others.
type pausePods struct {
	client client.Client
	live   client.Reader // what is needed once is not worth a watch
}

var _ backend = (*pausePods)(nil)

func (b *pausePods) apply(ctx context.Context, wp *v1alpha1.WarmPool, req request) error {
	var current appsv1.Deployment
	err := b.client.Get(ctx, client.ObjectKeyFromObject(wp), &current)
	switch {
	case apierrors.IsNotFound(err):
		return b.create(ctx, wp, req)
	case err != nil:
		return fmt.Errorf("read deployment of warm pool: %w", err)
	case !metav1.IsControlledBy(&current, wp):
		return unavailable(reasonConflict, "a Deployment %q that is not this pool's is in the way: rename the pool or the Deployment", wp.Name)
	}
	return b.update(ctx, wp, &current, req)
}

func (b *pausePods) create(ctx context.Context, wp *v1alpha1.WarmPool, req request) error {
	if err := b.ensurePriorityClass(ctx, wp); err != nil {
		return err
	}
	image := wp.Spec.Template.Image
	if image == "" {
		image = req.pause
	}
	if image == "" {
		image = defaultPauseImage
	}
	deployment, err := b.deployment(wp, req, image)
	if err != nil {
		return err
	}
	if err := b.client.Create(ctx, deployment); err != nil {
		return fmt.Errorf("create deployment of warm pool: %w", err)
	}
	return nil
}

// update writes what differs. The image stays as it was chosen unless the user names one: another default is no reason
// to replace every replica.
func (b *pausePods) update(ctx context.Context, wp *v1alpha1.WarmPool, current *appsv1.Deployment, req request) error {
	image := wp.Spec.Template.Image
	if image == "" {
		image = defaultPauseImage
		if containers := current.Spec.Template.Spec.Containers; len(containers) == 1 {
			image = containers[0].Image
		}
	}
	wanted, err := b.deployment(wp, req, image)
	if err != nil {
		return err
	}
	have := int32(1)
	if current.Spec.Replicas != nil {
		have = *current.Spec.Replicas
	}
	sameTemplate := current.Annotations[annotationTemplate] == wanted.Annotations[annotationTemplate] &&
		equality.Semantic.DeepDerivative(wanted.Spec.Template, current.Spec.Template)
	if sameTemplate && have == req.replicas {
		return failing(current)
	}
	if !sameTemplate {
		if err := b.ensurePriorityClass(ctx, wp); err != nil {
			return err
		}
	}
	if req.replicas < have && req.surplus != nil {
		if err := b.markSurplus(ctx, req.surplus(int(req.replicas))); err != nil {
			return err
		}
	}
	updated := current.DeepCopy()
	updated.Spec.Replicas = &req.replicas
	if !sameTemplate {
		metav1.SetMetaDataAnnotation(&updated.ObjectMeta, annotationTemplate, wanted.Annotations[annotationTemplate])
		updated.Spec.Template, updated.Spec.Strategy = wanted.Spec.Template, wanted.Spec.Strategy
	}
	if err := b.client.Patch(ctx, updated, client.MergeFromWithOptions(current, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("scale deployment of warm pool to %d: %w", req.replicas, err)
	}
	return failing(current)
}

// markSurplus makes the ReplicaSet delete these pods first, and Karpenter count them for nothing until it has.
func (b *pausePods) markSurplus(ctx context.Context, pods []types.NamespacedName) error {
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q,%q:%q}}}`,
		corev1.PodDeletionCost, surplusCost, annotationDisruptionCost, surplusCost))
	for _, key := range pods {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		if err := b.client.Patch(ctx, pod, patch); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("mark surplus pod %s: %w", key, err)
		}
	}
	return nil
}

func (b *pausePods) release(ctx context.Context, wp *v1alpha1.WarmPool) error {
	var current appsv1.Deployment
	err := b.client.Get(ctx, client.ObjectKeyFromObject(wp), &current)
	if apierrors.IsNotFound(err) || err == nil && !metav1.IsControlledBy(&current, wp) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read deployment of warm pool: %w", err)
	}
	if err := b.client.Delete(ctx, &current, client.Preconditions{UID: &current.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete deployment of warm pool: %w", err)
	}
	return nil
}

func priorityClassName(wp *v1alpha1.WarmPool) string {
	if name := wp.Spec.Template.PriorityClassName; name != "" {
		return name
	}
	return v1alpha1.DefaultPriorityClassName
}

// ensurePriorityClass makes the default class where it is missing and refuses one that would hurt: pause pods that
// others do not outrank are never given way, and pause pods that preempt take room from pods.
func (b *pausePods) ensurePriorityClass(ctx context.Context, wp *v1alpha1.WarmPool) error {
	name := priorityClassName(wp)
	var class schedulingv1.PriorityClass
	err := b.live.Get(ctx, types.NamespacedName{Name: name}, &class)
	if apierrors.IsNotFound(err) {
		if name != v1alpha1.DefaultPriorityClassName {
			return unavailable(reasonPriorityClass, "PriorityClass %q does not exist: create it with a value below 0 and preemptionPolicy Never, or leave template.priorityClassName out", name)
		}
		never := corev1.PreemptNever
		class = schedulingv1.PriorityClass{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{labelManagedBy: managedBy}},
			Value:      pausePriority, PreemptionPolicy: &never,
			Description: "Replicas of WarmPools: they give way to every pod and make none give way.",
		}
		if err := b.client.Create(ctx, &class); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create PriorityClass %q: %w", name, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read PriorityClass %q: %w", name, err)
	}
	return usable(&class)
}

// emptyPriority is the priority at and below which Karpenter counts a pod for nothing: -2^25.
// Source: sigs.k8s.io/karpenter pkg/utils/disruption@v1.15.0.
const emptyPriority = -33_554_432

func usable(class *schedulingv1.PriorityClass) error {
	switch {
	case class.Value >= 0:
		return unavailable(reasonPriorityClass, "PriorityClass %q has the value %d: replicas with it would not give way to pods of no class; use one below 0", class.Name, class.Value)
	case class.Value <= emptyPriority:
		return unavailable(reasonPriorityClass, "PriorityClass %q has the value %d: Karpenter would take nodes of such replicas for empty and remove them; use one above %d", class.Name, class.Value, emptyPriority)
	case class.PreemptionPolicy == nil || *class.PreemptionPolicy != corev1.PreemptNever:
		return unavailable(reasonPriorityClass, "PriorityClass %q lets its pods preempt: replicas would take the room of pods below them; use one with preemptionPolicy: Never", class.Name)
	}
	return nil
}

// deployment builds the Deployment. Its strategy never has more replicas than asked for: a new shape is no reason to
// buy nodes twice.
func (b *pausePods) deployment(wp *v1alpha1.WarmPool, req request, image string) (*appsv1.Deployment, error) {
	surge, missing := intstr.FromInt32(0), intstr.FromString("25%")
	template := podTemplate(wp, req.template, req.shape, image)
	hash, err := hashOf(template)
	if err != nil {
		return nil, err
	}
	labels := poolLabels(wp)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: wp.Namespace, Name: wp.Name, Labels: map[string]string{LabelPool: wp.Name, labelManagedBy: managedBy},
			Annotations:     map[string]string{annotationTemplate: hash},
			OwnerReferences: []metav1.OwnerReference{*ownerReference(wp)},
		},
		Spec: appsv1.DeploymentSpec{
			Replicas: &req.replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &missing},
			},
		},
	}, nil
}

// hashOf tells templates apart, in what they leave out too, which the API server's defaults hide.
func hashOf(template corev1.PodTemplateSpec) (string, error) {
	text, err := json.Marshal(template)
	if err != nil {
		return "", fmt.Errorf("encode pod template of warm pool: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), nil
}

// podTemplate is one replica: it holds requests and does nothing. No grace, so that it is gone the moment another pod
// needs the room. Limits equal requests because extended resources must have them.
func podTemplate(wp *v1alpha1.WarmPool, t v1alpha1.WarmPoolTemplate, shape corev1.ResourceList, image string) corev1.PodTemplateSpec {
	no, yes, none, user := false, true, int64(0), int64(nobody)
	labels := poolLabels(wp)
	for key, value := range t.Labels {
		if key != LabelPool {
			labels[key] = value
		}
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: t.Annotations},
		Spec: corev1.PodSpec{
			PriorityClassName: priorityClassName(wp), NodeSelector: t.NodeSelector, Tolerations: t.Tolerations,
			Affinity: t.Affinity, TopologySpreadConstraints: t.TopologySpreadConstraints, SchedulerName: t.SchedulerName,
			ImagePullSecrets: t.ImagePullSecrets, RuntimeClassName: t.RuntimeClassName, TerminationGracePeriodSeconds: &none,
			AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "pause", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				Resources: corev1.ResourceRequirements{Requests: shape, Limits: shape},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}
