package readiness_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// TestARecordAuthorisesNothing is of a node that writes its own record.
func TestARecordAuthorisesNothing(t *testing.T) {
	quarantine := corev1.Taint{Key: "security.example.com/quarantine", Effect: corev1.TaintEffectNoExecute}
	claimed := corev1.Taint{Key: "readiness.k8s.io/gone", Effect: corev1.TaintEffectNoSchedule}
	labelled := func(r *readiness.Rule) {
		r.Optional = []readiness.DaemonSet{{Namespace: "a", Name: "b", ReadyLabel: "example.com/ready"}}
	}
	gone := makeRule(func(r *readiness.Rule) {
		r.UID, r.Name, r.Taint, r.Selector = "gone", "gone", claimed, nil
		labelled(r)
	})
	cases := map[string]struct {
		taint   corev1.Taint
		label   string
		rules   []*readiness.Rule
		retired []readiness.Claim
		goes    bool
	}{
		"what nobody names":   {taint: quarantine, label: "node-restriction.kubernetes.io/tenant"},
		"beside a rule":       {taint: quarantine, label: "node-restriction.kubernetes.io/tenant", rules: []*readiness.Rule{makeRule(labelled)}},
		"beside a claim":      {taint: quarantine, label: "node-restriction.kubernetes.io/tenant", retired: []readiness.Claim{{Rule: gone}}},
		"what a claim names":  {taint: claimed, label: "example.com/ready", retired: []readiness.Claim{{Rule: gone}}, goes: true},
		"a label of the rule": {taint: makeRule().Taint, label: "example.com/ready", rules: []*readiness.Rule{makeRule(labelled)}, goes: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := makeFacts(reported(corev1.ConditionTrue), func(f *readiness.Facts) {
				f.Node.Spec.Taints = []corev1.Taint{tc.taint}
				f.Node.Labels[tc.label] = "true"
				f.Record = readiness.Record{Node: nodeUID, Labels: []string{tc.label}, Rules: map[types.UID]readiness.Entry{
					"x": {Name: "x", State: readiness.EntryHeld, Taint: readiness.TaintID(&tc.taint)},
				}}
			})
			c := plan(t, f, tc.rules, tc.retired...)
			require.Equal(t, tc.goes, c.TaintsChanged)
			require.Equal(t, tc.goes, len(c.RemoveLabels) > 0, "%v", c.RemoveLabels)
		})
	}
}

// TestAHoldThatBeginsInTheFutureEndsNonetheless is of a record that would hold its node for ever.
func TestAHoldThatBeginsInTheFutureEndsNonetheless(t *testing.T) {
	r := makeRule(func(r *readiness.Rule) { r.Continuous = true })
	f := makeFacts(taintedFact, func(f *readiness.Facts) {
		f.Record.Rules = map[types.UID]readiness.Entry{ruleUID: {Name: "r", State: readiness.EntryHeld, At: born.AddDate(100, 0, 0).Unix()}}
	})
	d := readiness.Evaluate(r, f, born.Add(r.Timeout).Add(r.Timeout))
	require.Equal(t, readiness.StateTimedOut, d.State)
}
