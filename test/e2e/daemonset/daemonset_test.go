// Package daemonset_test runs the agent beside a real kubelet, which tells it of the pods that rules require.
package daemonset_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/agent"
	"headstart.dev/readiness/v1alpha1"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

const (
	nodeName = "node1"
	report   = "headstart.dev/DaemonSetReady.default.node-agent"
	// settleTime bounds what happens within milliseconds, or on a busy machine within seconds.
	settleTime = time.Minute
)

// cluster is a node with a real kubelet, a rule that requires the DaemonSet default/node-agent there, and an agent.
type cluster struct {
	t     *testing.T
	admin *kubernetes.Clientset
	node  *testenv.Node
	image string
}

func start(t *testing.T) *cluster {
	t.Helper()
	testenv.RequireRoot(t)
	plane := testenv.StartControlPlane(t, testenv.ControlPlaneConfig{})
	require.NoError(t, testenv.InstallCRDs(t.Context(), plane.Config(), "deploy/crd"))
	registry := testenv.StartRegistry(t, testenv.RegistryConfig{})
	image, err := images.Build(t.Context(), images.Sized("daemonset", 1<<20))
	require.NoError(t, err)
	c := &cluster{t: t}
	c.image, _, err = registry.Push(t.Context(), "team/agent:v1", image)
	require.NoError(t, err)
	containerd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: registry})
	c.node = testenv.StartNode(t, plane, containerd, testenv.NodeConfig{Name: nodeName, CNI: true, Labels: map[string]string{"pool": "a"}})
	c.admin, err = kubernetes.NewForConfig(plane.Config())
	require.NoError(t, err)

	// The agent has the rights that it is shipped with: none on pods.
	require.NoError(t, testenv.ApplyFiles(t.Context(), plane.Config(), "deploy/rbac/agent/agent.yaml"))
	rules, err := dynamic.NewForConfig(plane.Config())
	require.NoError(t, err)
	_, err = rules.Resource(v1alpha1.GroupVersion.WithResource("nodereadinessrules")).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "NodeReadinessRule", "metadata": map[string]any{"name": "needs-agent"},
		"spec": map[string]any{
			"nodeSelector":       map[string]any{"matchLabels": map[string]any{"pool": "a"}},
			"requiredDaemonSets": []any{map[string]any{"namespace": "default", "name": "node-agent"}},
		},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	c.startAgent(plane.Kubeconfig("system:serviceaccount:headstart-system:headstart-agent"))
	return c
}

func (c *cluster) startAgent(kubeconfig string) {
	c.t.Helper()
	cfg, err := agent.Parse(fmt.Appendf(nil, `
apiVersion: agent.headstart.dev/v1alpha1
kind: AgentConfig
nodeName: %s
kubeconfig: %s
stateDir: %s
kubeletDir: %s
metrics: {bindAddress: "0"}
`, nodeName, kubeconfig, c.t.TempDir(), c.node.RootDir()))
	require.NoError(c.t, err)
	a, err := agent.New(agent.Options{
		Config: cfg, Registry: prometheus.NewRegistry(),
		Log: funcr.New(func(prefix, line string) { fmt.Fprintln(c.t.Output(), "agent:", prefix, line) }, funcr.Options{}),
	})
	require.NoError(c.t, err)
	done := make(chan error, 1)
	ctx := c.t.Context()
	go func() { done <- a.Run(ctx) }()
	c.t.Cleanup(func() { require.NoError(c.t, <-done) })
}

// reported waits for the agent's report and returns it.
func (c *cluster) reported(what string, is func(corev1.NodeCondition) bool) corev1.NodeCondition {
	c.t.Helper()
	var last corev1.NodeCondition
	require.Eventually(c.t, func() bool {
		node, err := c.admin.CoreV1().Nodes().Get(c.t.Context(), nodeName, metav1.GetOptions{})
		require.NoError(c.t, err)
		for _, condition := range node.Status.Conditions {
			if condition.Type == report {
				last = condition
				return is(condition)
			}
		}
		return false
	}, settleTime, 20*time.Millisecond, "%s: %v", what, &last)
	return last
}

// runPod runs a pod of the DaemonSet, as its controller would make it.
func (c *cluster) runPod() {
	c.t.Helper()
	yes := true
	_, err := c.admin.CoreV1().Pods("default").Create(c.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:            "node-agent-x",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "node-agent", UID: "uid", Controller: &yes}},
		},
		Spec: corev1.PodSpec{
			NodeName: nodeName, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{Name: "c", Image: c.image}},
		},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
}

func TestTheKubeletTellsTheAgentOfRequiredDaemonSets(t *testing.T) {
	c := start(t)
	c.reported("no pod yet", func(r corev1.NodeCondition) bool { return r.Reason == "PodMissing" })
	c.runPod()
	ready := c.reported("the pod is Ready", func(r corev1.NodeCondition) bool { return r.Status == corev1.ConditionTrue })
	pod, err := c.admin.CoreV1().Pods("default").Get(t.Context(), "node-agent-x", metav1.GetOptions{})
	require.NoError(t, err)
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			require.WithinDuration(t, condition.LastTransitionTime.Time, ready.LastTransitionTime.Time, 2*time.Second)
		}
	}

	// A kubelet that starts again calls no pod Ready for a while. That is no news.
	require.NoError(t, c.node.RestartKubelet(t.Context()))
	require.NoError(t, c.node.WaitReady(t.Context()))
	after := c.reported("still", func(corev1.NodeCondition) bool { return true })
	require.Equal(t, corev1.ConditionTrue, after.Status)
	require.Equal(t, ready.LastTransitionTime, after.LastTransitionTime)

	zero := int64(0)
	require.NoError(t, c.admin.CoreV1().Pods("default").Delete(t.Context(), "node-agent-x", metav1.DeleteOptions{GracePeriodSeconds: &zero}))
	c.reported("the pod is gone", func(r corev1.NodeCondition) bool {
		return r.Reason == "PodMissing" && r.Status == corev1.ConditionFalse
	})
}
