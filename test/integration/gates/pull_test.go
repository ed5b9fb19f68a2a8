package gates_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
)

func pulling(minNodes int32) []v1alpha1.Requirement {
	return []v1alpha1.Requirement{{Images: &v1alpha1.ImagesRequirement{MinNodes: minNodes, Pull: true}}}
}

// asked lists the PrepullPolicies that belong to a GatePolicy, and the nodes that they choose.
func asked(t testing.TB, c client.Client, owner *v1alpha1.GatePolicy) (policies []prepullv1alpha1.PrepullPolicy, nodes []string) {
	t.Helper()
	var list prepullv1alpha1.PrepullPolicyList
	require.NoError(t, c.List(t.Context(), &list))
	var all corev1.NodeList
	require.NoError(t, c.List(t.Context(), &all))
	for i := range list.Items {
		if !metav1.IsControlledBy(&list.Items[i], owner) {
			continue
		}
		policies = append(policies, list.Items[i])
		selector, err := metav1.LabelSelectorAsSelector(list.Items[i].Spec.NodeSelector)
		require.NoError(t, err)
		for j := range all.Items {
			if selector.Matches(labelSet(all.Items[j].Labels)) {
				nodes = append(nodes, all.Items[j].Name)
			}
		}
	}
	slices.Sort(nodes)
	return policies, nodes
}

func TestImagesThatPodsWaitForArePulled(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate, image := namespace(t, c), "example.com/pull", "registry.example/pull:v1"
	owner := policy(t, c, "pull", v1alpha1.GatePolicySpec{GateName: gate, Requires: pulling(1)})
	node(t, c, "pull-tight", capacity("1"), warm("registry.example/other:v1"))
	node(t, c, "pull-roomy", capacity("4"), warm("registry.example/other:v1"))
	node(t, c, "pull-agentless", capacity("8"))
	selector := func(b podBuilder) podBuilder { return b.image(image).cpu("2") }
	never(t, func() bool { policies, _ := asked(t, c, owner); return len(policies) > 0 }, "nobody waits for an image")

	pod := selector(makePod(ns, "web", gate)).create(t, c)
	eventually(t, func() bool { _, nodes := asked(t, c, owner); return slices.Equal(nodes, []string{"pull-roomy"}) },
		"the one node with an agent and room was not asked")
	policies, _ := asked(t, c, owner)
	require.Len(t, policies, 1)
	require.Equal(t, []prepullv1alpha1.Image{{Image: image, Priority: policies[0].Spec.Images[0].Priority}}, policies[0].Spec.Images)
	stayGated(t, c, pod, gate)

	// A second pod needs a second node; what was asked of the first stays.
	node(t, c, "pull-second", capacity("2"), warm("registry.example/other:v1"))
	selector(makePod(ns, "web-2", gate)).create(t, c)
	selector(makePod(ns, "web-3", gate)).create(t, c)
	eventually(t, func() bool {
		_, nodes := asked(t, c, owner)
		return slices.Equal(nodes, []string{"pull-roomy", "pull-second"})
	}, "the second node was not asked")

	// A policy that somebody deletes comes back.
	require.NoError(t, c.Delete(t.Context(), &policies[0]))
	eventually(t, func() bool {
		again, _ := asked(t, c, owner)
		return len(again) == 1 && again[0].UID != policies[0].UID
	}, "the deleted policy did not come back")

	// What the agents publish when they have pulled.
	setWarm(t, c, "pull-roomy", warm(image))
	setWarm(t, c, "pull-second", warm(image))
	for _, name := range []string{"web", "web-2", "web-3"} {
		pod.Name = name
		lifted := awaitGates(t, c, pod)
		require.NotNil(t, lifted.Spec.Affinity, "steered to a node that has it now")
	}
	eventually(t, func() bool { policies, _ := asked(t, c, owner); return len(policies) == 0 }, "the policy did not go when no pod waited any more")
}

func TestWhatAGatePolicyPullsGoesAwayWithIt(t *testing.T) {
	c := newClient(t)
	stop := startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/pull-gone"
	owner := policy(t, c, "pull-gone", v1alpha1.GatePolicySpec{GateName: gate, Requires: pulling(1)})
	node(t, c, "pull-gone", capacity("4"), warm("registry.example/other:v1"))
	makePod(ns, "web", gate).image("registry.example/pull-gone:v1").create(t, c)
	there := func() bool { policies, _ := asked(t, c, owner); return len(policies) == 1 }
	eventually(t, there, "nothing was asked")
	require.NoError(t, c.Delete(t.Context(), owner))
	eventually(t, func() bool { return !there() }, "the PrepullPolicy outlived the GatePolicy")

	// And where the controller was away when the last pod went.
	owner = policy(t, c, "pull-gone", v1alpha1.GatePolicySpec{GateName: gate, Requires: pulling(1)})
	eventually(t, there, "nothing was asked")
	stop()
	require.NoError(t, c.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(ns)))
	startController(t, fastConfig())
	eventually(t, func() bool { return !there() }, "a restart forgot the PrepullPolicy")
}

func TestPullNeedsNoMoreThanItSays(t *testing.T) {
	c := newClient(t)
	refused := map[string]struct {
		spec v1alpha1.GatePolicySpec
		want string
	}{
		"fewer nodes than it waits for": {
			v1alpha1.GatePolicySpec{Requires: []v1alpha1.Requirement{{Images: &v1alpha1.ImagesRequirement{MinNodes: 3, Pull: true, MaxPullNodes: 2}}}},
			"must not be below minNodes",
		},
		"a limit without pull": {
			v1alpha1.GatePolicySpec{Requires: []v1alpha1.Requirement{{Images: &v1alpha1.ImagesRequirement{MaxPullNodes: 2}}}}, "without pull: true",
		},
		"placement Required without images": {
			v1alpha1.GatePolicySpec{Requires: references(), Placement: v1alpha1.PlacementRequired}, "placement: Preferred",
		},
	}
	for name, tc := range refused {
		t.Run(name, func(t *testing.T) {
			tc.spec.GateName = "example.com/refused"
			err := c.Create(t.Context(), &v1alpha1.GatePolicy{ObjectMeta: metav1.ObjectMeta{Name: "refused"}, Spec: tc.spec})
			require.True(t, apierrors.IsInvalid(err), "%v", err)
			require.True(t, strings.Contains(err.Error(), tc.want), "%v", err)
		})
	}
}
