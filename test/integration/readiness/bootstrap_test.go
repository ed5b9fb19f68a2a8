package readiness_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

func TestNodeIsHeldAndReleased(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node()
	held := e.eventuallyTainted(node.Name, taintKey(rule), true)
	require.Contains(t, held.Annotations, readiness.AnnotationReadiness)

	e.report(node.Name, testCondition, corev1.ConditionTrue)
	released := e.eventuallyTainted(node.Name, taintKey(rule), false)
	require.Contains(t, released.Annotations[readiness.AnnotationReadiness], `"state":"done"`)

	e.report(node.Name, testCondition, corev1.ConditionFalse)
	e.stays(node.Name, "a bootstrap that is over is over", func(n *corev1.Node) bool { return !hasTaint(n, taintKey(rule)) })

	require.Eventually(t, func() bool {
		got := &v1alpha1.NodeReadinessRule{}
		require.NoError(t, e.Get(t.Context(), client.ObjectKeyFromObject(rule), got))
		s := got.Status
		return s.MatchedNodes == 1 && s.ReleasedNodes == 1 && s.HeldNodes == 0 && s.ObservedGeneration == got.Generation
	}, settleTime, pollTime)
}

func TestTaintFromRegistrationCostsNoWriteToHold(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node(tainted(taintKey(rule)))
	e.stays(node.Name, "nothing is written", func(n *corev1.Node) bool { return n.ResourceVersion == node.ResourceVersion })
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
}

func TestLabelsFollowTheAgentsConditions(t *testing.T) {
	e := newEnv(t)
	e.startController()
	node := e.node(func(n *corev1.Node) { n.Labels[readiness.LabelGPUReady] = "true" })
	e.eventually(node.Name, "a label that the node gave itself goes", func(n *corev1.Node) bool { return n.Labels[readiness.LabelGPUReady] == "" })
	e.report(node.Name, string(readiness.ConditionCNIReady), corev1.ConditionTrue)
	e.eventually(node.Name, "cni-ready", func(n *corev1.Node) bool { return n.Labels[readiness.LabelCNIReady] == "true" })
	e.report(node.Name, string(readiness.ConditionCNIReady), corev1.ConditionFalse)
	e.eventually(node.Name, "not cni-ready", func(n *corev1.Node) bool { _, ok := n.Labels[readiness.LabelCNIReady]; return !ok })
}
