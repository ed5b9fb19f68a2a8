package gates_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

func labelSet(in map[string]string) labels.Set { return in }

// steeringLabels lists the nodes of a prefix that have a label of placement Required.
func steeringLabels(t testing.TB, c client.Client, prefix string) []string {
	t.Helper()
	var nodes corev1.NodeList
	require.NoError(t, c.List(t.Context(), &nodes))
	var out []string
	for i := range nodes.Items {
		for key, value := range nodes.Items[i].Labels {
			if strings.HasPrefix(nodes.Items[i].Name, prefix) && strings.HasPrefix(key, gates.WarmLabelPrefix) {
				require.Equal(t, "true", value)
				out = append(out, nodes.Items[i].Name)
			}
		}
	}
	slices.Sort(out)
	return out
}

func TestRequiredPodsRunOnWarmNodesOnly(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate, image := namespace(t, c), "example.com/required", "registry.example/required:v1"
	policy(t, c, "required", v1alpha1.GatePolicySpec{GateName: gate, Requires: images(), Placement: v1alpha1.PlacementRequired})
	node(t, c, "required-cold", capacity("64"), warm("registry.example/other:v1"))
	node(t, c, "required-warm", capacity("2"))
	zone := func(b podBuilder) podBuilder {
		b.pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpExists}}},
			}},
		}}
		return b.image(image).cpu("1")
	}
	first := zone(makePod(ns, "first", gate)).create(t, c)
	stayGated(t, c, first, gate)
	require.Empty(t, steeringLabels(t, c, "required-"))

	setWarm(t, c, "required-warm", warm(image))
	lifted := awaitGates(t, c, first)
	require.Equal(t, []string{"required-warm"}, steeringLabels(t, c, "required-"))
	terms := lifted.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	require.Len(t, terms, 1)
	require.Len(t, terms[0].MatchExpressions, 2, "the pod's own requirement stays")
	require.Equal(t, corev1.LabelHostname, terms[0].MatchExpressions[0].Key)
	require.True(t, strings.HasPrefix(terms[0].MatchExpressions[1].Key, gates.WarmLabelPrefix))
	eventually(t, func() bool { return read(t, c, first).Spec.NodeName == "required-warm" }, "the pod was not bound to the warm node")

	// One more fits; the third waits for room although a cold node is free.
	second := zone(makePod(ns, "second", gate)).create(t, c)
	awaitGates(t, c, second)
	third := zone(makePod(ns, "third", gate)).create(t, c)
	stayGated(t, c, third, gate)
	node(t, c, "required-more", capacity("1"), warm(image))
	awaitGates(t, c, third)
	eventually(t, func() bool { return read(t, c, third).Spec.NodeName == "required-more" }, "the pod was not bound to the other warm node")

	// A node that is no longer warm loses the label while pods ask for it.
	fourth := zone(makePod(ns, "fourth", gate)).create(t, c)
	setWarm(t, c, "required-more")
	eventually(t, func() bool { return slices.Equal(steeringLabels(t, c, "required-"), []string{"required-warm"}) }, "a cold node kept the label")
	stayGated(t, c, fourth, gate)
}

func TestRequiredGoesWithTheLastGate(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate, image := namespace(t, c), "example.com/required-last", "registry.example/required-last:v1"
	policy(t, c, "required-last", v1alpha1.GatePolicySpec{GateName: gate, Requires: images(), Placement: v1alpha1.PlacementRequired})
	policy(t, c, "required-last-config", v1alpha1.GatePolicySpec{
		GateName: "example.com/required-last-config", Requires: references(), Placement: v1alpha1.PlacementNone,
	})
	node(t, c, "required-last", capacity("4"), warm(image))
	pod := makePod(ns, "web", gate, "example.com/required-last-config").image(image).envFrom("flags").create(t, c)
	stayGated(t, c, pod, gate, "example.com/required-last-config")
	configMap(t, c, ns, "flags")
	lifted := awaitGates(t, c, pod)
	require.NotNil(t, lifted.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
}

func TestPreferredIsNotForgottenWhenAnotherGateIsTheLast(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate, image := namespace(t, c), "example.com/prefer-early", "registry.example/prefer-early:v1"
	policy(t, c, "prefer-early", v1alpha1.GatePolicySpec{GateName: gate, Requires: images()})
	policy(t, c, "prefer-early-config", v1alpha1.GatePolicySpec{
		GateName: "example.com/prefer-early-config", Requires: references(), Placement: v1alpha1.PlacementNone,
	})
	node(t, c, "prefer-early", capacity("4"), warm(image))
	pod := makePod(ns, "web", gate, "example.com/prefer-early-config").image(image).envFrom("flags").create(t, c)
	require.Nil(t, awaitGates(t, c, pod, "example.com/prefer-early-config").Spec.Affinity)
	configMap(t, c, ns, "flags")
	require.Len(t, awaitGates(t, c, pod).Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
}

func TestRequiredIsReleasedUnsteeredAtTheDeadline(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/required-deadline"
	policy(t, c, "required-deadline", v1alpha1.GatePolicySpec{
		GateName: gate, Requires: images(), Placement: v1alpha1.PlacementRequired, Deadline: &metav1.Duration{Duration: 2 * time.Second},
	})
	node(t, c, "required-deadline", capacity("4"), warm("registry.example/other:v1"))
	pod := makePod(ns, "web", gate).image("registry.example/nowhere:v1").create(t, c)
	require.Nil(t, awaitGates(t, c, pod).Spec.Affinity)
	awaitEvent(t, c, ns, "web", "GateDeadline", corev1.EventTypeWarning)
}
