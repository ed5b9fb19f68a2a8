package prepull_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/prepull"
	"headstart.dev/prepull/controller"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness"
)

// labelled waits until exactly these nodes of the test carry the label.
func (c *cluster) labelled(label string, want ...string) {
	c.t.Helper()
	var have []string
	ok := poll(c.t, func() bool {
		var list corev1.NodeList
		if err := c.List(c.t.Context(), &list, client.MatchingLabels{"test": c.t.Name(), label: "true"}); err != nil {
			return false
		}
		have = nil
		for i := range list.Items {
			have = append(have, list.Items[i].Name)
		}
		return len(have) == len(want) && subset(want, have)
	})
	require.True(c.t, ok, "%s: want it on %v, it is on %v", label, want, have)
}

func subset(want, have []string) bool {
	there := map[string]bool{}
	for _, name := range have {
		there[name] = true
	}
	for _, name := range want {
		if !there[name] {
			return false
		}
	}
	return true
}

// TestLabelLeadsToWarmNodes has the policy's label stand on those nodes that have its images, with the rights that the
// controller is deployed with, and nowhere else.
func TestLabelLeadsToWarmNodes(t *testing.T) {
	c := newCluster(t)
	nodes := c.nodes(3)
	label := readiness.PrepullLabel("steer")
	// A node that would like to attract pods, and what a policy left behind that went while no controller ran.
	var liar corev1.Node
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: nodes[2]}, &liar))
	liar.Labels[label], liar.Labels[readiness.PrepullLabel("long-gone")] = "true", "true"
	require.NoError(t, c.Update(t.Context(), &liar))

	stop := startController(t, controller.Config{Resolver: newRegistry()})
	policy := &v1alpha1.PrepullPolicy{}
	policy.Name = "steer"
	policy.Spec = v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Images: []v1alpha1.Image{{Image: "a:v1"}, {Image: "b:v1"}}}
	require.NoError(t, c.Create(t.Context(), policy))
	t.Cleanup(func() {
		require.NoError(t, client.IgnoreNotFound(c.Delete(context.WithoutCancel(t.Context()), policy)))
	})
	status := c.eventually("steer", "listed", func(s v1alpha1.PrepullPolicyStatus) bool { return len(s.Images) == 2 })
	c.labelled(readiness.PrepullLabel("long-gone"))
	c.labelled(label)
	c.publish(nodes[0], having(status.Images[0]))
	c.publish(nodes[1], having(status.Images...))
	c.labelled(label, nodes[1])
	c.publish(nodes[0], having(status.Images...))
	c.labelled(label, nodes[0], nodes[1])
	c.publish(nodes[1], prepull.Inventory{})
	c.labelled(label, nodes[0])

	stop()
	var before, after corev1.Node
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: nodes[0]}, &before))
	startController(t, controller.Config{Resolver: newRegistry()})
	c.publish(nodes[1], having(status.Images...))
	c.labelled(label, nodes[0], nodes[1]) // the new controller is at work
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: nodes[0]}, &after))
	require.Equal(t, before.ResourceVersion, after.ResourceVersion, "a restart writes nothing that is there")

	require.NoError(t, c.Delete(t.Context(), policy))
	c.labelled(label)
}
