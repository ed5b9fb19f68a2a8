package agent_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"headstart.dev/agent"
	"headstart.dev/readiness/v1alpha1"
	"headstart.dev/test/testenv"
)

const dsReady = "headstart.dev/NodeAgentReady"

func TestTheReadinessProbeOfARuleIsRunAndItsConditionGoesWithTheRule(t *testing.T) {
	for identity, kubeconfig := range map[string]func(t *testing.T, node string) string{
		"impersonation": func(t *testing.T, node string) string { t.Helper(); return kubeconfigFile(t, podIdentity(t, node)) },
		"node":          func(_ *testing.T, node string) string { return kubeletKubeconfig(node) },
	} {
		t.Run(identity, func(t *testing.T) { runsTheProbesOfRules(t, identity, kubeconfig) })
	}
}

func runsTheProbesOfRules(t *testing.T, identity string, kubeconfig func(t *testing.T, node string) string) {
	t.Helper()
	require.NoError(t, testenv.InstallCRDs(t.Context(), plane.Config(), "deploy/crd"))
	apply(t, "deploy/rbac/agent/agent.yaml", "deploy/admission/agent.yaml")
	name := "rules-" + identity
	prepare(t, name)
	s := newSetup(t)
	s.start(t, false, agent.Overrides{Kubeconfig: kubeconfig(t, name)})
	eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, appReady).Status == corev1.ConditionFalse })
	require.Contains(t, s.logs.String(), `"identity"="`+identity+`"`)

	client, err := dynamic.NewForConfig(plane.Config())
	require.NoError(t, err)
	rules := client.Resource(v1alpha1.GroupVersion.WithResource("nodereadinessrules"))
	_, err = rules.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "NodeReadinessRule",
		"metadata": map[string]any{"name": "rule-probe"},
		"spec": map[string]any{
			"nodeSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/hostname": name}},
			"requiredDaemonSets": []any{map[string]any{
				"namespace": "kube-system", "name": "node-agent",
				"readinessProbe": map[string]any{"tcpSocket": map[string]any{"port": int64(1)}},
			}},
		},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	node := eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, dsReady).Status == corev1.ConditionFalse })
	require.Equal(t, "Unreachable", conditionOf(node, dsReady).Reason)

	require.NoError(t, rules.Delete(t.Context(), "rule-probe", metav1.DeleteOptions{}))
	eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, dsReady).Type == "" })
}
