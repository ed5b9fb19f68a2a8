package readiness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

func (e *env) setLabel(node, key string, value any) {
	e.t.Helper()
	e.mergePatch(node, map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}})
}

func TestLabelThatLeavesTheSelectorFreesTheNode(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.setLabel(node.Name, "pool", "elsewhere")
	e.eventuallyTainted(node.Name, taintKey(rule), false)
	e.setLabel(node.Name, "pool", e.pool)
	e.eventuallyTainted(node.Name, taintKey(rule), true)
}

func TestLabelThatLeavesTheSelectorFreesTheNodeThatRegisteredHeld(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node(tainted(taintKey(rule)))
	require.Eventually(t, func() bool {
		return e.Get(t.Context(), client.ObjectKeyFromObject(rule), rule) == nil && rule.Status.HeldNodes == 1
	}, settleTime, pollTime, "the rule holds the node")
	e.setLabel(node.Name, "pool", "elsewhere")
	e.eventuallyTainted(node.Name, taintKey(rule), false)
}

func TestDeletedRuleFreesItsNodes(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	held, registered := e.node(), e.node(tainted(taintKey(rule)))
	e.eventuallyTainted(held.Name, taintKey(rule), true)
	require.NoError(t, e.Delete(t.Context(), rule))
	e.eventuallyTainted(held.Name, taintKey(rule), false)
	e.eventuallyTainted(registered.Name, taintKey(rule), false)
}

func TestRuleDeletedWhileTheControllerWasAwayFreesItsNodes(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	c := e.startController()
	held, registered := e.node(), e.node(tainted(taintKey(rule)))
	e.eventuallyTainted(held.Name, taintKey(rule), true)
	e.eventuallyClaimed(rule.Name)
	c.Stop()
	require.NoError(t, e.Delete(t.Context(), rule))
	require.True(t, hasTaint(e.get(held.Name), taintKey(rule)))
	e.startController()
	e.eventuallyTainted(held.Name, taintKey(rule), false)
	e.eventuallyTainted(registered.Name, taintKey(rule), false)
}

// TestLabelThatLeftWhileTheControllerWasAwayFreesTheNode is of nodes that registered with their taint: no record says whose
// it is, so the rule's timeout decides, of the rule that is there and of one that went too.
func TestLabelThatLeftWhileTheControllerWasAwayFreesTheNode(t *testing.T) {
	e := newEnv(t)
	impatient := func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.ReadinessTimeout, r.Spec.OnTimeout = &metav1.Duration{Duration: time.Second}, v1alpha1.TimeoutHold
	}
	stays, goes := e.rule(impatient), e.rule(impatient)
	patient := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Spec.ReadinessTimeout = &metav1.Duration{Duration: time.Hour} })
	c := e.startController()
	node := e.node(tainted(taintKey(stays)), tainted(taintKey(goes)), tainted(taintKey(patient)))
	e.eventuallyClaimed(stays.Name)
	e.eventuallyClaimed(goes.Name)
	c.Stop()
	e.setLabel(node.Name, "pool", "elsewhere")
	require.NoError(t, e.Delete(t.Context(), goes))
	e.startController()
	e.eventuallyTainted(node.Name, taintKey(stays), false)
	e.eventuallyTainted(node.Name, taintKey(goes), false)
	e.stays(node.Name, "its labels may be still to come", func(n *corev1.Node) bool { return hasTaint(n, taintKey(patient)) })
}

// eventuallyClaimed waits until the ledger names the rule.
func (e *env) eventuallyClaimed(rule string) {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		cm := &corev1.ConfigMap{}
		err := e.Get(e.t.Context(), client.ObjectKey{Namespace: namespace, Name: "headstart-readiness"}, cm)
		require.NoError(e.t, client.IgnoreNotFound(err))
		return containsName(cm.Data["claims"], rule)
	}, settleTime, pollTime)
}

// A leader that has lost its lease may write the ledger last, what it knew before.
func TestTheLedgerIsLookedAtOnceMore(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	e.eventuallyClaimed(rule.Name)
	cm := &corev1.ConfigMap{}
	require.NoError(t, e.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "headstart-readiness"}, cm))
	cm.Data["claims"] = "[]"
	require.NoError(t, e.Update(t.Context(), cm))
	e.eventuallyClaimed(rule.Name)
}

func TestRuleRecreatedByGitOpsDoesNotGateTheFleetAgain(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	done, waiting := e.node(), e.node()
	e.eventuallyTainted(done.Name, taintKey(rule), true)
	e.eventuallyTainted(waiting.Name, taintKey(rule), true)
	e.report(done.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(done.Name, taintKey(rule), false)
	e.report(done.Name, testCondition, corev1.ConditionFalse)

	require.NoError(t, e.Delete(t.Context(), rule))
	again := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Name = rule.Name })
	require.Equal(t, taintKey(rule), taintKey(again))
	e.stays(done.Name, "not gated again", func(n *corev1.Node) bool { return !hasTaint(n, taintKey(rule)) })
}

func TestNodeRecreatedUnderTheSameNameIsGatedAgain(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	released := e.eventuallyTainted(node.Name, taintKey(rule), false)

	require.NoError(t, e.Delete(t.Context(), node))
	again := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, Annotations: released.Annotations}}
	require.NoError(t, e.Create(t.Context(), again))
	e.eventuallyTainted(node.Name, taintKey(rule), true)
}

func (e *env) boot(node, id string) {
	e.t.Helper()
	target := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	patch := []byte(`{"status":{"nodeInfo":{"bootID":"` + id + `"}}}`)
	require.NoError(e.t, e.Status().Patch(e.t.Context(), target, client.RawPatch(types.StrategicMergePatchType, patch)))
}

func TestRebootGatesAgainOnlyWhereTheRuleAsksForIt(t *testing.T) {
	for name, rearm := range map[string]bool{"without re-arm": false, "with re-arm": true} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.pool = map[bool]string{false: "reboot-plain", true: "reboot-rearm"}[rearm]
			rule := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Spec.RearmOnReboot = rearm })
			e.startController()
			node := e.node()
			e.boot(node.Name, "boot-1")
			e.eventuallyTainted(node.Name, taintKey(rule), true)
			e.report(node.Name, testCondition, corev1.ConditionTrue)
			e.eventuallyTainted(node.Name, taintKey(rule), false)

			e.boot(node.Name, "boot-2")
			if !rearm {
				e.stays(node.Name, "a reboot is nothing to it", func(n *corev1.Node) bool { return !hasTaint(n, taintKey(rule)) })
				return
			}
			e.eventuallyTainted(node.Name, taintKey(rule), true)
			e.stays(node.Name, "a report of the boot before does not count", func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
			e.report(node.Name, testCondition, corev1.ConditionFalse)
			e.report(node.Name, testCondition, corev1.ConditionTrue)
			e.eventuallyTainted(node.Name, taintKey(rule), false)
		})
	}
}

func TestHandsOnTheTaint(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.setTaints(node.Name)
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
	e.setTaints(node.Name, corev1.Taint{Key: taintKey(rule), Value: "by-hand", Effect: corev1.TaintEffectNoSchedule})
	e.eventuallyTainted(node.Name, taintKey(rule), false)
}

func TestTwoRulesOnOneTaintThatDisagree(t *testing.T) {
	e := newEnv(t)
	first := e.rule()
	second := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.Taint.Key = taintKey(first)
		r.Spec.Conditions = []v1alpha1.RequiredCondition{{Type: "example.com/Second"}}
	})
	e.startController()
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(first), true)
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.stays(node.Name, "the union of holds wins", func(n *corev1.Node) bool { return hasTaint(n, taintKey(first)) })
	require.NotEqual(t, first.UID, second.UID)
	e.report(node.Name, "example.com/Second", corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(first), false)
}

func TestDryRunOnOffAndDelete(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.changeRule(rule, map[string]any{"dryRun": true})
	e.eventuallyTainted(node.Name, taintKey(rule), false)
	e.changeRule(rule, map[string]any{"dryRun": false})
	e.eventuallyTainted(node.Name, taintKey(rule), true)

	foreign := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Spec.DryRun = true })
	other := e.node(tainted(taintKey(foreign)))
	require.NoError(t, e.Delete(t.Context(), foreign))
	e.stays(other.Name, "a dry rule that goes takes nothing with it", func(n *corev1.Node) bool { return hasTaint(n, taintKey(foreign)) })
}

func TestChangedTaintIsMoved(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	held, registered := e.node(), e.node(tainted(taintKey(rule)))
	e.eventuallyTainted(held.Name, taintKey(rule), true)
	moved := readiness.TaintPrefix + e.pool + "-moved"
	e.changeRule(rule, map[string]any{"taint": map[string]any{"key": moved}})
	for _, node := range []string{held.Name, registered.Name} {
		n := e.eventuallyTainted(node, moved, true)
		require.False(t, hasTaint(n, taintKey(rule)), "moved in one patch")
	}
}

func TestConditionReportedBeforeTheRuleExists(t *testing.T) {
	e := newEnv(t)
	e.startController()
	key := readiness.TaintPrefix + e.pool
	node := e.node(tainted(key))
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Spec.Taint.Key = key })
	e.eventuallyTainted(node.Name, key, false)
}

func TestTimeoutReleasesAndSaysSo(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.ReadinessTimeout = &metav1.Duration{Duration: 3 * time.Second}
	})
	e.startController()
	node := e.node(tainted(taintKey(rule)))
	released := e.eventuallyTainted(node.Name, taintKey(rule), false)
	require.Contains(t, released.Annotations[readiness.AnnotationReadiness], `"state":"timedOut"`)
	require.Eventually(t, func() bool {
		events := &corev1.EventList{}
		require.NoError(t, e.List(t.Context(), events, client.MatchingFields{"involvedObject.name": node.Name, "reason": "ReadinessTimedOut"}))
		return len(events.Items) == 1 && events.Items[0].Type == corev1.EventTypeWarning
	}, settleTime, pollTime)
}
