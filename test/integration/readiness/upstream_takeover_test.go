package readiness_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness/compat/upstream"
)

// dropUpstreamLease takes away what a killed upstream leaves.
func (e *env) dropUpstreamLease() {
	e.drop(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: upstreamNamespace, Name: upstream.LeaseName}})
}

// refused says whether the rule's status says that upstream's controller runs.
func refused(r *upstream.NodeReadinessRule) bool {
	c := meta.FindStatusCondition(r.Status.Conditions, "Accepted")
	return c != nil && c.Status == metav1.ConditionFalse && strings.Contains(c.Message, "scale it to 0 replicas")
}

// TestTakeOverFromUpstreamAndBackDoesNotFlap moves a cluster with taints in place to Headstart and back, with an overlap
// of the two both times. No node's taint changes but by its own conditions.
func TestTakeOverFromUpstreamAndBackDoesNotFlap(t *testing.T) {
	e := newEnv(t)
	t.Cleanup(e.dropUpstreamLease)
	theirs := e.startUpstream(true)
	rule := e.upstreamRule()
	key := rule.Spec.Taint.Key
	history := e.watchTaint(key)
	held, done, late := e.node(), e.node(), e.node(tainted(key))
	for _, n := range []*corev1.Node{held, done, late} {
		e.eventuallyTainted(n.Name, key, true)
	}
	e.report(done.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(done.Name, key, false)
	e.report(done.Name, testCondition, corev1.ConditionFalse)

	// Both run: ours says that it does not.
	ours := e.startController(upstreamForm)
	e.eventuallyRule(rule.Name, "refused", refused)
	require.Eventually(t, func() bool {
		events := &corev1.EventList{}
		require.NoError(t, e.List(t.Context(), events, client.MatchingFields{"involvedObject.name": rule.Name, "reason": "Conflict"}))
		return len(events.Items) == 1 && strings.Contains(events.Items[0].Message, "held by upstream-0")
	}, settleTime, pollTime)

	// Upstream is killed; nothing happens until its lease has run out, then ours goes on where it was.
	theirs.Stop()
	e.report(held.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(held.Name, key, false)
	got := e.eventuallyRule(rule.Name, "no longer refused", func(r *upstream.NodeReadinessRule) bool {
		return !refused(r) && len(r.Status.NodeEvaluations) == 3
	})
	require.Equal(t, []string{upstream.Finalizer}, got.Finalizers)
	joined := e.node()
	e.eventuallyTainted(joined.Name, key, true)

	// And back: upstream starts while ours still runs.
	again := e.startUpstream(true)
	e.eventuallyRule(rule.Name, "refused again", refused)
	e.report(late.Name, testCondition, corev1.ConditionTrue)
	freed := e.eventuallyTainted(late.Name, key, false)
	require.NotContains(t, freed.Annotations, "headstart.dev/readiness", "upstream's write, not ours")
	ours.Stop()
	e.report(joined.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(joined.Name, key, false)
	e.stays(done.Name, "completed under upstream, completed under both", func(n *corev1.Node) bool { return !hasTaint(n, key) })
	for _, n := range []*corev1.Node{held, done, joined} {
		require.Equal(t, []bool{false, true, false}, history.of(n.Name))
	}
	require.Equal(t, []bool{true, false}, history.of(late.Name))
	require.NoError(t, e.Delete(t.Context(), rule))
	e.eventuallyRuleGone(rule.Name)
	again.Stop()
}

// TestUpstreamWithoutALeaseIsNoticedByItsWrites covers an upstream that runs with leader election off.
func TestUpstreamWithoutALeaseIsNoticedByItsWrites(t *testing.T) {
	e := newEnv(t)
	rule := e.upstreamRule()
	e.startController(upstreamForm)
	e.eventuallyRule(rule.Name, "in force", func(r *upstream.NodeReadinessRule) bool { return r.Status.ObservedGeneration == 1 })
	time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // managedFields have whole seconds
	theirs := e.startUpstream(false)
	e.node()
	got := e.eventuallyRule(rule.Name, "refused", refused)
	require.Contains(t, got.Status.Conditions[0].Message, `field manager "manager"`)
	theirs.Stop()
	e.eventuallyRule(rule.Name, "ours again", func(r *upstream.NodeReadinessRule) bool { return !refused(r) })
	node := e.node()
	e.eventuallyTainted(node.Name, rule.Spec.Taint.Key, true)
}

// TestUpstreamLeaseOfLongAgoIsNobody covers what an upstream that was removed leaves behind.
func TestUpstreamLeaseOfLongAgoIsNobody(t *testing.T) {
	e := newEnv(t)
	holder, renewed := "upstream-0", metav1.NewMicroTime(time.Now().Add(-time.Hour))
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: upstreamNamespace, Name: upstream.LeaseName}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &renewed}}
	require.NoError(t, e.Create(t.Context(), lease))
	t.Cleanup(e.dropUpstreamLease)
	rule := e.upstreamRule()
	e.startController(upstreamForm)
	begin := time.Now()
	e.eventuallyTainted(e.node().Name, rule.Spec.Taint.Key, true)
	require.Less(t, time.Since(begin), 10*time.Second, "no wait")
}
