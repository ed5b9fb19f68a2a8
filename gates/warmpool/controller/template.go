package controller

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/gates/v1alpha1"
)

// templateOf is where a pool's replicas go: as the pool says, and where it says nothing as the workload's pods, so that
// replicas hold room that those could have. Labels and annotations are never the workload's: a replica must not be taken
// for one of its pods by a Service, a PodDisruptionBudget or an injector.
func templateOf(wp *v1alpha1.WarmPool, workload *corev1.PodTemplateSpec) v1alpha1.WarmPoolTemplate {
	t := *wp.Spec.Template.DeepCopy()
	if workload == nil {
		return t
	}
	of := workload.DeepCopy()
	if t.NodeSelector == nil {
		t.NodeSelector = of.Spec.NodeSelector
	}
	if t.Tolerations == nil {
		t.Tolerations = of.Spec.Tolerations
	}
	own := func(selector *metav1.LabelSelector) bool { return selects(selector, of.Labels) }
	if t.Affinity == nil {
		t.Affinity = amongReplicas(of.Spec.Affinity, own, wp.Name)
	}
	if t.TopologySpreadConstraints == nil {
		t.TopologySpreadConstraints = of.Spec.TopologySpreadConstraints
		for i := range t.TopologySpreadConstraints {
			if c := &t.TopologySpreadConstraints[i]; own(c.LabelSelector) {
				c.LabelSelector, c.MatchLabelKeys = replicasOf(wp.Name), nil
			}
		}
	}
	if t.SchedulerName == "" && of.Spec.SchedulerName != corev1.DefaultSchedulerName {
		t.SchedulerName = of.Spec.SchedulerName
	}
	if t.ImagePullSecrets == nil {
		t.ImagePullSecrets = of.Spec.ImagePullSecrets
	}
	if t.RuntimeClassName == nil {
		t.RuntimeClassName = of.Spec.RuntimeClassName
	}
	return t
}

// amongReplicas is the affinity of a workload's pods for replicas that stand in for them: what its pods want of each
// other, replicas want of each other.
func amongReplicas(affinity *corev1.Affinity, own func(*metav1.LabelSelector) bool, pool string) *corev1.Affinity {
	if affinity == nil {
		return nil
	}
	rewrite := func(term *corev1.PodAffinityTerm) {
		if own(term.LabelSelector) {
			term.LabelSelector, term.MatchLabelKeys, term.MismatchLabelKeys = replicasOf(pool), nil, nil
		}
	}
	if a := affinity.PodAffinity; a != nil {
		rewriteAll(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution, rewrite)
	}
	if a := affinity.PodAntiAffinity; a != nil {
		rewriteAll(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution, rewrite)
	}
	return affinity
}

func rewriteAll(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, rewrite func(*corev1.PodAffinityTerm)) {
	for i := range required {
		rewrite(&required[i])
	}
	for i := range preferred {
		rewrite(&preferred[i].PodAffinityTerm)
	}
}

func replicasOf(pool string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{LabelPool: pool}}
}

func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	if selector == nil {
		return false
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}

// failing is what keeps a Deployment from making its pods: a quota, a policy.
func failing(deployment *appsv1.Deployment) error {
	at := slices.IndexFunc(deployment.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue
	})
	if at < 0 {
		return nil
	}
	c := deployment.Status.Conditions[at]
	return short(c.Reason, "its pods are refused: %s", withoutPodName(c.Message))
}
