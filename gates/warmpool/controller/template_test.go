package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/resources"
)

func webTemplate() *corev1.PodTemplateSpec {
	web := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	runtimeClass := "gvisor"
	return &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"inject": "true"}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"disk": "ssd"}, Tolerations: []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpExists}},
			SchedulerName: "volcano", RuntimeClassName: &runtimeClass, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
			Affinity: &corev1.Affinity{
				NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}},
				}}}},
				PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
					{TopologyKey: corev1.LabelHostname, LabelSelector: web},
					{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "batch"}}},
				}},
			},
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: web, MatchLabelKeys: []string{"pod-template-hash"}}},
		},
	}
}

func TestReplicasGoWhereTheWorkloadMay(t *testing.T) {
	wp := &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "pool"}}
	shape := corev1.ResourceList{"cpu": resource.MustParse("1")}
	got := podTemplate(wp, templateOf(wp, webTemplate()), shape, "pause")
	require.Equal(t, map[string]string{"disk": "ssd"}, got.Spec.NodeSelector)
	require.Equal(t, webTemplate().Spec.Tolerations, got.Spec.Tolerations)
	require.Equal(t, webTemplate().Spec.Affinity.NodeAffinity, got.Spec.Affinity.NodeAffinity)
	require.Equal(t, "volcano", got.Spec.SchedulerName)
	require.Equal(t, "gvisor", *got.Spec.RuntimeClassName)
	require.Equal(t, "registry", got.Spec.ImagePullSecrets[0].Name)
	require.Equal(t, map[string]string{LabelPool: "pool"}, got.Labels, "no Service may take it for a pod of the workload")
	require.Empty(t, got.Annotations)
	terms := got.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	require.Equal(t, map[string]string{LabelPool: "pool"}, terms[0].LabelSelector.MatchLabels, "what its pods want of each other")
	require.Equal(t, map[string]string{"app": "batch"}, terms[1].LabelSelector.MatchLabels, "what they want of others")
	spread := got.Spec.TopologySpreadConstraints[0]
	require.Equal(t, map[string]string{LabelPool: "pool"}, spread.LabelSelector.MatchLabels)
	require.Empty(t, spread.MatchLabelKeys)
}

func TestWhatThePoolSaysWins(t *testing.T) {
	wp := &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "pool"}}
	wp.Spec.Template = v1alpha1.WarmPoolTemplate{
		NodeSelector: map[string]string{"disk": "hdd"}, Tolerations: []corev1.Toleration{}, Affinity: &corev1.Affinity{},
		Labels: map[string]string{"team": "a", LabelPool: "other"}, Annotations: map[string]string{"a": "b"}, SchedulerName: "mine",
	}
	got := podTemplate(wp, templateOf(wp, webTemplate()), nil, "pause")
	require.Equal(t, map[string]string{"disk": "hdd"}, got.Spec.NodeSelector)
	require.Empty(t, got.Spec.Tolerations)
	require.Nil(t, got.Spec.Affinity.NodeAffinity)
	require.Equal(t, "mine", got.Spec.SchedulerName)
	require.Equal(t, map[string]string{"team": "a", LabelPool: "pool"}, got.Labels)
	require.Equal(t, map[string]string{"a": "b"}, got.Annotations)
	require.NotEmpty(t, got.Spec.TopologySpreadConstraints, "what it leaves out is the workload's")
}

// Room on a node where the workload may not run is no room of the pool's.
func TestRoomIsWhereTheWorkloadMayRun(t *testing.T) {
	wp := &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "pool"}}
	f := newFixture(func(p *pool) {
		p.backend = v1alpha1.BackendCapacityBuffer
		p.target = newTarget("prod", replicaModel{shape: corev1.ResourceList{"cpu": resource.MustParse("1")}, template: templateOf(wp, webTemplate())}, warmth{})
	})
	f.node("elsewhere", start, map[string]string{"disk": "ssd", "zone": "b"})
	f.node("other-disk", start, map[string]string{"disk": "hdd", "zone": "a"})
	require.Zero(t, f.pool().counts(f.model))
	f.node("here", start, map[string]string{"disk": "ssd", "zone": "a"})
	require.Equal(t, counts{ready: 4, warm: 4}, f.pool().counts(f.model))
	closed := *f.nodes["here"]
	closed.taints = []corev1.Taint{{Key: "other", Effect: corev1.TaintEffectNoSchedule}, {Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}
	f.setNode(&closed)
	require.Zero(t, f.pool().counts(f.model))
	require.Equal(t, resources.List{"cpu": 1000}, f.pool().target.shape)
}
