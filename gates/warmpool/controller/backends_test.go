package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates/v1alpha1"
)

// Another backend's leftovers are looked for until the spec was once in force: a status alone does not say that it was.
func TestSeenThrough(t *testing.T) {
	wp := &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Status: v1alpha1.WarmPoolStatus{ObservedGeneration: 2}}
	accepted := condition(conditionAccepted, false, reasonNoWorkload, "")
	accepted.ObservedGeneration = 2
	wp.Status.Conditions = []metav1.Condition{accepted}
	require.False(t, seenThrough(wp), "its workload was missing")
	wp.Status.Conditions[0].Status = metav1.ConditionTrue
	require.True(t, seenThrough(wp))
	wp.Generation = 3
	require.False(t, seenThrough(wp))
}

// A NodePool has one size, so one WarmPool alone may set it: the eldest.
func TestStaticNodePoolHasOneMaster(t *testing.T) {
	static := func(name string, age time.Duration, change func(*v1alpha1.WarmPool)) v1alpha1.WarmPool {
		wp := v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(start.Add(-age))}}
		wp.Spec.Backend, wp.Spec.Template.NodeSelector = v1alpha1.BackendStaticNodePool, map[string]string{labelNodePool: "static"}
		if change != nil {
			change(&wp)
		}
		return wp
	}
	mine := static("mine", time.Minute, nil)
	require.Empty(t, masterOf([]v1alpha1.WarmPool{
		mine, static("younger", 0, nil),
		static("other-backend", time.Hour, func(wp *v1alpha1.WarmPool) { wp.Spec.Backend = v1alpha1.BackendPausePods }),
		static("other-pool", time.Hour, func(wp *v1alpha1.WarmPool) { wp.Spec.Template.NodeSelector[labelNodePool] = "other" }),
		static("ending", time.Hour, func(wp *v1alpha1.WarmPool) { wp.DeletionTimestamp = &metav1.Time{Time: start} }),
	}, &mine))
	require.Equal(t, "a/elder", masterOf([]v1alpha1.WarmPool{mine, static("elder", time.Hour, nil)}, &mine))
	require.Equal(t, "a/m", masterOf([]v1alpha1.WarmPool{mine, static("m", time.Minute, nil)}, &mine), "of one second, the first by name")
}

func TestPriorityClassThatHurts(t *testing.T) {
	never, preempts := corev1.PreemptNever, corev1.PreemptLowerPriority
	class := func(value int32, policy *corev1.PreemptionPolicy) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Value: value, PreemptionPolicy: policy}
	}
	require.NoError(t, usable(class(-10, &never)))
	require.ErrorContains(t, usable(class(0, &never)), "below 0")
	require.ErrorContains(t, usable(class(-1, &preempts)), "preemptionPolicy: Never")
	require.ErrorContains(t, usable(class(-1, nil)), "preemptionPolicy: Never", "the default is to preempt")
	require.ErrorContains(t, usable(class(-33_554_432, &never)), "empty", "Karpenter would take the node for empty")
}
