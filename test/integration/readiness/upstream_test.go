package readiness_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/upstream"
	"headstart.dev/readiness/controller"
)

// upstreamForm is for env.startController: it reads upstream's rules beside our own.
func upstreamForm(_ *ctrl.Options, c *controller.Config, _ *rest.Config) {
	c.Forms = []readiness.Form{readiness.FormNative, readiness.FormUpstream}
	c.Version = "test"
}

// upstreamRule is a rule of upstream's form for the test's own pool that requires testCondition.
func (e *env) upstreamRule(change ...func(*upstream.NodeReadinessRule)) *upstream.NodeReadinessRule {
	e.t.Helper()
	name := fmt.Sprintf("%s-u%d", e.pool, e.seq.Add(1))
	r := &upstream.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: upstream.NodeReadinessRuleSpec{
		Conditions:      []upstream.ConditionRequirement{{Type: testCondition, RequiredStatus: corev1.ConditionTrue}},
		EnforcementMode: upstream.EnforcementModeBootstrapOnly,
		Taint:           corev1.Taint{Key: readiness.TaintPrefix + name, Value: readiness.DefaultTaintValue, Effect: corev1.TaintEffectNoSchedule},
		NodeSelector:    metav1.LabelSelector{MatchLabels: map[string]string{"pool": e.pool}},
	}}
	for _, c := range change {
		c(r)
	}
	require.NoError(e.t, e.Create(e.t.Context(), r))
	e.t.Cleanup(func() { e.dropUpstreamRule(r.Name) })
	return r
}

// dropUpstreamRule deletes a rule for which no controller may run any more.
func (e *env) dropUpstreamRule(name string) {
	r := &upstream.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: name}}
	e.drop(r)
	ctx, cancel := e.afterTest()
	defer cancel()
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
	if err := client.IgnoreNotFound(e.Patch(ctx, r, patch)); err != nil {
		e.t.Errorf("clean up: %v", err)
	}
}

// eventuallyRule waits until the rule is as it should be.
func (e *env) eventuallyRule(name, what string, is func(*upstream.NodeReadinessRule) bool) *upstream.NodeReadinessRule {
	e.t.Helper()
	got := &upstream.NodeReadinessRule{}
	require.Eventually(e.t, func() bool {
		require.NoError(e.t, e.Get(e.t.Context(), client.ObjectKey{Name: name}, got))
		return is(got)
	}, settleTime, pollTime, what)
	return got
}

// eventuallyRuleGone waits until the rule has been deleted, its finalizer too.
func (e *env) eventuallyRuleGone(name string) {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		err := e.Get(e.t.Context(), client.ObjectKey{Name: name}, &upstream.NodeReadinessRule{})
		return err != nil && client.IgnoreNotFound(err) == nil
	}, settleTime, pollTime, "rule %s is gone", name)
}

func bootstrapKey(r *upstream.NodeReadinessRule) string {
	return readiness.BootstrapPrefix + string(r.UID)
}

func continuousMode(r *upstream.NodeReadinessRule) {
	r.Spec.EnforcementMode = upstream.EnforcementModeContinuous
}

func TestUpstreamRuleHoldsAndReleases(t *testing.T) {
	e := newEnv(t)
	e.startController(upstreamForm)
	rule := e.upstreamRule()
	key := rule.Spec.Taint.Key
	node := e.node()
	e.eventuallyTainted(node.Name, key, true)
	e.eventuallyRule(rule.Name, "the finalizer", func(r *upstream.NodeReadinessRule) bool {
		return slices.Contains(r.Finalizers, "readiness.node.x-k8s.io/cleanup-taints")
	})
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	released := e.eventuallyTainted(node.Name, key, false)
	require.JSONEq(t, `{"rule-name":"`+rule.Name+`"}`, released.Annotations["readiness.k8s.io/bootstrap-completed-"+string(rule.UID)], "in the patch that releases")
	got := e.eventuallyRule(rule.Name, "the status", func(r *upstream.NodeReadinessRule) bool {
		return len(r.Status.NodeEvaluations) == 1 && r.Status.NodeEvaluations[0].TaintStatus == upstream.TaintStatusAbsent
	})
	require.Equal(t, got.Generation, got.Status.ObservedGeneration)
	require.Equal(t, []string{node.Name}, got.Status.AppliedNodes)
	require.Equal(t, []upstream.ConditionEvaluationResult{{Type: testCondition, CurrentStatus: "True", RequiredStatus: "True"}}, got.Status.NodeEvaluations[0].ConditionResults)
	require.Nil(t, got.Status.Conditions, "nothing is wrong")
	e.eventuallyEvents(node.Name, map[string]string{
		"TaintAdded":   fmt.Sprintf("AddTaint Taint '%s:NoSchedule' added by rule '%s'", key, rule.Name),
		"TaintRemoved": fmt.Sprintf("RemoveTaint Taint '%s:NoSchedule' removed by rule '%s'", key, rule.Name),
	})

	e.report(node.Name, testCondition, corev1.ConditionFalse)
	e.stays(node.Name, "a bootstrap that is over is over", func(n *corev1.Node) bool { return !hasTaint(n, key) })
	require.NoError(t, e.Delete(t.Context(), rule))
	e.eventuallyRuleGone(rule.Name)
}

// eventuallyEvents waits until the events about the node are those of want, by reason: action and message.
func (e *env) eventuallyEvents(node string, want map[string]string) {
	e.t.Helper()
	require.EventuallyWithT(e.t, func(c *assert.CollectT) {
		events := &corev1.EventList{}
		require.NoError(c, e.List(e.t.Context(), events, client.MatchingFields{"involvedObject.name": node}))
		got := map[string]string{}
		for i := range events.Items {
			ev := &events.Items[i]
			require.Equal(c, "node-readiness-controller", ev.ReportingController)
			require.Equal(c, corev1.EventTypeNormal, ev.Type)
			got[ev.Reason] = ev.Action + " " + ev.Message
		}
		require.Equal(c, want, got)
	}, settleTime, pollTime)
}

func TestUpstreamTaintFromRegistrationIsAdopted(t *testing.T) {
	e := newEnv(t)
	e.startController(upstreamForm)
	rule := e.upstreamRule()
	e.eventuallyRule(rule.Name, "in force", func(r *upstream.NodeReadinessRule) bool { return r.Status.ObservedGeneration == 1 })
	node := e.node(tainted(rule.Spec.Taint.Key))
	e.eventuallyEvents(node.Name, map[string]string{
		"TaintAdopted": fmt.Sprintf("AdoptTaint Taint '%s:NoSchedule' is now managed by rule '%s'", rule.Spec.Taint.Key, rule.Name),
	})
	require.Equal(t, node.ResourceVersion, e.get(node.Name).ResourceVersion, "nothing is written")
}

func TestUpstreamContinuousRuleHoldsAgain(t *testing.T) {
	e := newEnv(t)
	e.startController(upstreamForm)
	rule := e.upstreamRule(continuousMode, func(r *upstream.NodeReadinessRule) {
		r.Spec.ConditionPolicy = upstream.ConditionPolicyAnyOf
		r.Spec.Conditions = append(r.Spec.Conditions, upstream.ConditionRequirement{Type: "example.com/Other", RequiredStatus: corev1.ConditionFalse})
	})
	node := e.node(tainted(rule.Spec.Taint.Key))
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	freed := e.eventuallyTainted(node.Name, rule.Spec.Taint.Key, false)
	require.NotContains(t, freed.Annotations, bootstrapKey(rule))
	e.report(node.Name, testCondition, corev1.ConditionFalse)
	e.eventuallyTainted(node.Name, rule.Spec.Taint.Key, true)
	e.report(node.Name, "example.com/Other", corev1.ConditionFalse)
	e.eventuallyTainted(node.Name, rule.Spec.Taint.Key, false)
}

// TestUpstreamRuleHoldsNodesOlderThanItself is what upstream does, with one annotation for those that need no taint.
func TestUpstreamRuleHoldsNodesOlderThanItself(t *testing.T) {
	e := newEnv(t)
	e.startController(upstreamForm)
	waiting, ready := e.node(), e.node()
	e.report(ready.Name, testCondition, corev1.ConditionTrue)
	rule := e.upstreamRule()
	e.eventuallyTainted(waiting.Name, rule.Spec.Taint.Key, true)
	e.eventually(ready.Name, "completed without a taint", func(n *corev1.Node) bool { return n.Annotations[bootstrapKey(rule)] != "" })
	require.False(t, hasTaint(e.get(ready.Name), rule.Spec.Taint.Key))
}

func TestUpstreamAnnotationOfEitherFormMeansCompleted(t *testing.T) {
	e := newEnv(t)
	rule := e.upstreamRule()
	legacy := e.node(func(n *corev1.Node) {
		n.Annotations = map[string]string{readiness.BootstrapPrefix + rule.Name: "true"}
	})
	today := e.node(func(n *corev1.Node) {
		n.Annotations = map[string]string{bootstrapKey(rule): `{"rule-name":"` + rule.Name + `"}`}
	})
	e.startController(upstreamForm)
	e.eventually(legacy.Name, "the key of today is added", func(n *corev1.Node) bool { return n.Annotations[bootstrapKey(rule)] != "" })
	for _, n := range []*corev1.Node{legacy, today} {
		e.stays(n.Name, "not held again", func(n *corev1.Node) bool { return !hasTaint(n, rule.Spec.Taint.Key) })
	}
	require.Equal(t, today.ResourceVersion, e.get(today.Name).ResourceVersion, "nothing is written where nothing is missing")
}

func TestUpstreamDryRunOnOffAndDelete(t *testing.T) {
	e := newEnv(t)
	e.startController(upstreamForm)
	rule := e.upstreamRule(continuousMode, func(r *upstream.NodeReadinessRule) { r.Spec.DryRun = true })
	node, ready := e.node(), e.node(tainted(rule.Spec.Taint.Key))
	e.report(ready.Name, testCondition, corev1.ConditionTrue)
	got := e.eventuallyRule(rule.Name, "the preview", func(r *upstream.NodeReadinessRule) bool {
		p := r.Status.DryRunResults
		return p != nil && *p.AffectedNodes == 2 && *p.TaintsToAdd == 1 && *p.TaintsToRemove == 1 && *p.RiskyOperations == 1
	})
	require.Equal(t, "would add 1 taints, would remove 1 taints, 1 nodes have missing conditions", got.Status.DryRunResults.Summary)
	require.False(t, hasTaint(e.get(node.Name), rule.Spec.Taint.Key))
	require.True(t, hasTaint(e.get(ready.Name), rule.Spec.Taint.Key))
	e.eventuallyRule(rule.Name, "the preview follows the nodes", func(r *upstream.NodeReadinessRule) bool {
		e.report(node.Name, testCondition, corev1.ConditionTrue)
		return r.Status.DryRunResults.Summary == "would remove 1 taints"
	})

	e.dryRun(rule.Name, false)
	e.eventuallyTainted(ready.Name, rule.Spec.Taint.Key, false)
	e.eventuallyRule(rule.Name, "no preview", func(r *upstream.NodeReadinessRule) bool { return r.Status.DryRunResults == nil })
	e.dryRun(rule.Name, true)
	e.setTaints(ready.Name, rule.Spec.Taint)
	require.NoError(t, e.Delete(t.Context(), rule))
	e.eventuallyRuleGone(rule.Name)
	e.stays(ready.Name, "a dry rule that goes takes nothing with it", func(n *corev1.Node) bool { return hasTaint(n, rule.Spec.Taint.Key) })
}

func (e *env) dryRun(rule string, on bool) {
	e.t.Helper()
	target := &upstream.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: rule}}
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"dryRun":%t}}`, on))
	require.NoError(e.t, e.Patch(e.t.Context(), target, patch))
}

func TestUpstreamRuleDeletedWhileTheControllerWasAwayFreesItsNodes(t *testing.T) {
	e := newEnv(t)
	rule := e.upstreamRule()
	c := e.startController(upstreamForm)
	held, registered := e.node(), e.node(tainted(rule.Spec.Taint.Key))
	e.eventuallyTainted(held.Name, rule.Spec.Taint.Key, true)
	e.eventuallyRule(rule.Name, "the finalizer", func(r *upstream.NodeReadinessRule) bool { return len(r.Finalizers) == 1 })
	c.Stop()
	require.NoError(t, e.Delete(t.Context(), rule))
	e.startController(upstreamForm)
	e.eventuallyRuleGone(rule.Name)
	for _, n := range []string{held.Name, registered.Name} {
		require.False(t, hasTaint(e.get(n), rule.Spec.Taint.Key), "before the rule has gone")
	}
}

func TestUpstreamRuleRecreatedByGitOpsDoesNotGateTheFleetAgain(t *testing.T) {
	e := newEnv(t)
	rule := e.upstreamRule()
	e.startController(upstreamForm)
	done := e.node(tainted(rule.Spec.Taint.Key))
	e.report(done.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(done.Name, rule.Spec.Taint.Key, false)
	e.report(done.Name, testCondition, corev1.ConditionFalse)
	require.NoError(t, e.Delete(t.Context(), rule))
	e.eventuallyRuleGone(rule.Name)
	again := e.upstreamRule(func(r *upstream.NodeReadinessRule) { r.Name, r.Spec.Taint = rule.Name, rule.Spec.Taint })
	e.eventually(done.Name, "completed under the new UID", func(n *corev1.Node) bool { return n.Annotations[bootstrapKey(again)] != "" })
	e.stays(done.Name, "not gated again", func(n *corev1.Node) bool { return !hasTaint(n, rule.Spec.Taint.Key) })
}

func TestUpstreamStatusListsAtMostAHundredNodesHeldOnesFirst(t *testing.T) {
	e := newEnv(t)
	rule := e.upstreamRule(continuousMode)
	for range upstream.MaxListedNodes + 20 {
		e.report(e.node().Name, testCondition, corev1.ConditionTrue)
	}
	last := e.node()
	e.startController(upstreamForm)
	e.eventuallyTainted(last.Name, rule.Spec.Taint.Key, true)
	got := e.eventuallyRule(rule.Name, "the list", func(r *upstream.NodeReadinessRule) bool {
		return len(r.Status.NodeEvaluations) > 0 && r.Status.NodeEvaluations[0].TaintStatus == upstream.TaintStatusPresent
	})
	require.Len(t, got.Status.NodeEvaluations, upstream.MaxListedNodes)
	require.Len(t, got.Status.AppliedNodes, upstream.MaxListedNodes)
	require.Equal(t, last.Name, got.Status.NodeEvaluations[0].NodeName)
}

// TestUpstreamMetricsKeepTheirNames scrapes what a dashboard of upstream's asks for.
func TestUpstreamMetricsKeepTheirNames(t *testing.T) {
	e := newEnv(t)
	registry := prometheus.NewRegistry()
	e.startController(upstreamForm, func(_ *ctrl.Options, c *controller.Config, _ *rest.Config) {
		c.Registerer, c.UpstreamNodeStates = registry, true
	})
	rule := e.upstreamRule()
	node, waiting := e.node(), e.node()
	e.eventuallyTainted(node.Name, rule.Spec.Taint.Key, true)
	e.eventuallyTainted(waiting.Name, rule.Spec.Taint.Key, true)
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, rule.Spec.Taint.Key, false)
	want := map[string]string{
		"node_readiness_rules_total":                                "",
		"node_readiness_rules":                                      "dry_run,enforcement_mode",
		"node_readiness_build_info":                                 "version",
		"node_readiness_taint_operations_total":                     "operation,rule",
		"node_readiness_evaluation_duration_seconds":                "rule",
		"node_readiness_bootstrap_completed_total":                  "rule",
		"node_readiness_reconciliation_latency_seconds":             "operation,rule",
		"node_readiness_enforcement_latency_seconds":                "operation,rule",
		"node_readiness_nodes_by_state":                             "rule,state",
		"node_readiness_condition_failures_total":                   "condition,rule",
		"node_readiness_rule_last_reconciliation_timestamp_seconds": "rule",
		"node_readiness_rule_nodes":                                 "rule,state",
		"node_readiness_rule_matched_nodes":                         "rule",
		"node_readiness_blocked_nodes":                              "condition,rule",
	}
	require.Eventually(t, func() bool {
		families, err := registry.Gather()
		require.NoError(t, err)
		got := map[string]string{}
		for _, f := range families {
			labels := ""
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels += "," + l.GetName()
			}
			got[f.GetName()] = labels
		}
		for name, labels := range want {
			if have, ok := got[name]; !ok || (labels != "" && have != ","+labels) || (labels == "" && have != "") {
				return false
			}
		}
		return true
	}, settleTime, pollTime)
}
