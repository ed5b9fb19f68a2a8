package readiness_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness/v1alpha1"
)

func TestDevicesOfADRADriver(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.Conditions, r.Spec.ResourceSlices = nil, []v1alpha1.RequiredResourceSlices{{Driver: "gpu.example.com", Min: 2}}
	})
	e.startController()
	node := e.node(tainted(taintKey(rule)))
	slice := func(name string, generation, total int64, devices ...string) {
		s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{
			Name: e.pool + name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
		}}
		s.Spec = resourcev1.ResourceSliceSpec{Driver: "gpu.example.com", NodeName: &node.Name, Pool: resourcev1.ResourcePool{Name: node.Name, Generation: generation, ResourceSliceCount: total}}
		for _, d := range devices {
			s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: d})
		}
		require.NoError(t, e.Create(t.Context(), s))
		t.Cleanup(func() { e.drop(&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: s.Name}}) })
	}
	slice("-old", 1, 1, "a", "b", "c")
	e.eventuallyTainted(node.Name, taintKey(rule), false)

	rearmed := e.node(tainted(taintKey(rule)))
	node = rearmed
	slice("-1", 2, 2, "a")
	slice("-stale", 1, 1, "b", "c", "d")
	e.stays(node.Name, "the pool is not complete", func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
	slice("-2", 2, 2, "b")
	e.eventuallyTainted(node.Name, taintKey(rule), false)
}

// TestObjectsOfTheCluster is of an object that the role may read, and of one that it may not, which stops its rule alone.
func TestObjectsOfTheCluster(t *testing.T) {
	e := newEnv(t)
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: e.pool},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch"}}},
	}
	require.NoError(t, e.Create(t.Context(), role))
	t.Cleanup(func() { e.drop(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: e.pool}}) })
	bound := binding("ClusterRole", e.pool, "")
	require.NoError(t, e.Create(t.Context(), bound))
	t.Cleanup(func() { e.drop(bound) })
	requires := func(o v1alpha1.RequiredObject) *v1alpha1.NodeReadinessRule {
		return e.rule(func(r *v1alpha1.NodeReadinessRule) {
			r.Spec.Conditions, r.Spec.Objects = nil, []v1alpha1.RequiredObject{o}
		})
	}
	flag := requires(v1alpha1.RequiredObject{APIVersion: "v1", Kind: "ConfigMap", Namespace: "default", Name: e.pool, Expression: "object.data.ready == 'true'"})
	absent := requires(v1alpha1.RequiredObject{APIVersion: "example.com/v1", Kind: "Widget", Name: "w"})
	refused := requires(v1alpha1.RequiredObject{APIVersion: "v1", Kind: "ConfigMap", Namespace: "default", Name: e.pool, Expression: "object.data."})
	other := e.rule()
	e.startController()
	node := e.node(tainted(taintKey(flag)), tainted(taintKey(absent)), tainted(taintKey(other)))
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(other), false)
	e.eventuallyCondition(refused, "Accepted", metav1.ConditionFalse, "parse object.expression")

	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: e.pool}, Data: map[string]string{"ready": "false"}}
	require.NoError(t, e.Create(t.Context(), cm))
	t.Cleanup(func() { e.drop(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: e.pool}}) })
	e.stays(node.Name, "the expression is false", func(n *corev1.Node) bool { return hasTaint(n, taintKey(flag)) })
	cm.Data["ready"] = "true"
	require.NoError(t, e.Update(t.Context(), cm))
	e.eventuallyTainted(node.Name, taintKey(flag), false)
	require.True(t, hasTaint(e.get(node.Name), taintKey(absent)), "its kind is not served")
}

// TestSuspendedRuleTouchesNothing until it goes on.
func TestSuspendedRuleTouchesNothing(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Spec.Suspend = true })
	e.startController()
	held, free := e.node(tainted(taintKey(rule))), e.node()
	e.report(held.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyCondition(rule, "Accepted", metav1.ConditionTrue, "suspended")
	e.stays(held.Name, "a suspended rule releases nobody", func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
	require.False(t, hasTaint(e.get(free.Name), taintKey(rule)))
	e.changeRule(rule, map[string]any{"suspend": false})
	e.eventuallyTainted(held.Name, taintKey(rule), false)
	e.eventuallyTainted(free.Name, taintKey(rule), true)
}

// TestNodesThatAreNoMachinesAreLeftAlone is of Fargate, where no DaemonSet runs.
func TestNodesThatAreNoMachinesAreLeftAlone(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	machine := e.node()
	fargate := e.node(func(n *corev1.Node) { n.Labels["eks.amazonaws.com/compute-type"] = "fargate" })
	e.eventuallyTainted(machine.Name, taintKey(rule), true)
	e.stays(fargate.Name, "no DaemonSet runs there", func(n *corev1.Node) bool { return !hasTaint(n, taintKey(rule)) })
}
