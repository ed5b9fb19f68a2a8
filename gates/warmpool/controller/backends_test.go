package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
