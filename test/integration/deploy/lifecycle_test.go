package deploy_test

import (
	"fmt"
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
	// A node writes its annotations itself: what it says is ours there need not be.
	lied := corev1.Taint{Key: "security.example.com/quarantine", Effect: corev1.TaintEffectNoExecute}
	node, err := admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:   "leave-1",
			Labels: map[string]string{readiness.LabelCNIReady: "true", readiness.PrepullLabel("web"): "true", "example.com/kept": "a"},
			Annotations: map[string]string{
				readiness.AnnotationTimeline: "{}", readiness.AnnotationImages: "{}", readiness.AnnotationRule: "leave", "example.com/kept": "a",
			},
		},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{
			{Key: "readiness.k8s.io/leave", Value: "pending", Effect: corev1.TaintEffectNoSchedule},
			foreign, lied,
			{Key: "readiness.k8s.io/of-the-release", Value: "pending", Effect: corev1.TaintEffectNoSchedule},
			{Key: "readiness.k8s.io/deleted-rule", Value: "pending", Effect: corev1.TaintEffectNoSchedule},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	node.Annotations[readiness.AnnotationReadiness] = `{"node":"` + string(node.UID) + `","rules":{"x":{"name":"deleted-rule","state":"held","taint":"security.example.com/quarantine:NoExecute"}},"labels":["example.com/ready","example.com/tenant"]}`
	node.Labels["example.com/ready"], node.Labels["example.com/tenant"] = "true", "true"
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
	maps := admin.CoreV1().ConfigMaps(namespace)
	for name, by := range map[string]string{"headstart-readiness": "headstart-controller", "headstart-kept": "headstart-controller", "headstart-values": "kubectl-create", "of-somebody-else": "headstart"} {
		_, err = maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{
			"claims": `[{"uid":"x","name":"deleted-rule","form":"native","key":"readiness.k8s.io/deleted-rule","effect":"NoSchedule","labels":["example.com/ready"]}]`,
		}}, metav1.CreateOptions{FieldManager: by})
		require.NoError(t, err)
	}
	c := lifecycle.Cluster{Core: core, Dynamic: client, Namespace: namespace, Taints: []string{"readiness.k8s.io/of-the-release"}, UnlessInstalled: true, Log: testr.New(t)}
	t.Run("nothing while it is installed", func(t *testing.T) {
		requireUntouchedWhileInstalled(t, admin, c, node.Name)
	})
	require.NoError(t, lifecycle.CleanUp(t.Context(), c))

	node, err = admin.CoreV1().Nodes().Get(t.Context(), node.Name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Contains(t, node.Spec.Taints, foreign, "those of others stay")
	require.Contains(t, node.Spec.Taints, lied, "what a node says of itself is no reason")
	for _, taint := range node.Spec.Taints {
		require.False(t, strings.HasPrefix(taint.Key, readiness.TaintPrefix), "%s is left", taint.Key)
	}
	require.Equal(t, map[string]string{"example.com/kept": "a", "example.com/tenant": "true"}, node.Labels)
	require.Equal(t, map[string]string{readiness.AnnotationRule: "leave", "example.com/kept": "a"}, node.Annotations)
	require.Len(t, node.Status.Conditions, 1)
	require.Equal(t, corev1.NodeReady, node.Status.Conditions[0].Type)
	pod, err := admin.CoreV1().Pods("default").Get(t.Context(), "leave", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, []corev1.PodSchedulingGate{{Name: "example.com/another"}}, pod.Spec.SchedulingGates)

	for _, name := range []string{"headstart-readiness", "headstart-kept"} {
		_, err = maps.Get(t.Context(), name, metav1.GetOptions{})
		require.True(t, apierrors.IsNotFound(err), "what the controllers kept is forgotten: %s", name)
	}
	for _, name := range []string{"headstart-values", "of-somebody-else"} {
		_, err = maps.Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
	}

	t.Run("once more writes nothing", func(t *testing.T) {
		require.NoError(t, lifecycle.CleanUp(t.Context(), c))
		again, err := admin.CoreV1().Nodes().Get(t.Context(), node.Name, metav1.GetOptions{})
		require.NoError(t, err)
		require.Equal(t, node.ResourceVersion, again.ResourceVersion)
	})
}

// requireUntouchedWhileInstalled plays "helm template | kubectl apply": the clean-up's Job runs beside what it would clean up
// after.
func requireUntouchedWhileInstalled(t *testing.T, admin kubernetes.Interface, c lifecycle.Cluster, node string) {
	t.Helper()
	before, err := admin.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	require.NoError(t, err)
	for _, obj := range template(t, "agent.profiles[0].name=gpu", "agent.profiles[0].nodeSelector.a=b") {
		if kind := obj.GetKind(); kind != "Deployment" && kind != "DaemonSet" {
			continue
		}
		workloads := newAPI(t).resource(t, obj)
		_, err := workloads.Create(t.Context(), obj, metav1.CreateOptions{})
		require.NoError(t, err)
		require.NoError(t, lifecycle.CleanUp(t.Context(), c))
		_, err = workloads.Get(t.Context(), obj.GetName(), metav1.GetOptions{})
		require.NoError(t, err, "%s is there", obj.GetName())
		require.NoError(t, workloads.Delete(t.Context(), obj.GetName(), metav1.DeleteOptions{}))
	}
	after, err := admin.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, before.ResourceVersion, after.ResourceVersion)
}

func TestNoHookTakesAReleaseAway(t *testing.T) {
	for _, obj := range template(t, "crds.keep=false") {
		require.NotContains(t, obj.GetAnnotations()["helm.sh/hook"], "pre-delete", obj.GetName())
		if obj.GetName() != "headstart-lifecycle" || obj.GetKind() != "Role" && obj.GetKind() != "ClusterRole" {
			continue
		}
		for _, rule := range rules(t, obj) {
			if strings.Contains(fmt.Sprint(rule["apiGroups"]), "apps") {
				require.Equal(t, []any{"list"}, rule["verbs"])
			}
		}
	}
}
