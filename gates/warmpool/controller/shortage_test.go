package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/resources"
)

func replicaPod(p *corev1.Pod) {
	p.Namespace, p.Labels = poolKey.Namespace, map[string]string{LabelPool: poolKey.Name}
}

// The API server keeps the pods of a node that is gone for most of a minute.
func TestReplicasGoWithTheirNode(t *testing.T) {
	f := newFixture(nil)
	f.node("n", start, map[string]string{"pool": "web"})
	f.see("r", func(p *corev1.Pod) { replicaPod(p); p.Spec.NodeName = "n"; isReady(p) })
	require.Equal(t, counts{ready: 1, warm: 1}, f.pool().counts(f.model))
	f.changes = 0
	f.deleteNode("n")
	require.Equal(t, 1, f.changes, "the pool is looked at")
	require.Equal(t, counts{pending: 1}, f.pool().counts(f.model))
	f.node("n", start, map[string]string{"pool": "web"})
	require.Equal(t, counts{ready: 1, warm: 1}, f.pool().counts(f.model), "a watch that was behind")
}

func TestARoomThatNobodyMayEnterIsNotWarm(t *testing.T) {
	f := newFixture(nil)
	f.node("n", start, map[string]string{"pool": "web"})
	f.see("r", func(p *corev1.Pod) { replicaPod(p); p.Spec.NodeName = "n"; isReady(p) })
	closed := *f.nodes["n"]
	closed.taints = []corev1.Taint{{Key: "karpenter.sh/disrupted", Effect: corev1.TaintEffectNoSchedule}}
	f.setNode(&closed)
	require.Equal(t, counts{ready: 1}, f.pool().counts(f.model))
	f.pool().target.tolerations = []corev1.Toleration{{Key: "karpenter.sh/disrupted", Operator: corev1.TolerationOpExists}}
	f.setNode(&closed)
	require.Equal(t, counts{ready: 1, warm: 1}, f.pool().counts(f.model))
}

func TestTheSchedulersWordsAreTold(t *testing.T) {
	f := newFixture(func(p *pool) { p.target.shape = resources.List{"cpu": 64_000} })
	unscheduled := func(p *corev1.Pod) {
		replicaPod(p)
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			Message: "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
		})
	}
	require.Empty(t, f.pool().waitingFor(f.model))
	stripped, err := StripPod(pod("r", unscheduled))
	require.NoError(t, err)
	kept, ok := stripped.(*corev1.Pod)
	require.True(t, ok)
	f.setPod(newPodView(kept))
	require.Equal(t, "; 1 have no node: 0/1 nodes are available: 1 Insufficient cpu.", f.pool().waitingFor(f.model))
	f.node("n", start, map[string]string{"pool": "web"})
	require.Equal(t, "; 1 have no node: 0/1 nodes are available: 1 Insufficient cpu.; no node that is there could hold one replica even if it were empty: cpu 64, the largest has 4", f.pool().waitingFor(f.model))
}

func TestShapesThatNoMachineHas(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
	}
	require.NoError(t, checkShape(list("1", "2Gi")))
	require.NoError(t, checkShape(list("1920", "32Ti")))
	require.NoError(t, checkShape(corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("8")}))
	require.ErrorContains(t, checkShape(list("4096", "2Gi")), "one replica asks for 4096 of cpu, and there is no machine with more than 2048")
	require.ErrorContains(t, checkShape(list("1", "9223372036854775807")), "of memory")
	require.ErrorContains(t, checkShape(list("0", "0")), "requests nothing")
	require.ErrorContains(t, checkShape(list("-1", "1Gi")), "negative")
	require.ErrorContains(t, checkShape(nil), "requests nothing")
}

func TestWhoRefusesIsQuoted(t *testing.T) {
	deployment := &appsv1.Deployment{}
	require.NoError(t, failing(deployment))
	refused := func(pod string) *appsv1.Deployment {
		return &appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{
			Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate",
			Message: `pods "` + pod + `" is forbidden: exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2`,
		}}}}
	}
	require.ErrorContains(t, failing(refused("web-1")), "its pods are refused: pods is forbidden: exceeded quota: team")
	require.Equal(t, refusal(refused("web-1")), refusal(refused("web-2")), "the name of a pod is no news")

	buffer := func(kind, status, reason string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{
			map[string]any{"type": kind, "status": status, "reason": reason, "message": "no capacity in zone a"},
		}}}}
	}
	var lacks *unavailableError
	require.ErrorAs(t, served(&unstructured.Unstructured{Object: map[string]any{}}), &lacks)
	require.ErrorAs(t, served(buffer("ReadyForProvisioning", "False", "x")), &lacks)
	require.NoError(t, served(buffer("ReadyForProvisioning", "True", "x")))
	var missing *shortageError
	require.ErrorAs(t, served(buffer("Provisioning", "False", "InsufficientCapacity")), &missing)
	require.Equal(t, "InsufficientCapacity", missing.reason)
	require.Contains(t, missing.message, "no capacity in zone a")

	nodePool := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"limits": map[string]any{"nodes": int64(5)}}}}
	require.NoError(t, heldBack(nodePool, 5))
	require.ErrorAs(t, heldBack(nodePool, 6), &missing)
	require.Contains(t, missing.message, "6 nodes are wanted")
	require.Contains(t, missing.message, "is 5")
	require.ErrorContains(t, heldBack(buffer("Ready", "False", "NodeClassNotReady"), 1), "no capacity in zone a")

	status := &v1alpha1.WarmPoolStatus{Ready: 2, Desired: 5}
	told := ready(status, outcome{shortage: missing})
	require.Equal(t, "NodePoolLimits", told.Reason)
	require.Contains(t, told.Message, "2 of 5 replicas hold capacity, 0 of them warm; 6 nodes are wanted")
	status.Ready = 5
	require.Equal(t, metav1.ConditionTrue, ready(status, outcome{shortage: missing}).Status, "it has what it wants")
}

func TestANodePoolOptsIn(t *testing.T) {
	wp := &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "web"}}
	require.ErrorContains(t, notOptedIn("prod", "", wp), "kubectl annotate nodepool prod headstart.dev/warm-pool=team-a/web")
	require.ErrorContains(t, notOptedIn("prod", "team-b/web", wp), "lets WarmPool team-b/web size it")
}
