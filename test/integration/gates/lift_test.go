package gates_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/prepull"
)

func references() []v1alpha1.Requirement {
	return []v1alpha1.Requirement{{References: &v1alpha1.ReferencesRequirement{}}}
}

func images() []v1alpha1.Requirement {
	return []v1alpha1.Requirement{{Images: &v1alpha1.ImagesRequirement{MinNodes: 1}}}
}

func warm(name string) prepull.InventoryImage {
	return prepull.InventoryImage{Digest: "0123456789abcdef", Name: name}
}

func capacity(cpu string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("16Gi"),
		corev1.ResourcePods: resource.MustParse("110"),
	}
}

func TestLiftWhenTheLastReferenceArrives(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/refs-arrive"
	policy(t, c, "refs-arrive", v1alpha1.GatePolicySpec{GateName: gate, Requires: references()})

	pod := makePod(ns, "web", "other.example/first", gate, "other.example/last").envFrom("flags").create(t, c)
	stayGated(t, c, pod, "other.example/first", gate, "other.example/last")

	configMap(t, c, ns, "flags")
	lifted := awaitGates(t, c, pod, "other.example/first", "other.example/last")
	require.Nil(t, lifted.Spec.Affinity, "a gate that is not the last goes without steering")
}

func TestConfigMapDeletedBeforeTheLiftHolds(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/refs-deleted"
	policy(t, c, "refs-deleted", v1alpha1.GatePolicySpec{GateName: gate, Requires: references()})

	first := configMap(t, c, ns, "first")
	pod := makePod(ns, "web", gate).envFrom("first").envFrom("second").create(t, c)
	stayGated(t, c, pod, gate)
	require.NoError(t, c.Delete(t.Context(), first))
	configMap(t, c, ns, "second")
	stayGated(t, c, pod, gate)
	configMap(t, c, ns, "first")
	awaitGates(t, c, pod)
}

func TestPodIsSteeredToTheWarmNode(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/steer"
	policy(t, c, "steer", v1alpha1.GatePolicySpec{GateName: gate, Requires: images()})
	node(t, c, "steer-cold", capacity("8"), warm("registry.example/other:v1"))
	node(t, c, "steer-warm", capacity("2"))

	pod := makePod(ns, "web", gate).create(t, c)
	stayGated(t, c, pod, gate)
	setWarm(t, c, "steer-warm", warm(appImage))

	lifted := awaitGates(t, c, pod)
	preferred := lifted.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	require.Len(t, preferred, 1)
	require.Equal(t, int32(100), preferred[0].Weight)
	require.Equal(t, []corev1.NodeSelectorRequirement{
		{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"steer-warm"}},
	}, preferred[0].Preference.MatchExpressions)
	eventually(t, func() bool { return read(t, c, pod).Spec.NodeName == "steer-warm" }, "the pod was not bound to the warm node")
}

func TestNodesWhereThePodCouldNotRunDoNotCount(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/could-run"
	image := "registry.example/could-run:v1"
	policy(t, c, "could-run", v1alpha1.GatePolicySpec{GateName: gate, Requires: images(), Placement: v1alpha1.PlacementNone})
	node(t, c, "could-run-small", capacity("1"), warm(image))
	tainted := node(t, c, "could-run-tainted", capacity("8"), warm(image))
	require.NoError(t, c.Get(t.Context(), keyOf(tainted), tainted))
	tainted.Spec.Taints = []corev1.Taint{{Key: "readiness.k8s.io/boot", Value: "pending", Effect: corev1.TaintEffectNoSchedule}}
	require.NoError(t, c.Update(t.Context(), tainted))

	pod := makePod(ns, "web", gate).image(image).cpu("2").create(t, c)
	stayGated(t, c, pod, gate)

	require.NoError(t, c.Get(t.Context(), keyOf(tainted), tainted))
	tainted.Spec.Taints = nil
	require.NoError(t, c.Update(t.Context(), tainted))
	lifted := awaitGates(t, c, pod)
	require.Nil(t, lifted.Spec.Affinity, "placement None leaves the affinity alone")
}

func TestDeadlineReleasesUnsteered(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns := namespace(t, c)
	short := &metav1.Duration{Duration: 2 * time.Second}
	policy(t, c, "deadline-release", v1alpha1.GatePolicySpec{GateName: "example.com/deadline-release", Requires: references(), Deadline: short})
	policy(t, c, "deadline-hold", v1alpha1.GatePolicySpec{
		GateName: "example.com/deadline-hold", Requires: references(), Deadline: short, OnDeadline: v1alpha1.OnDeadlineHold,
	})
	pod := makePod(ns, "web", "example.com/deadline-release", "example.com/deadline-hold").envFrom("never").create(t, c)
	awaitGates(t, c, pod, "example.com/deadline-hold")
	stayGated(t, c, pod, "example.com/deadline-hold")
}

func TestRecreatedPodIsNotLiftedForItsPredecessor(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/recreated"
	policy(t, c, "recreated", v1alpha1.GatePolicySpec{GateName: gate, Requires: references()})
	for range 10 {
		// The second gate keeps the scheduler's hands off: its late status patches can hit the successor.
		old := makePod(ns, "web", gate, "other.example/hold").envFrom("old").create(t, c)
		cm := configMap(t, c, ns, "old") // the predecessor may be lifted from now on
		require.NoError(t, c.Delete(t.Context(), old))
		fresh := makePod(ns, "web", gate).envFrom("fresh").create(t, c)
		stayGated(t, c, fresh, gate)
		require.NoError(t, c.Delete(t.Context(), fresh))
		require.NoError(t, c.Delete(t.Context(), cm))
	}
}
