package warmpool_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/gates/warmpool/controller"
)

// A pool fills, a burst takes its replicas by preemption, it refills where there is room, and every figure says so.
func TestBurstPreemptsAndPoolRefills(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	kubelets(t, plane, 0)
	startController(t, plane.Config(), time.Now)
	node(t, c, ns+"-1", ns, 4)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) {
		s.Min = 4
		s.Budget = &v1alpha1.WarmPoolBudget{CostPerReplicaHour: "0.17"}
	})
	got := eventually(t, c, wp, "four replicas ready", ready(4))
	require.EqualValues(t, 4, got.Status.ReadyWarm, "without spec.warm a ready replica is warm")
	require.Equal(t, "0.68", got.Status.CostPerHour)
	require.Equal(t, "min is 4", got.Status.Reason)

	pause := pods(t, c, ns, map[string]string{controller.LabelPool: "web"})
	require.Len(t, pause, 4)
	require.EqualValues(t, -10, *pause[0].Spec.Priority)
	require.Equal(t, corev1.PreemptNever, *pause[0].Spec.PreemptionPolicy)
	require.Zero(t, *pause[0].Spec.TerminationGracePeriodSeconds)
	require.Equal(t, "registry.example/eks/pause:3.10", pause[0].Spec.Containers[0].Image, "an image that the node has")

	workload(t, c, ns, "burst", 3, nil)
	require.Eventually(t, func() bool {
		running := 0
		for _, pod := range pods(t, c, ns, map[string]string{"app": "burst"}) {
			if pod.Status.Phase == corev1.PodRunning {
				running++
			}
		}
		return running == 3
	}, patience, tick, "the burst took the replicas' place: %s", lazy(func() string { return dump(t, c, ns) }))
	got = eventually(t, c, wp, "three replicas were consumed", func(wp *v1alpha1.WarmPool) bool {
		return wp.Status.Consumed == 3 && wp.Status.Ready == 1
	})
	require.True(t, conditionIs("Ready", metav1.ConditionFalse, "Filling")(got))

	<-time.After(1100 * time.Millisecond) // creation times have whole seconds
	node(t, c, ns+"-2", ns, 4)
	got = eventually(t, c, wp, "the pool is full again", ready(4))
	require.EqualValues(t, 3, got.Status.Consumed, "a refill is no consumption")
	require.NotNil(t, got.Status.RefillP95)
	require.NotNil(t, got.Status.LeadP95, "the new node is younger than the replicas that waited for it")
}

// A replica is warm where the rule is done and the images are, and nowhere else.
func TestReadyWarmAsksForRuleAndImages(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	kubelets(t, plane, 0)
	startController(t, plane.Config(), time.Now)
	cold, warm := node(t, c, ns+"-cold", ns, 1), node(t, c, ns+"-warm", ns, 1)
	policy := prepullPolicy(t, c, ns, "registry.example/app:v1")
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) {
		s.Min = 2
		s.Warm = &v1alpha1.WarmPoolWarm{Rule: "bootstrap", Prepull: policy}
	})
	got := eventually(t, c, wp, "both ready", ready(2))
	require.Zero(t, got.Status.ReadyWarm)
	warmNode(t, c, cold, "another-rule", "registry.example/app:v1")
	warmNode(t, c, warm, "bootstrap", "registry.example/app:v1")
	eventually(t, c, wp, "one is warm", func(wp *v1alpha1.WarmPool) bool { return wp.Status.ReadyWarm == 1 })
	warmNode(t, c, cold, "bootstrap", "registry.example/other:v1")
	warmNode(t, c, warm, "bootstrap")
	eventually(t, c, wp, "images were lost", func(wp *v1alpha1.WarmPool) bool { return wp.Status.ReadyWarm == 0 })
	warmNode(t, c, cold, "bootstrap", "registry.example/app:v1")
	eventually(t, c, wp, "the other one is warm", func(wp *v1alpha1.WarmPool) bool { return wp.Status.ReadyWarm == 1 })
}

// A shrinking pool gives up the replicas whose nodes then hold nothing.
func TestShrinkEmptiesWholeNodes(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	kubelets(t, plane, 0)
	startController(t, plane.Config(), time.Now)
	node(t, c, ns+"-1", ns, 3)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) { s.Min = 2 })
	eventually(t, c, wp, "two on the first node", ready(2))
	workload(t, c, ns, "resident", 1, nil)
	require.Eventually(t, func() bool {
		resident := pods(t, c, ns, map[string]string{"app": "resident"})
		return len(resident) == 1 && resident[0].Spec.NodeName == ns+"-1"
	}, patience, tick)
	node(t, c, ns+"-2", ns, 3)
	scale(t, c, wp, "min", 5)
	eventually(t, c, wp, "three more on the second node", ready(5))

	scale(t, c, wp, "min", 2)
	eventually(t, c, wp, "two are left", ready(2))
	for _, pod := range pods(t, c, ns, map[string]string{controller.LabelPool: "web"}) {
		require.Equal(t, ns+"-1", pod.Spec.NodeName, "the second node is empty and can go")
	}
}

// kubectl scale writes spec.min, within what max allows.
func TestScaleSubresource(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	startController(t, plane.Config(), time.Now)
	wp := warmPool(t, c, ns, nil)
	scaled := unstructuredScale{}
	require.NoError(t, scaled.set(t, c, wp, 7))
	got := eventually(t, c, wp, "desired follows", func(wp *v1alpha1.WarmPool) bool { return wp.Status.Desired == 7 })
	require.EqualValues(t, 7, got.Spec.Min)
	require.Equal(t, controller.LabelPool+"=web", got.Status.Selector)
	require.ErrorContains(t, scaled.set(t, c, wp, 21), "min must not be above max")
}

// The budget is a lid on everything, and the pool says that it is.
func TestBudgetLimits(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	startController(t, plane.Config(), time.Now)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) {
		s.Min = 10
		s.Budget = &v1alpha1.WarmPoolBudget{CostPerReplicaHour: "0.50", MaxPerHour: "2"}
	})
	got := eventually(t, c, wp, "the budget pays for four", func(wp *v1alpha1.WarmPool) bool { return wp.Status.Desired == 4 })
	require.True(t, conditionIs("Limited", metav1.ConditionTrue, "Budget")(got))
}

// Nothing is touched that is not the pool's.
func TestForeignDeploymentIsLeftAlone(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	startController(t, plane.Config(), time.Now)
	foreign := workload(t, c, ns, "web", 0, nil)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) { s.Min = 3 })
	eventually(t, c, wp, "a conflict is reported", conditionIs("Ready", metav1.ConditionFalse, "Conflict"))
	var after appsv1.Deployment
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(foreign), &after))
	require.Equal(t, foreign.UID, after.UID)
	require.Zero(t, *after.Spec.Replicas)
}

// A priority class that would make pause pods outrank work is refused; one that is missing is asked for.
func TestPriorityClassIsChecked(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	startController(t, plane.Config(), time.Now)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) { s.Min, s.Template.PriorityClassName = 1, ns })
	eventually(t, c, wp, "missing", conditionIs("Ready", metav1.ConditionFalse, "PriorityClass"))
	never := corev1.PreemptNever
	require.NoError(t, c.Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: ns}, Value: -5, PreemptionPolicy: &never}))
	require.NoError(t, c.Patch(t.Context(), wp, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"min":2}}`))))
	eventually(t, c, wp, "there", conditionIs("Ready", metav1.ConditionFalse, "Filling"))
}
