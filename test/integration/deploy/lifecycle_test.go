package deploy_test

import (
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"headstart.dev/deploy"
	"headstart.dev/deploy/lifecycle"
	"headstart.dev/readiness"
)

// lifecycleConfig is the hooks' ServiceAccount with the roles that the chart gives it, and no more.
func lifecycleConfig(t *testing.T) *rest.Config {
	t.Helper()
	a := newAPI(t)
	a.namespace(t, namespace)
	n := 0
	for _, obj := range template(t) {
		if obj.GetName() != "headstart-lifecycle" || !strings.HasPrefix(obj.GetAPIVersion(), "rbac.") {
			continue
		}
		n++
		_, err := a.resource(t, obj).Apply(t.Context(), obj.GetName(), obj, metav1.ApplyOptions{FieldManager: "test", Force: true})
		require.NoError(t, err)
	}
	require.Equal(t, 4, n, "two roles and their bindings")
	return cp.ConfigFor("system:serviceaccount:"+namespace+":headstart-lifecycle", "system:serviceaccounts", "system:authenticated")
}

func TestUpgradeCRDs(t *testing.T) {
	client, err := dynamic.NewForConfig(lifecycleConfig(t))
	require.NoError(t, err)
	require.NoError(t, lifecycle.UpgradeCRDs(t.Context(), client, deploy.CRDs))
	require.NoError(t, lifecycle.UpgradeCRDs(t.Context(), client, deploy.CRDs), "once more changes nothing")
}

func TestCleanUpLeavesNothing(t *testing.T) {
	admin, err := kubernetes.NewForConfig(cp.Config())
	require.NoError(t, err)
	a := newAPI(t)
	for _, obj := range decode(t, []byte(`
apiVersion: headstart.dev/v1alpha1
kind: NodeReadinessRule
metadata: {name: leave}
spec:
  nodeSelector: {matchLabels: {pool: leave}}
  conditions: [{type: headstart.dev/CNIReady}]
---
apiVersion: headstart.dev/v1alpha1
kind: GatePolicy
metadata: {name: leave}
spec: {gateName: example.com/leave, requires: [{references: {}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: leave, namespace: default}
spec:
  schedulingGates: [{name: example.com/leave}, {name: example.com/another}]
  containers: [{name: c, image: web}]
`)) {
		_, err := a.resource(t, obj).Create(t.Context(), obj, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	foreign := corev1.Taint{Key: "example.com/mine", Value: "a", Effect: corev1.TaintEffectNoSchedule}
	// The node says of these that they are ours; no rule and no ledger does.
	quarantine := corev1.Taint{Key: "security.example.com/quarantine", Effect: corev1.TaintEffectNoExecute}
	const tenant = "node-restriction.kubernetes.io/tenant"
	node, err := admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:   "leave-1",
			Labels: map[string]string{readiness.LabelCNIReady: "true", readiness.PrepullLabel("web"): "true", "example.com/kept": "a", tenant: "true"},
			Annotations: map[string]string{
				readiness.AnnotationTimeline: "{}", readiness.AnnotationImages: "{}", readiness.AnnotationRule: "leave", "example.com/kept": "a",
			},
		},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{
			{Key: "readiness.k8s.io/leave", Value: "pending", Effect: corev1.TaintEffectNoSchedule},
			foreign, quarantine,
			{Key: "readiness.k8s.io/deleted-rule", Value: "pending", Effect: corev1.TaintEffectNoSchedule},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	node.Annotations[readiness.AnnotationReadiness] = `{"node":"` + string(node.UID) + `","rules":{"x":{"name":"deleted-rule","state":"held","taint":"readiness.k8s.io/deleted-rule:NoSchedule"},"y":{"name":"y","state":"held","taint":"security.example.com/quarantine:NoExecute"}},"labels":["example.com/ready","` + tenant + `"]}`
	node.Labels["example.com/ready"] = "true"
	node, err = admin.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{})
	require.NoError(t, err)
	node.Status.Conditions = []corev1.NodeCondition{
		{Type: readiness.ConditionCNIReady, Status: corev1.ConditionTrue}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue},
	}
	_, err = admin.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	require.NoError(t, err)

	config := lifecycleConfig(t)
	core, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	client, err := dynamic.NewForConfig(config)
	require.NoError(t, err)
	for _, name := range []string{"headstart-readiness", "of-somebody-else"} {
		_, err = admin.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{
			"claims": `[{"uid":"x","name":"deleted-rule","form":"native","key":"readiness.k8s.io/deleted-rule","effect":"NoSchedule","labels":["example.com/ready"]}]`,
		}}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	c := lifecycle.Cluster{Core: core, Dynamic: client, Namespace: namespace, Log: testr.New(t)}
	require.NoError(t, lifecycle.CleanUp(t.Context(), c))

	node, err = admin.CoreV1().Nodes().Get(t.Context(), node.Name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Contains(t, node.Spec.Taints, foreign, "those of others stay")
	require.Contains(t, node.Spec.Taints, quarantine, "whatever a node says of them")
	for _, taint := range node.Spec.Taints {
		require.False(t, strings.HasPrefix(taint.Key, readiness.TaintPrefix), "%s is left", taint.Key)
	}
	require.Equal(t, map[string]string{"example.com/kept": "a", tenant: "true"}, node.Labels)
	require.Equal(t, map[string]string{readiness.AnnotationRule: "leave", "example.com/kept": "a"}, node.Annotations)
	require.Len(t, node.Status.Conditions, 1)
	require.Equal(t, corev1.NodeReady, node.Status.Conditions[0].Type)
	pod, err := admin.CoreV1().Pods("default").Get(t.Context(), "leave", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, []corev1.PodSchedulingGate{{Name: "example.com/another"}}, pod.Spec.SchedulingGates)

	_, err = admin.CoreV1().ConfigMaps(namespace).Get(t.Context(), "headstart-readiness", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "what the controllers kept is forgotten")
	_, err = admin.CoreV1().ConfigMaps(namespace).Get(t.Context(), "of-somebody-else", metav1.GetOptions{})
	require.NoError(t, err)

	t.Run("once more writes nothing", func(t *testing.T) {
		require.NoError(t, lifecycle.CleanUp(t.Context(), c))
		again, err := admin.CoreV1().Nodes().Get(t.Context(), node.Name, metav1.GetOptions{})
		require.NoError(t, err)
		require.Equal(t, node.ResourceVersion, again.ResourceVersion)
	})
}
