package readiness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/readiness"
)

// TestATaintOnANodeThatTheRuleDoesNotGovernGoesWithTheTimeout is of a node that registered with its taint and whose label
// left the selector while no controller looked: nothing but the taint tells of it.
func TestATaintOnANodeThatTheRuleDoesNotGovernGoesWithTheTimeout(t *testing.T) {
	left := func(f *readiness.Facts) { f.Node.Labels["pool"] = "b" }
	old := func(f *readiness.Facts) { f.Node.CreationTimestamp = metav1.NewTime(born.Add(-time.Hour)) }
	cases := map[string]struct {
		facts   []func(*readiness.Facts)
		rules   []*readiness.Rule
		retired []readiness.Claim
		gone    bool
	}{
		"labels may still come":        {[]func(*readiness.Facts){taintedFact, left}, []*readiness.Rule{makeRule()}, nil, false},
		"time is up":                   {[]func(*readiness.Facts){taintedFact, left, old}, []*readiness.Rule{makeRule()}, nil, true},
		"dry run":                      {[]func(*readiness.Facts){taintedFact, left, old}, []*readiness.Rule{makeRule(func(r *readiness.Rule) { r.DryRun = true })}, nil, false},
		"left to another controller":   {[]func(*readiness.Facts){taintedFact, left, old}, []*readiness.Rule{makeRule(func(r *readiness.Rule) { r.Foreign = true })}, nil, false},
		"no timeout, as of upstream's": {[]func(*readiness.Facts){taintedFact, left, old}, []*readiness.Rule{makeRule(func(r *readiness.Rule) { r.Timeout = 0 })}, nil, false},
		"another effect": {[]func(*readiness.Facts){left, old, func(f *readiness.Facts) {
			f.Node.Spec.Taints = []corev1.Taint{{Key: "readiness.k8s.io/r", Effect: corev1.TaintEffectNoExecute}}
		}}, []*readiness.Rule{makeRule()}, nil, false},
		"held by another rule of that taint": {[]func(*readiness.Facts){taintedFact, left, old}, []*readiness.Rule{
			makeRule(), second(func(r *readiness.Rule) {
				r.Selector, r.EnforceExisting = labels.SelectorFromSet(labels.Set{"pool": "b"}), true
			}),
		}, nil, false},
		"rule gone, time is up":         {[]func(*readiness.Facts){taintedFact, left, old}, nil, []readiness.Claim{{Rule: makeRule()}}, true},
		"rule gone, labels may come":    {[]func(*readiness.Facts){taintedFact, left}, nil, []readiness.Claim{{Rule: makeRule()}}, false},
		"rule gone that had no timeout": {[]func(*readiness.Facts){taintedFact, left, old}, nil, []readiness.Claim{{Rule: makeRule(func(r *readiness.Rule) { r.Timeout = 0 })}}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			change := plan(t, makeFacts(c.facts...), c.rules, c.retired...)
			require.Equal(t, c.gone, change.TaintsChanged)
			if c.gone {
				require.Empty(t, change.Taints)
				require.Equal(t, readiness.UrgencyRelease, change.Urgency)
			}
		})
	}
}

func TestAStrayTaintIsLookedAtAgainWhenItsTimeComes(t *testing.T) {
	f := makeFacts(taintedFact, func(f *readiness.Facts) { f.Node.Labels["pool"] = "b" })
	begin := f.Node.CreationTimestamp.Time
	d := readiness.Evaluate(makeRule(), f, begin.Add(time.Minute))
	require.Equal(t, readiness.StateUnbound, d.State)
	require.False(t, d.Stray())
	require.Equal(t, begin.Add(10*time.Minute), d.Recheck)

	d = readiness.Evaluate(makeRule(), f, begin.Add(10*time.Minute))
	require.True(t, d.Stray())
	require.Zero(t, d.Recheck)

	claim := readiness.Claim{Rule: makeRule()}
	require.True(t, claim.Covers(f.Node))
	require.Equal(t, begin.Add(10*time.Minute), claim.Recheck(f.Node, begin.Add(time.Minute)))
	require.Zero(t, claim.Recheck(f.Node, begin.Add(10*time.Minute)))
}
