package agent_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"headstart.dev/agent"
	"headstart.dev/readiness/compat/guide"
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
	_, err = rules.Create(t.Context(), probingRule(v1alpha1.GroupVersion, "rule-probe", name), metav1.CreateOptions{})
	require.NoError(t, err)
	node := eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, dsReady).Status == corev1.ConditionFalse })
	require.Equal(t, "Unreachable", conditionOf(node, dsReady).Reason)

	require.NoError(t, rules.Delete(t.Context(), "rule-probe", metav1.DeleteOptions{}))
	eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, dsReady).Type == "" })
}

// TestRulesThatAreInstalledLate finds the rules of the guide's group, whose CRD comes after the agent: the agent asks for
// it again when the controller has held its node.
func TestRulesThatAreInstalledLate(t *testing.T) {
	apply(t, "deploy/rbac/agent/agent.yaml")
	name := "rules-late"
	prepare(t, name)
	s := newSetup(t)
	s.start(t, false, agent.Overrides{Kubeconfig: kubeletKubeconfig(name)})
	require.Eventually(t, func() bool {
		return strings.Contains(s.logs.String(), `asks again when the node shows signs of one" "group"="`+guide.GroupVersion.Group+`"`)
	}, settleTime, 20*time.Millisecond)

	require.NoError(t, testenv.InstallCRDs(t.Context(), plane.Config(), "deploy/crd/compat"))
	extensions, err := clientset.NewForConfig(plane.Config())
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), settleTime)
		defer cancel()
		require.NoError(t, extensions.ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, "nodereadinessrules."+guide.GroupVersion.Group, metav1.DeleteOptions{}))
	})
	client, err := dynamic.NewForConfig(plane.Config())
	require.NoError(t, err)
	_, err = client.Resource(guide.GroupVersion.WithResource("nodereadinessrules")).Create(t.Context(), probingRule(guide.GroupVersion, "late", name), metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin(t).CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType,
		[]byte(`{"spec":{"taints":[{"key":"readiness.k8s.io/late","value":"pending","effect":"NoSchedule"}]}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, dsReady).Reason == "Unreachable" })
}

// probingRule asks for a probe that fails on one node.
func probingRule(version schema.GroupVersion, name, node string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": version.String(), "kind": "NodeReadinessRule",
		"metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"nodeSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/hostname": node}},
			"requiredDaemonSets": []any{map[string]any{
				"namespace": "kube-system", "name": "node-agent",
				"readinessProbe": map[string]any{"tcpSocket": map[string]any{"port": int64(1)}},
			}},
		},
	}}
}
