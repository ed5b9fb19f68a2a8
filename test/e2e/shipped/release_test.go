package shipped_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"headstart.dev/readiness"
)

// install installs a chart on the node, which has no network yet, and gives it one when the agent has seen that.
func (c *cluster) install(t *testing.T, chart string, set []string) {
	t.Helper()
	c.helm.run(t, append([]string{"install", "headstart", chart, "--create-namespace"}, set...)...)
	eventually(t, func() bool { return condition(c.node(t), readiness.ConditionCNIReady) == corev1.ConditionFalse },
		"the agent runs before there is a network")
	require.True(t, tainted(c.node(t)))
	require.NoError(t, c.ctd.WriteCNI())
	eventually(t, func() bool { return !tainted(c.node(t)) }, "the controller starts behind its own taint and lifts it")
	require.Equal(t, corev1.ConditionTrue, condition(c.node(t), readiness.ConditionCNIReady))
	require.Equal(t, "true", c.node(t).Labels[readiness.LabelCNIReady])
	eventually(t, func() bool { return c.rolledOut(t) }, "two controllers and an agent")
}

// upgrade brings the release to our chart with other values, and watches what becomes of the node meanwhile.
func (c *cluster) upgrade(t *testing.T, set []string) {
	t.Helper()
	nodes, err := c.client.CoreV1().Nodes().Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	over, lost := make(chan struct{}), make(chan []string, 1)
	go func() { lost <- lostReadiness(nodes, over) }()
	c.helm.run(t, append([]string{"upgrade", "headstart", filepath.Join(root, chartPath), "--timeout", patience.String()}, set...)...)
	eventually(t, func() bool { return c.rolledOut(t) }, "the upgrade is rolled out")
	close(over)
	nodes.Stop()
	require.Empty(t, <-lost)
}

// lostReadiness reads a watch of nodes until it is over and says what a node lost meanwhile.
func lostReadiness(nodes watch.Interface, over <-chan struct{}) (lost []string) {
	for event := range nodes.ResultChan() {
		node, ok := event.Object.(*corev1.Node)
		switch {
		case !ok:
			select {
			case <-over:
			default:
				lost = append(lost, fmt.Sprintf("the watch broke, and what came then was not seen: %v", event.Object))
			}
		case tainted(node):
			lost = append(lost, fmt.Sprintf("the taint came back: %v", node.Spec.Taints))
		case condition(node, readiness.ConditionCNIReady) != corev1.ConditionTrue:
			lost = append(lost, fmt.Sprintf("the network is not ready: %v", node.Status.Conditions))
		}
	}
	return lost
}

func (c *cluster) uninstall(t *testing.T) {
	c.run(t, "waits", "example.com/config", "example.com/anothers")
	c.helm.run(t, "uninstall", "headstart", "--wait", "--timeout", patience.String())
	node := c.node(t)
	require.False(t, tainted(node))
	for key := range node.Labels {
		require.NotContains(t, key, readiness.Domain)
	}
	for key := range node.Annotations {
		require.NotContains(t, key, readiness.Domain)
	}
	for _, got := range node.Status.Conditions {
		require.NotContains(t, string(got.Type), readiness.Domain)
	}
	pod, err := c.client.CoreV1().Pods("default").Get(t.Context(), "waits", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, []corev1.PodSchedulingGate{{Name: "example.com/anothers"}}, pod.Spec.SchedulingGates)
	c.requireNothingLeft(t)
}

// requireNothingLeft looks for objects of the chart, everywhere.
func (c *cluster) requireNothingLeft(t *testing.T) {
	t.Helper()
	for _, resource := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "pods"},
		{Version: "v1", Resource: "configmaps"},
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "serviceaccounts"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "apps", Version: "v1", Resource: "daemonsets"},
		{Group: "batch", Version: "v1", Resource: "jobs"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
		{Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses"},
		{Group: "headstart.dev", Version: "v1alpha1", Resource: "nodereadinessrules"},
	} {
		eventually(t, func() bool {
			list, err := c.objects.Resource(resource).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			for _, item := range list.Items {
				if strings.HasPrefix(item.GetName(), "headstart") {
					return false
				}
			}
			return true
		}, "%s are left", resource.Resource)
	}
}
