package readiness_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

func plan(t *testing.T, f *readiness.Facts, rules []*readiness.Rule, retired ...readiness.Claim) readiness.Change {
	t.Helper()
	now := born.Add(2 * time.Minute)
	var decisions []readiness.Decision
	for _, r := range rules {
		decisions = append(decisions, readiness.Evaluate(r, f, now))
	}
	c, err := readiness.Plan(f, decisions, retired, now)
	require.NoError(t, err)
	return c
}

func second(change ...func(*readiness.Rule)) *readiness.Rule {
	return makeRule(append([]func(*readiness.Rule){func(r *readiness.Rule) {
		r.Name, r.UID = "s", "second-uid"
		r.Conditions = []readiness.Condition{{Type: "example.com/Other", Required: corev1.ConditionTrue}}
	}}, change...)...)
}

func otherTaint(r *readiness.Rule) { r.Taint.Key = "readiness.k8s.io/s" }

func TestPlanHoldsForAllRulesInOnePatch(t *testing.T) {
	c := plan(t, makeFacts(), []*readiness.Rule{makeRule(), second(otherTaint)})
	require.Equal(t, readiness.UrgencyHold, c.Urgency)
	require.Len(t, c.Taints, 2)
	require.True(t, c.RecordChanged)
	require.Len(t, c.Transitions, 2)
}

func TestPlanWritesNothingWhereTheTaintIsThere(t *testing.T) {
	require.Equal(t, readiness.UrgencyNone, plan(t, makeFacts(taintedFact), []*readiness.Rule{makeRule()}).Urgency)
}

func TestPlanReleasesAndRecordsInOnePatch(t *testing.T) {
	c := plan(t, makeFacts(taintedFact, reported(corev1.ConditionTrue)), []*readiness.Rule{makeRule()})
	require.Equal(t, readiness.UrgencyRelease, c.Urgency)
	require.Empty(t, c.Taints)
	var rec readiness.Record
	require.NoError(t, json.Unmarshal([]byte(c.Record), &rec))
	require.Equal(t, nodeUID, rec.Node)
	require.Equal(t, readiness.EntryDone, rec.Rules[ruleUID].State)
	require.Equal(t, "boot-1", rec.Rules[ruleUID].Boot)
}

func TestPlanKeepsOtherTaints(t *testing.T) {
	foreign := corev1.Taint{Key: "example.com/x", Effect: corev1.TaintEffectNoExecute}
	sameKey := corev1.Taint{Key: "readiness.k8s.io/r", Effect: corev1.TaintEffectNoExecute}
	c := plan(t, makeFacts(taintedFact, reported(corev1.ConditionTrue), func(f *readiness.Facts) {
		f.Node.Spec.Taints = append([]corev1.Taint{foreign}, append(f.Node.Spec.Taints, sameKey)...)
	}), []*readiness.Rule{makeRule()})
	require.Equal(t, []corev1.Taint{foreign, sameKey}, c.Taints)
}

func TestPlanKeepsATaintThatAnotherRuleHolds(t *testing.T) {
	c := plan(t, makeFacts(taintedFact, reported(corev1.ConditionTrue)), []*readiness.Rule{makeRule(), second()})
	require.False(t, c.TaintsChanged, "the union of holds wins")
}

func TestPlanTakesOffWhatIsItsOwn(t *testing.T) {
	held := entry(readiness.Entry{State: readiness.EntryHeld})
	left := func(f *readiness.Facts) { f.Node.Labels["pool"] = "b" }
	cases := map[string]struct {
		facts   []func(*readiness.Facts)
		rules   []*readiness.Rule
		retired []readiness.Claim
		want    readiness.Urgency
	}{
		"the label left the selector":                 {facts: []func(*readiness.Facts){taintedFact, held, left}, rules: []*readiness.Rule{makeRule()}, want: readiness.UrgencyRelease},
		"the rule is gone":                            {facts: []func(*readiness.Facts){taintedFact, held}, retired: []readiness.Claim{{Rule: makeRule()}}, want: readiness.UrgencyRelease},
		"the rule is gone and nobody remembers it":    {facts: []func(*readiness.Facts){taintedFact, held}, want: readiness.UrgencyNone},
		"the rule is gone and the node registered so": {facts: []func(*readiness.Facts){taintedFact}, retired: []readiness.Claim{{Rule: makeRule()}}, want: readiness.UrgencyRelease},
		"the rule runs dry now":                       {facts: []func(*readiness.Facts){taintedFact, held}, rules: []*readiness.Rule{makeRule(func(r *readiness.Rule) { r.DryRun = true })}, retired: []readiness.Claim{{Rule: makeRule()}}, want: readiness.UrgencyRelease},
		"a bootstrap is over and somebody taints":     {facts: []func(*readiness.Facts){taintedFact, entry(readiness.Entry{State: readiness.EntryDone, Boot: "boot-1"})}, rules: []*readiness.Rule{makeRule()}, want: readiness.UrgencyRelease},
		"somebody else's taint of a rule that is dry": {facts: []func(*readiness.Facts){taintedFact}, rules: []*readiness.Rule{makeRule(func(r *readiness.Rule) { r.DryRun = true })}, want: readiness.UrgencyNone},
		"somebody else's taint without any rule":      {facts: []func(*readiness.Facts){taintedFact}, want: readiness.UrgencyNone},
		"a record of another node says nothing": {facts: []func(*readiness.Facts){taintedFact, func(f *readiness.Facts) {
			f.Node.Annotations = map[string]string{readiness.AnnotationReadiness: `{"node":"another","rules":{"x":{"name":"r","state":"held","taint":"readiness.k8s.io/r:NoSchedule"}}}`}
			f.Record, _ = readiness.DecodeRecord(f.Node)
		}}, want: readiness.UrgencyNone},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := makeFacts(tc.facts...)
			f.LiveRule = func(uid types.UID) bool { return len(tc.rules) > 0 && uid == ruleUID }
			require.Equal(t, tc.want, plan(t, f, tc.rules, tc.retired...).Urgency)
		})
	}
}

func TestPlanMovesAChangedTaint(t *testing.T) {
	c := plan(t, makeFacts(taintedFact, entry(readiness.Entry{State: readiness.EntryHeld})), []*readiness.Rule{makeRule(otherTaint)}, readiness.Claim{Rule: makeRule()})
	require.Len(t, c.Taints, 1)
	require.Equal(t, "readiness.k8s.io/s", c.Taints[0].Key)
}

func TestPlanLeavesKarpentersNodesAlone(t *testing.T) {
	ready := []func(*readiness.Facts){taintedFact, reported(corev1.ConditionTrue)}
	for _, key := range []string{"karpenter.sh/disrupted", "karpenter.sh/rebooting"} {
		f := makeFacts(ready...)
		f.Node.Spec.Taints = append(f.Node.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		require.False(t, plan(t, f, []*readiness.Rule{makeRule()}).TaintsChanged, key)
	}
}

func TestPlanIsSettledAfterItself(t *testing.T) {
	rules := []*readiness.Rule{makeRule(), second(otherTaint, continuous)}
	f := makeFacts(reported(corev1.ConditionTrue))
	for range 2 {
		c := plan(t, f, rules)
		if c.TaintsChanged {
			f.Node.Spec.Taints = c.Taints
		}
		if c.RecordChanged {
			f.Node.Annotations = map[string]string{readiness.AnnotationReadiness: c.Record}
			f.Record, _ = readiness.DecodeRecord(f.Node)
		}
	}
	f.LiveRule = func(types.UID) bool { return true }
	require.Equal(t, readiness.UrgencyNone, plan(t, f, rules).Urgency, "a restart with nothing changed writes nothing")
}

func TestDecodeRecordRefusesHostileText(t *testing.T) {
	f := makeFacts(func(f *readiness.Facts) {
		f.Node.Annotations = map[string]string{readiness.AnnotationReadiness: "{" + string(make([]byte, readiness.MaxRecordBytes))}
	})
	rec, err := readiness.DecodeRecord(f.Node)
	require.ErrorContains(t, err, "at most")
	require.Empty(t, rec.Rules)
	f.Node.Annotations[readiness.AnnotationReadiness] = "no json"
	_, err = readiness.DecodeRecord(f.Node)
	require.Error(t, err)
}

func TestExplainNeedsNodeAndRulesOnly(t *testing.T) {
	ds := second(otherTaint, func(r *readiness.Rule) {
		r.Conditions = nil
		r.DaemonSets = []readiness.DaemonSet{{Namespace: "kube-system", Name: "aws-node"}}
	})
	f := makeFacts(taintedFact)
	got := readiness.Explain(f.Node, []*readiness.Rule{ds, makeRule(), makeRule(func(r *readiness.Rule) { r.Selector = nil; r.Name = "unbound" })}, born.Add(2*time.Minute))
	require.Len(t, got, 2)
	require.Equal(t, readiness.StateHeld, got[0].State)
	require.True(t, got[0].Tainted)
	require.Equal(t, readiness.ReasonConditionMissing, got[0].Reasons[0].Code)
	require.Equal(t, born.Add(11*time.Minute), got[0].Deadline)
	require.Equal(t, "Release", got[0].OnTimeout)
	require.Equal(t, readiness.ReasonDaemonSetUnknown, got[1].Reasons[0].Code)
}
