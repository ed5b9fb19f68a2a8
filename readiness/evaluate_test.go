package readiness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

const (
	condition = "example.com/Ready"
	ruleUID   = types.UID("rule-uid")
	nodeUID   = types.UID("node-uid")
)

// born is when the rule was made; the node comes a minute later.
var born = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func makeRule(change ...func(*readiness.Rule)) *readiness.Rule {
	r := &readiness.Rule{
		Name: "r", UID: ruleUID, Form: readiness.FormNative, Created: born,
		Selector:   labels.SelectorFromSet(labels.Set{"pool": "a"}),
		Conditions: []readiness.Condition{{Type: condition, Required: corev1.ConditionTrue}},
		Taint:      corev1.Taint{Key: "readiness.k8s.io/r", Value: "pending", Effect: corev1.TaintEffectNoSchedule},
		Timeout:    10 * time.Minute, OnTimeout: v1alpha1.TimeoutRelease,
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func makeFacts(change ...func(*readiness.Facts)) *readiness.Facts {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: "n", UID: nodeUID, Labels: map[string]string{"pool": "a"}, CreationTimestamp: metav1.NewTime(born.Add(time.Minute)),
	}}
	n.Status.NodeInfo.BootID = "boot-1"
	f := &readiness.Facts{Node: n, Record: readiness.Record{Node: nodeUID}, LiveRule: func(uid types.UID) bool { return uid == ruleUID }}
	for _, c := range change {
		c(f)
	}
	return f
}

func reported(status corev1.ConditionStatus) func(*readiness.Facts) {
	return func(f *readiness.Facts) {
		f.Node.Status.Conditions = append(f.Node.Status.Conditions, corev1.NodeCondition{Type: condition, Status: status})
	}
}

func taintedFact(f *readiness.Facts) { f.Node.Spec.Taints = []corev1.Taint{makeRule().Taint} }

func entry(e readiness.Entry) func(*readiness.Facts) {
	return func(f *readiness.Facts) {
		if e.Name == "" {
			e.Name, e.Taint = "r", "readiness.k8s.io/r:NoSchedule"
		}
		f.Record.Rules = map[types.UID]readiness.Entry{ruleUID: e}
	}
}

func older(f *readiness.Facts) {
	f.Node.CreationTimestamp = metav1.NewTime(born.Add(-time.Hour))
}

func continuous(r *readiness.Rule) { r.Continuous = true }

func TestEvaluate(t *testing.T) {
	soon := born.Add(2 * time.Minute)
	cases := map[string]struct {
		rule  []func(*readiness.Rule)
		facts []func(*readiness.Facts)
		now   time.Time
		want  readiness.State
		code  readiness.ReasonCode
	}{
		"a node of another pool is not bound": {facts: []func(*readiness.Facts){func(f *readiness.Facts) { f.Node.Labels["pool"] = "b" }}, want: readiness.StateUnbound},
		"a node whose annotation names the rule is bound": {facts: []func(*readiness.Facts){func(f *readiness.Facts) {
			f.Node.Labels = nil
			f.Node.Annotations = map[string]string{"headstart.dev/rule": "r"}
		}}, want: readiness.StateHeld, code: readiness.ReasonConditionMissing},
		"the guide's annotation binds too": {facts: []func(*readiness.Facts){func(f *readiness.Facts) {
			f.Node.Labels = nil
			f.Node.Annotations = map[string]string{"nodereadiness.k8s.io/rule": "r"}
		}}, want: readiness.StateHeld, code: readiness.ReasonConditionMissing},
		"a condition that nobody reported holds":          {want: readiness.StateHeld, code: readiness.ReasonConditionMissing},
		"a condition that is False holds":                 {facts: []func(*readiness.Facts){reported(corev1.ConditionFalse)}, want: readiness.StateHeld, code: readiness.ReasonConditionStatus},
		"a condition that is True releases":               {facts: []func(*readiness.Facts){reported(corev1.ConditionTrue)}, want: readiness.StateReleased},
		"a default stands for a missing report":           {rule: []func(*readiness.Rule){continuous, func(r *readiness.Rule) { r.Conditions[0].Default = corev1.ConditionTrue }}, want: readiness.StateReleased},
		"Unknown may be required, and absence is Unknown": {rule: []func(*readiness.Rule){func(r *readiness.Rule) { r.Conditions[0].Required = corev1.ConditionUnknown }}, want: readiness.StateReleased},
		"any of several is enough where the rule says so": {rule: []func(*readiness.Rule){continuous, func(r *readiness.Rule) {
			r.AnyOf = true
			r.Conditions = append(r.Conditions, readiness.Condition{Type: "x", Required: corev1.ConditionTrue})
		}}, facts: []func(*readiness.Facts){reported(corev1.ConditionTrue)}, want: readiness.StateReleased},
		"a bootstrap that is over stays over":                {facts: []func(*readiness.Facts){reported(corev1.ConditionFalse), entry(readiness.Entry{State: readiness.EntryDone, Boot: "boot-1"})}, want: readiness.StateReleased},
		"a continuous rule holds again":                      {rule: []func(*readiness.Rule){continuous}, facts: []func(*readiness.Facts){reported(corev1.ConditionFalse), entry(readiness.Entry{State: readiness.EntryDone, Boot: "boot-1"})}, now: born.Add(24 * time.Hour), want: readiness.StateHeld, code: readiness.ReasonConditionStatus},
		"a reboot alone does not hold again":                 {facts: []func(*readiness.Facts){reported(corev1.ConditionFalse), entry(readiness.Entry{State: readiness.EntryDone, Boot: "boot-0"})}, want: readiness.StateReleased},
		"a reboot holds again where the rule asks for it":    {rule: []func(*readiness.Rule){func(r *readiness.Rule) { r.RearmOnReboot = true }}, facts: []func(*readiness.Facts){reported(corev1.ConditionFalse), entry(readiness.Entry{State: readiness.EntryDone, Boot: "boot-0"})}, now: born.Add(24 * time.Hour), want: readiness.StateHeld, code: readiness.ReasonConditionStatus},
		"a bootID that came late is no reboot":               {rule: []func(*readiness.Rule){func(r *readiness.Rule) { r.RearmOnReboot = true }}, facts: []func(*readiness.Facts){reported(corev1.ConditionFalse), entry(readiness.Entry{State: readiness.EntryDone})}, want: readiness.StateReleased},
		"a node older than the rule is ignored":              {facts: []func(*readiness.Facts){older}, want: readiness.StateIgnored},
		"but not where it carries the taint":                 {facts: []func(*readiness.Facts){older, taintedFact}, want: readiness.StateHeld, code: readiness.ReasonConditionMissing},
		"nor where the rule says Enforce":                    {rule: []func(*readiness.Rule){func(r *readiness.Rule) { r.EnforceExisting = true }}, facts: []func(*readiness.Facts){older}, want: readiness.StateHeld, code: readiness.ReasonConditionMissing},
		"a node that Karpenter counts on gets no taint":      {facts: []func(*readiness.Facts){func(f *readiness.Facts) { f.Node.Labels["karpenter.sh/initialized"] = "true" }}, want: readiness.StateIgnored},
		"time is up: Release":                                {facts: []func(*readiness.Facts){taintedFact}, now: born.Add(12 * time.Minute), want: readiness.StateTimedOut, code: readiness.ReasonConditionMissing},
		"time is up: Hold":                                   {rule: []func(*readiness.Rule){func(r *readiness.Rule) { r.OnTimeout = v1alpha1.TimeoutHold }}, facts: []func(*readiness.Facts){taintedFact}, now: born.Add(12 * time.Minute), want: readiness.StateHeld, code: readiness.ReasonConditionMissing},
		"time is up: no NodeClaim to delete releases":        {rule: []func(*readiness.Rule){func(r *readiness.Rule) { r.OnTimeout = v1alpha1.TimeoutDeleteNodeClaim }}, facts: []func(*readiness.Facts){taintedFact}, now: born.Add(12 * time.Minute), want: readiness.StateTimedOut, code: readiness.ReasonConditionMissing},
		"a node that timed out stays released":               {facts: []func(*readiness.Facts){entry(readiness.Entry{State: readiness.EntryTimedOut})}, want: readiness.StateTimedOut, code: readiness.ReasonConditionMissing},
		"a rule made after the node counts time from itself": {facts: []func(*readiness.Facts){older, taintedFact}, now: born.Add(9 * time.Minute), want: readiness.StateHeld, code: readiness.ReasonConditionMissing},
		"a report that is too old counts as Unknown":         {rule: []func(*readiness.Rule){func(r *readiness.Rule) { r.Conditions[0].MaxAge = time.Minute }}, facts: []func(*readiness.Facts){reported(corev1.ConditionTrue), func(f *readiness.Facts) { f.Seen = map[corev1.NodeConditionType]time.Time{condition: born} }}, want: readiness.StateHeld, code: readiness.ReasonConditionStale},
		"a report is as old as it was seen, not as it claims": {rule: []func(*readiness.Rule){func(r *readiness.Rule) { r.Conditions[0].MaxAge = time.Minute }}, facts: []func(*readiness.Facts){reported(corev1.ConditionTrue), func(f *readiness.Facts) {
			f.Seen = map[corev1.NodeConditionType]time.Time{condition: soon}
			f.Node.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(born.Add(-time.Hour))
		}}, want: readiness.StateReleased},
		"a CSI driver that is missing holds":       {rule: []func(*readiness.Rule){only(func(r *readiness.Rule) { r.CSIDrivers = []string{"d"} })}, want: readiness.StateHeld, code: readiness.ReasonCSIDriverMissing},
		"a CSI driver that is registered releases": {rule: []func(*readiness.Rule){only(func(r *readiness.Rule) { r.CSIDrivers = []string{"d"} })}, facts: []func(*readiness.Facts){func(f *readiness.Facts) { f.CSIDrivers = []string{"d"} }}, want: readiness.StateReleased},
		"a resource that is not allocatable holds": {rule: []func(*readiness.Rule){only(gpus("2"))}, facts: []func(*readiness.Facts){allocatable("1")}, want: readiness.StateHeld, code: readiness.ReasonResourceMissing},
		"a resource that is allocatable releases":  {rule: []func(*readiness.Rule){only(gpus("2"))}, facts: []func(*readiness.Facts){allocatable("2")}, want: readiness.StateReleased},
		"a hold is inherited by a rule of the same name": {facts: []func(*readiness.Facts){older, func(f *readiness.Facts) {
			f.Record.Rules = map[types.UID]readiness.Entry{"old-uid": {Name: "r", Taint: "readiness.k8s.io/r:NoSchedule", State: readiness.EntryDone}}
		}}, want: readiness.StateReleased},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			now := tc.now
			if now.IsZero() {
				now = soon
			}
			d := readiness.Evaluate(makeRule(tc.rule...), makeFacts(tc.facts...), now)
			require.Equal(t, tc.want, d.State)
			if tc.code != "" {
				require.Len(t, d.Reasons, 1)
				require.Equal(t, tc.code, d.Reasons[0].Code)
				require.NotEmpty(t, d.Reasons[0].Message)
			} else {
				require.Empty(t, d.Reasons)
			}
		})
	}
}

// only drops the rule's condition, so that the requirement that change adds stands alone.
func only(change func(*readiness.Rule)) func(*readiness.Rule) {
	return func(r *readiness.Rule) { r.Conditions = nil; change(r) }
}

func gpus(least string) func(*readiness.Rule) {
	return func(r *readiness.Rule) {
		r.Resources = []readiness.Resource{{Name: "nvidia.com/gpu", Min: resource.MustParse(least)}}
	}
}

func allocatable(n string) func(*readiness.Facts) {
	return func(f *readiness.Facts) {
		f.Node.Status.Allocatable = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse(n)}
	}
}

func TestEvaluateSaysWhenToLookAgain(t *testing.T) {
	d := readiness.Evaluate(makeRule(), makeFacts(), born.Add(2*time.Minute))
	require.Equal(t, born.Add(11*time.Minute), d.Recheck, "the timeout, from registration")

	seen := born.Add(90 * time.Second)
	aging := makeRule(func(r *readiness.Rule) { r.Conditions[0].MaxAge = time.Minute })
	d = readiness.Evaluate(aging, makeFacts(reported(corev1.ConditionTrue), func(f *readiness.Facts) {
		f.Seen = map[corev1.NodeConditionType]time.Time{condition: seen}
	}), born.Add(2*time.Minute))
	require.Equal(t, seen.Add(time.Minute), d.Recheck, "the report grows too old")
}

func TestEvaluateDeletesTheNodeClaimOnTimeout(t *testing.T) {
	r := makeRule(func(r *readiness.Rule) { r.OnTimeout = v1alpha1.TimeoutDeleteNodeClaim })
	f := makeFacts(taintedFact, func(f *readiness.Facts) {
		f.Node.OwnerReferences = []metav1.OwnerReference{{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: "c", UID: "u"}}
	})
	d := readiness.Evaluate(r, f, born.Add(12*time.Minute))
	require.Equal(t, readiness.StateHeld, d.State)
	require.True(t, d.DeleteNodeClaim)
}
