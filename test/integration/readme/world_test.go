package readme_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

// boot makes a node of the README's NodePool, behind the startup taint that the README has one declare, with nothing ready.
func boot(t *testing.T, c client.Client, n int) string {
	t.Helper()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:   fmt.Sprintf("node-%d", n),
			Labels: map[string]string{"karpenter.sh/nodepool": "fast-scaling", corev1.LabelOSStable: "linux"},
		},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "readiness.k8s.io/bootstrap-only", Value: "pending", Effect: corev1.TaintEffectNoSchedule}}},
	}
	require.NoError(t, c.Create(t.Context(), node))
	t.Cleanup(func() { _ = c.Delete(afterwards(t), node) })
	size := corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("110")}
	status(t, c, node.Name, corev1.NodeStatus{
		Capacity: size, Allocatable: size,
		Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"},
			{Type: readiness.ConditionImagesReady, Status: corev1.ConditionFalse, Reason: "Pulling"},
			{Type: readiness.ConditionCNIReady, Status: corev1.ConditionFalse, Reason: "NoCNIConfig"},
		},
	})
	// The admission plugin TaintNodesByCondition adds not-ready, and no node controller takes it off here.
	eventually(t, func() bool {
		got := get(t, c, node.Name)
		got.Spec.Taints = []corev1.Taint{{Key: "readiness.k8s.io/bootstrap-only", Value: "pending", Effect: corev1.TaintEffectNoSchedule}}
		return c.Update(t.Context(), got) == nil
	}, "the node is as the kubelet leaves it")
	require.True(t, tainted(get(t, c, node.Name)))
	return node.Name
}

// report has the node's agent find images and network ready, and returns when.
func report(t *testing.T, c client.Client, name string) time.Time {
	t.Helper()
	status(t, c, name, corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: readiness.ConditionImagesReady, Status: corev1.ConditionTrue, Reason: "ImagesPresent"},
		{Type: readiness.ConditionCNIReady, Status: corev1.ConditionTrue, Reason: "Ready"},
	}})
	return time.Now()
}

// warm has the node's agent tell of the image, and returns when.
func warm(t *testing.T, c client.Client, name string) time.Time {
	t.Helper()
	inventory := prepull.Inventory{Warm: []prepull.InventoryImage{{Digest: "0123456789abcdef", Name: image}}}
	text, err := inventory.Encode()
	require.NoError(t, err)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{readiness.AnnotationImages: text}}})
	require.NoError(t, err)
	require.NoError(t, c.Status().Patch(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.RawPatch("application/strategic-merge-patch+json", patch)))
	return time.Now()
}

func status(t *testing.T, c client.Client, name string, want corev1.NodeStatus) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"status": want})
	require.NoError(t, err)
	require.NoError(t, c.Status().Patch(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.RawPatch("application/strategic-merge-patch+json", patch)))
}

func get(t *testing.T, c client.Client, name string) *corev1.Node {
	t.Helper()
	node := &corev1.Node{}
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: name}, node))
	return node
}

func tainted(node *corev1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Key == "readiness.k8s.io/bootstrap-only" {
			return true
		}
	}
	return false
}

// gated makes a pod that waits for its image.
func gated(t *testing.T, c client.Client, n int) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("web-%d", n), Namespace: "default"},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: gate}},
			Containers:      []corev1.Container{{Name: "app", Image: image}},
		},
	}
	require.NoError(t, c.Create(t.Context(), pod))
	t.Cleanup(func() { _ = c.Delete(afterwards(t), pod) })
	return pod
}

// holdPool has the node that rule and policy have made warm hold the README's pool: its replicas are bound there and run, and
// count as warm.
func holdPool(t *testing.T, c client.Client) {
	t.Helper()
	var got v1alpha1.WarmPool
	eventually(t, func() bool {
		require.NoError(t, c.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: "web"}, &got))
		runBound(t, c)
		return got.Status.Ready >= got.Spec.Min && got.Status.Ready == got.Status.Desired
	}, "the pool's replicas are warm")
	require.GreaterOrEqual(t, got.Status.Ready, int32(2), "the README's min")
}

// runBound plays the kubelets: pods that are bound run.
func runBound(t *testing.T, c client.Client) {
	t.Helper()
	var pods corev1.PodList
	require.NoError(t, c.List(t.Context(), &pods, client.InNamespace("kube-system")))
	for _, pod := range pods.Items {
		if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodRunning {
			continue
		}
		patch := fmt.Appendf(nil, `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
		require.NoError(t, client.IgnoreNotFound(c.Status().Patch(t.Context(), &pod, client.RawPatch("application/strategic-merge-patch+json", patch))))
	}
}
