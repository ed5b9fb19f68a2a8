package readiness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

const (
	driver = "ebs.csi.aws.com"
	gpu    = corev1.ResourceName("nvidia.com/gpu")
)

// needsAll requires one fact of every kind that stays in the API server when a node boots again or is made anew.
func needsAll(r *readiness.Rule) {
	r.Conditions = nil
	r.RearmOnReboot = true
	r.DaemonSets = []readiness.DaemonSet{{Namespace: "kube-system", Name: "cni"}}
	r.CSIDrivers = []string{driver}
	r.Resources = []readiness.Resource{{Name: gpu, Min: resource.MustParse("1")}}
}

// complete has them all; the node is older than each.
func complete(f *readiness.Facts) {
	ready := f.Node.CreationTimestamp.Add(10 * time.Second)
	f.Pods = []readiness.Pod{{Namespace: "kube-system", Name: "cni-1", DaemonSet: "cni", Ready: true, Changed: ready, CreatedAt: ready.Unix() - 5, StartedAt: ready.Unix() - 1}}
	f.CSIDrivers = []string{driver}
	f.CSINode = readiness.CSINode{Owner: f.Node.UID, CreatedAt: ready.Unix()}
	f.Node.Status.Allocatable = corev1.ResourceList{gpu: resource.MustParse("2"), corev1.ResourceCPU: resource.MustParse("4")}
}

func done(boot string) func(*readiness.Facts) {
	return func(f *readiness.Facts) {
		f.Record.Rules = map[types.UID]readiness.Entry{ruleUID: {Name: "r", State: readiness.EntryDone, Taint: readiness.TaintID(&makeRule().Taint), Boot: boot}}
	}
}

func TestEvidenceOfTheBootBeforeDoesNotCount(t *testing.T) {
	now := born.Add(5 * time.Minute)
	rule := makeRule(needsAll, func(r *readiness.Rule) {
		r.Resources = append(r.Resources, readiness.Resource{Name: corev1.ResourceCPU, Min: resource.MustParse("4")})
	})
	f := makeFacts(complete, done("boot-0"))
	f.OldBoot = f.Evidence()
	want := []readiness.ReasonCode{readiness.ReasonDaemonSetNotReady, readiness.ReasonCSIDriverMissing, readiness.ReasonResourceMissing}
	for _, renew := range []func(){
		func() { f.Pods[0].StartedAt = now.Unix() },
		func() { f.OldBoot = f.OldBoot.Without(readiness.DriverMark(driver)) },
		func() { f.Node.Status.Allocatable[gpu] = resource.MustParse("1") },
	} {
		d := readiness.Evaluate(rule, f, now)
		require.Equal(t, readiness.StateHeld, d.State)
		require.Equal(t, want, codes(d.Reasons))
		renew()
		want = want[1:]
	}
	require.Equal(t, readiness.StateReleased, readiness.Evaluate(rule, f, now).State)
	require.Equal(t, readiness.StateReleased, readiness.Evaluate(makeRule(needsAll), makeFacts(complete, done("boot-1")), now).State, "the same boot")
}

func codes(reasons []readiness.Reason) (out []readiness.ReasonCode) {
	for _, r := range reasons {
		out = append(out, r.Code)
	}
	return out
}

// TestACompletionNotesWhatItRestsOn is of a controller that does not see the node boot.
func TestACompletionNotesWhatItRestsOn(t *testing.T) {
	f := makeFacts(complete, taintedFact)
	c := plan(t, f, []*readiness.Rule{makeRule(needsAll)})
	require.Equal(t, readiness.UrgencyRelease, c.Urgency)
	f.Node.Annotations = map[string]string{readiness.AnnotationReadiness: c.Record}
	rec, err := readiness.DecodeRecord(f.Node)
	require.NoError(t, err)
	require.Equal(t, readiness.Marks{f.Pods[0].Mark()}, rec.Rules[ruleUID].Old)
}

func TestEvidenceOfAnEarlierNodeDoesNotCount(t *testing.T) {
	cases := map[string]struct {
		change func(*readiness.Facts)
		codes  []readiness.ReasonCode
	}{
		"all of this Node": {func(*readiness.Facts) {}, nil},
		"a pod that is older than the Node": {func(f *readiness.Facts) {
			old := f.Node.CreationTimestamp.Add(-time.Minute)
			f.Pods[0].CreatedAt, f.Pods[0].StartedAt, f.Pods[0].Changed = old.Unix(), old.Unix(), old
		}, []readiness.ReasonCode{readiness.ReasonDaemonSetNotReady}},
		"one that was started again": {func(f *readiness.Facts) {
			f.Pods[0].CreatedAt = f.Node.CreationTimestamp.Add(-time.Minute).Unix()
		}, nil},
		"a pod that was there when the Node was not": {func(f *readiness.Facts) { f.OldNode = readiness.Marks{f.Pods[0].Mark()} }, []readiness.ReasonCode{readiness.ReasonDaemonSetNotReady}},
		"a CSINode of another Node":                  {func(f *readiness.Facts) { f.CSINode.Owner = "another" }, []readiness.ReasonCode{readiness.ReasonCSIDriverMissing}},
		"a CSINode of nobody's that is older": {func(f *readiness.Facts) {
			f.CSINode = readiness.CSINode{CreatedAt: f.Node.CreationTimestamp.Unix() - 1}
		}, []readiness.ReasonCode{readiness.ReasonCSIDriverMissing}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			d := readiness.Evaluate(makeRule(needsAll), makeFacts(complete, tc.change), born.Add(2*time.Minute))
			require.Equal(t, tc.codes, codes(d.Reasons))
		})
	}
}

// TestARuleThatCannotLookIsUndecidedAndItsTimeRuns is of a right that is missing.
func TestARuleThatCannotLookIsUndecidedAndItsTimeRuns(t *testing.T) {
	pending, refused := readiness.Blind{Required: true}, readiness.Blind{Required: true, Why: "cannot list csinodes: forbidden"}
	continuous := func(r *readiness.Rule) { r.Continuous = true }
	cases := map[string]struct {
		rule  func(*readiness.Rule)
		blind readiness.Blind
		facts []func(*readiness.Facts)
		after time.Duration
		want  readiness.State
	}{
		"held, refused":              {blind: refused, facts: []func(*readiness.Facts){taintedFact}, want: readiness.StateHeld},
		"held, not listed yet":       {blind: pending, facts: []func(*readiness.Facts){taintedFact}, want: readiness.StateHeld},
		"held, time is up":           {blind: refused, facts: []func(*readiness.Facts){taintedFact}, after: time.Hour, want: readiness.StateTimedOut},
		"not listed yet, time is up": {blind: pending, facts: []func(*readiness.Facts){taintedFact}, after: time.Hour, want: readiness.StateTimedOut},
		"a new node, refused":        {blind: refused, want: readiness.StateHeld},
		"a new node, not listed yet": {blind: pending, want: readiness.StateUndecided},
		"continuous":                 {rule: continuous, blind: refused, want: readiness.StateUndecided},
		"continuous, held":           {rule: continuous, blind: refused, facts: []func(*readiness.Facts){taintedFact}, want: readiness.StateHeld},
		"a machine that would be deleted": {rule: func(r *readiness.Rule) { r.OnTimeout = v1alpha1.TimeoutDeleteNodeClaim }, blind: refused, facts: []func(*readiness.Facts){taintedFact, func(f *readiness.Facts) {
			f.Node.OwnerReferences = []metav1.OwnerReference{{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: "c", UID: "c"}}
		}}, after: time.Hour, want: readiness.StateTimedOut},
		"done before":                    {blind: refused, facts: []func(*readiness.Facts){done("boot-1")}, want: readiness.StateReleased},
		"only its labels cannot be seen": {blind: readiness.Blind{Optional: true}, facts: []func(*readiness.Facts){reported(corev1.ConditionTrue)}, want: readiness.StateReleased},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := makeRule()
			if tc.rule != nil {
				tc.rule(r)
			}
			f := makeFacts(append(tc.facts, func(f *readiness.Facts) { f.Blind = func(*readiness.Rule) readiness.Blind { return tc.blind } })...)
			d := readiness.Evaluate(r, f, born.Add(90*time.Second).Add(tc.after))
			require.Equal(t, tc.want, d.State)
			if d.State == readiness.StateHeld && tc.blind.Why != "" {
				require.Contains(t, d.Reasons[0].Message, "cannot list csinodes: forbidden")
			}
		})
	}
}

// TestAnotherRuleDecidesBesideOneThatCannotLook is of two rules on one node.
func TestAnotherRuleDecidesBesideOneThatCannotLook(t *testing.T) {
	sighted, blind := makeRule(), second(otherTaint)
	f := makeFacts(reported(corev1.ConditionTrue), func(f *readiness.Facts) {
		f.Node.Spec.Taints = []corev1.Taint{sighted.Taint, blind.Taint}
		f.Blind = func(r *readiness.Rule) readiness.Blind {
			return readiness.Blind{Required: r == blind, Why: "forbidden"}
		}
	})
	c := plan(t, f, []*readiness.Rule{sighted, blind})
	require.Equal(t, []corev1.Taint{blind.Taint}, c.Taints)
}

// TestAChangedValueIsTakenOver is of nodes that are held while the rule's taint gets another value.
func TestAChangedValueIsTakenOver(t *testing.T) {
	booting := makeRule(func(r *readiness.Rule) { r.Taint.Value = "booting" })
	c := plan(t, makeFacts(taintedFact), []*readiness.Rule{booting})
	require.Equal(t, []corev1.Taint{booting.Taint}, c.Taints)
	c = plan(t, makeFacts(taintedFact), []*readiness.Rule{booting, second()})
	require.False(t, c.TaintsChanged, "another rule that holds it gives it the value that it has")
}

// TestAllDaemonSetsCountWhateverKeepsThemAwayForNow is of one that waits for another startup taint.
func TestAllDaemonSetsCountWhateverKeepsThemAwayForNow(t *testing.T) {
	r := makeRule(func(r *readiness.Rule) {
		r.Conditions, r.DaemonSets = nil, []readiness.DaemonSet{{Namespace: "kube-system", Name: "*"}}
	})
	late := &readiness.DaemonSetSpec{Namespace: "kube-system", Name: "late", Template: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: r.Taint.Key, Operator: corev1.TolerationOpExists}}}}
	cases := map[string]struct {
		key  string
		held bool
	}{
		"another rule's":  {"readiness.k8s.io/other", true},
		"a driver's":      {"ebs.csi.aws.com/agent-not-ready", true},
		"an autoscaler's": {"startup-taint.cluster-autoscaler.kubernetes.io/x", true},
		"a rule's own":    {"example.com/of-a-rule", true},
		"one that stays":  {"example.com/dedicated", false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := makeFacts(func(f *readiness.Facts) {
				f.Node.Spec.Taints = []corev1.Taint{r.Taint, {Key: tc.key, Effect: corev1.TaintEffectNoSchedule}}
				f.DaemonSets = func(string) []*readiness.DaemonSetSpec { return []*readiness.DaemonSetSpec{late} }
				f.Startup = func(t *corev1.Taint) bool { return t.Key == "example.com/of-a-rule" }
			})
			d := readiness.Evaluate(r, f, born.Add(90*time.Second))
			if tc.held {
				require.Equal(t, []readiness.ReasonCode{readiness.ReasonDaemonSetMissing}, codes(d.Reasons))
				return
			}
			require.NotContains(t, codes(d.Reasons), readiness.ReasonDaemonSetNotReady)
		})
	}
}

// TestOurOwnConditionsAgeWithTheNode is of reports that our agent does not repeat.
func TestOurOwnConditionsAgeWithTheNode(t *testing.T) {
	const images = readiness.ConditionImagesReady
	r := makeRule(func(r *readiness.Rule) {
		r.Continuous, r.Conditions = true, []readiness.Condition{{Type: images, Required: corev1.ConditionTrue, MaxAge: time.Minute}}
	})
	at := func(ready corev1.ConditionStatus, after time.Duration) readiness.Decision {
		f := makeFacts(func(f *readiness.Facts) {
			f.Node.Status.Conditions = []corev1.NodeCondition{{Type: images, Status: corev1.ConditionTrue}}
			if ready != "" {
				f.Node.Status.Conditions = append(f.Node.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: ready})
			}
			f.Seen = map[corev1.NodeConditionType]time.Time{images: born, corev1.NodeReady: born.Add(time.Hour)}
		})
		return readiness.Evaluate(r, f, born.Add(time.Hour).Add(after))
	}
	for _, there := range []corev1.ConditionStatus{"", corev1.ConditionTrue, corev1.ConditionFalse} {
		d := at(there, 24*time.Hour)
		require.Equal(t, readiness.StateReleased, d.State, "the node is there: Ready %q", there)
		require.Zero(t, d.Recheck)
	}
	d := at(corev1.ConditionUnknown, 59*time.Second)
	require.Equal(t, readiness.StateReleased, d.State)
	require.Equal(t, born.Add(time.Hour).Add(time.Minute), d.Recheck)
	require.Equal(t, readiness.StateHeld, at(corev1.ConditionUnknown, time.Minute).State)
}
