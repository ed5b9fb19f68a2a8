package readiness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// TestWildcardsThatFindNothingAreNotMet is of a namespace that is spelled wrong, or whose DaemonSets are all excepted.
func TestWildcardsThatFindNothingAreNotMet(t *testing.T) {
	there := &readiness.DaemonSetSpec{Namespace: "kube-system", Name: "cni", Template: corev1.PodSpec{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}}}
	other := &readiness.DaemonSetSpec{Namespace: "logs", Name: "agent", Template: there.Template}
	facts := makeFacts(func(f *readiness.Facts) {
		f.DaemonSets = func(namespace string) (out []*readiness.DaemonSetSpec) {
			for _, spec := range []*readiness.DaemonSetSpec{there, other} {
				if namespace == spec.Namespace || namespace == "*" {
					out = append(out, spec)
				}
			}
			return out
		}
		f.Pods = []readiness.Pod{{Namespace: "kube-system", DaemonSet: "cni", Ready: true}}
	})
	for name, tc := range map[string]struct {
		want readiness.DaemonSet
		met  bool
	}{
		"all of a namespace":      {readiness.DaemonSet{Namespace: "kube-system", Name: "*"}, true},
		"a typo":                  {readiness.DaemonSet{Namespace: "kubesystem", Name: "*"}, false},
		"all excepted":            {readiness.DaemonSet{Namespace: "kube-system", Name: "*", Except: []string{"cni"}}, false},
		"everywhere":              {readiness.DaemonSet{Namespace: "*", Name: "*"}, false},
		"everywhere but one":      {readiness.DaemonSet{Namespace: "*", Name: "*", Except: []string{"logs/agent"}}, true},
		"everywhere but a name":   {readiness.DaemonSet{Namespace: "*", Name: "*", Except: []string{"agent"}}, true},
		"but all of a namespace":  {readiness.DaemonSet{Namespace: "*", Name: "*", Except: []string{"logs/*"}}, true},
		"but one of another name": {readiness.DaemonSet{Namespace: "*", Name: "*", Except: []string{"other/agent"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			rule := makeRule(func(r *readiness.Rule) { r.Conditions, r.DaemonSets = nil, []readiness.DaemonSet{tc.want} })
			got := readiness.Evaluate(rule, facts, born.Add(2*time.Minute))
			require.Equal(t, tc.met, got.State == readiness.StateReleased, "%v", got.Reasons)
		})
	}
}

// TestLabelsOfOthersStay is of a readyLabel that is on the node already.
func TestLabelsOfOthersStay(t *testing.T) {
	const label = "example.com/ebs"
	rule := makeRule(func(r *readiness.Rule) {
		r.Optional = []readiness.DaemonSet{{Namespace: "kube-system", Name: "ebs", ReadyLabel: label}}
	})
	for name, tc := range map[string]struct {
		have        string
		ours, ready bool
		set, remove bool
	}{
		"another value":                   {have: "zone-a"},
		"another value, recorded as ours": {have: "zone-a", ours: true},
		"another value, and ready":        {have: "zone-a", ready: true},
		"our value, set by others":        {have: "true"},
		"our value, ours":                 {have: "true", ours: true, remove: true},
		"our value, ours and ready":       {have: "true", ours: true, ready: true},
		"absent and ready":                {ready: true, set: true},
		"absent":                          {},
	} {
		t.Run(name, func(t *testing.T) {
			f := makeFacts(reported(corev1.ConditionTrue))
			if tc.have != "" {
				f.Node.Labels[label] = tc.have
			}
			if tc.ours {
				f.Record.Labels = []string{label}
			}
			if tc.ready {
				f.Pods = []readiness.Pod{{Namespace: "kube-system", DaemonSet: "ebs", Ready: true}}
			}
			now := born.Add(2 * time.Minute)
			change, err := readiness.Plan(f, []readiness.Decision{readiness.Evaluate(rule, f, now)}, nil, now)
			require.NoError(t, err)
			require.Equal(t, tc.set, len(change.SetLabels) > 0)
			require.Equal(t, tc.remove, len(change.RemoveLabels) > 0)
		})
	}
}

func TestSuspendedRulesWriteNothing(t *testing.T) {
	const label = "example.com/ebs"
	rule := makeRule(func(r *readiness.Rule) {
		r.Suspended = true
		r.Optional = []readiness.DaemonSet{{Namespace: "kube-system", Name: "ebs", ReadyLabel: label}}
	})
	now := born.Add(time.Hour)
	for name, change := range map[string]func(*readiness.Facts){
		"held and ready":         func(f *readiness.Facts) { taintedFact(f); reported(corev1.ConditionTrue)(f) },
		"held and overdue":       taintedFact,
		"not held and not ready": func(*readiness.Facts) {},
		"labelled": func(f *readiness.Facts) {
			f.Node.Labels[label], f.Record.Labels = "true", []string{label}
		},
		"recorded as held": func(f *readiness.Facts) { taintedFact(f); entry(readiness.Entry{State: readiness.EntryHeld})(f) },
	} {
		t.Run(name, func(t *testing.T) {
			f := makeFacts(change)
			d := readiness.Evaluate(rule, f, now)
			require.Equal(t, readiness.StateSuspended, d.State)
			require.Zero(t, d.Recheck)
			got, err := readiness.Plan(f, []readiness.Decision{d}, nil, now)
			require.NoError(t, err)
			require.Equal(t, readiness.UrgencyNone, got.Urgency, "%+v", got)
		})
	}
	f := makeFacts(taintedFact)
	f.Node.Labels["pool"] = "elsewhere"
	stray := readiness.Evaluate(rule, f, now)
	require.False(t, stray.Stray(), "nor does a stray go")
}

// TestStraysOfOthersKeysStay is of a rule whose taint key is not known for a startup taint's.
func TestStraysOfOthersKeysStay(t *testing.T) {
	for key, goes := range map[string]bool{
		"readiness.k8s.io/r": true, "startup-taint.cluster-autoscaler.kubernetes.io/r": true, "node.cilium.io/agent-not-ready": false,
	} {
		rule := makeRule(func(r *readiness.Rule) { r.Taint.Key = key })
		f := makeFacts(func(f *readiness.Facts) {
			f.Node.Labels["pool"] = "elsewhere"
			f.Node.Spec.Taints = []corev1.Taint{{Key: key, Effect: corev1.TaintEffectNoSchedule}}
		})
		d := readiness.Evaluate(rule, f, born.Add(time.Hour))
		require.Equal(t, goes, d.Stray(), key)
	}
}

func TestDamping(t *testing.T) {
	damped := func(r *readiness.Rule) {
		r.Continuous, r.HoldAfter, r.ReleaseAfter, r.Timeout = true, 30*time.Second, 10*time.Second, 5*time.Minute
	}
	start := born.Add(2 * time.Minute)
	lasting := func(met bool) func(*readiness.Facts) {
		return func(f *readiness.Facts) {
			f.Lasting = func(types.UID) (bool, time.Time, bool) { return met, start, true }
		}
	}
	at := start.Add
	for name, tc := range map[string]struct {
		facts   []func(*readiness.Facts)
		now     time.Time
		want    readiness.State
		recheck time.Time
	}{
		"ready a moment ago":                 {[]func(*readiness.Facts){taintedFact, reported("True"), lasting(true)}, at(9 * time.Second), readiness.StateHeld, at(10 * time.Second)},
		"ready for long enough":              {[]func(*readiness.Facts){taintedFact, reported("True"), lasting(true)}, at(10 * time.Second), readiness.StateReleased, time.Time{}},
		"ready just now":                     {[]func(*readiness.Facts){taintedFact, reported("True"), lasting(false)}, at(time.Minute), readiness.StateHeld, at(70 * time.Second)},
		"ready and never held":               {[]func(*readiness.Facts){reported("True"), lasting(true)}, at(time.Second), readiness.StateReleased, time.Time{}},
		"ready a moment before the timeout":  {[]func(*readiness.Facts){taintedFact, reported("True"), lasting(false)}, at(4*time.Minute - time.Second), readiness.StateHeld, at(4 * time.Minute)},
		"ready a moment ago and timed out":   {[]func(*readiness.Facts){taintedFact, reported("True"), lasting(false)}, at(4 * time.Minute), readiness.StateReleased, time.Time{}},
		"lost a moment ago":                  {[]func(*readiness.Facts){reported("False"), lasting(false)}, at(29 * time.Second), readiness.StateIgnored, at(30 * time.Second)},
		"lost for long enough":               {[]func(*readiness.Facts){reported("False"), lasting(false)}, at(30 * time.Second), readiness.StateHeld, at(30*time.Second + 5*time.Minute)},
		"held all the time":                  {[]func(*readiness.Facts){taintedFact, reported("False"), lasting(false)}, at(time.Second), readiness.StateHeld, at(4 * time.Minute)},
		"held, and its taint was taken away": {[]func(*readiness.Facts){reported("False"), lasting(false), entry(readiness.Entry{State: readiness.EntryHeld})}, at(time.Second), readiness.StateHeld, at(4 * time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			d := readiness.Evaluate(makeRule(damped), makeFacts(tc.facts...), tc.now)
			require.Equal(t, tc.want, d.State, "%+v", d)
			require.Equal(t, tc.recheck, d.Recheck)
		})
	}
}

func TestRehold(t *testing.T) {
	late := born.Add(time.Hour)
	for name, tc := range map[string]struct {
		facts []func(*readiness.Facts)
		now   time.Time
		want  bool
	}{
		"a node that boots":                {nil, born.Add(2 * time.Minute), false},
		"held from the start":              {[]func(*readiness.Facts){taintedFact}, late, false},
		"had completed":                    {[]func(*readiness.Facts){entry(readiness.Entry{State: readiness.EntryDone})}, born.Add(2 * time.Minute), true},
		"its taint was taken off by hand":  {[]func(*readiness.Facts){entry(readiness.Entry{State: readiness.EntryHeld})}, late, false},
		"older than a boot may take":       {nil, late, true},
		"timed out before and ready since": {[]func(*readiness.Facts){entry(readiness.Entry{State: readiness.EntryDone}), func(f *readiness.Facts) { f.Node.CreationTimestamp = metav1.NewTime(late) }}, late, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := makeFacts(tc.facts...)
			d := readiness.Evaluate(makeRule(continuous, func(r *readiness.Rule) { r.OnTimeout = "Hold" }), f, tc.now)
			require.Equal(t, readiness.StateHeld, d.State)
			require.Equal(t, tc.want, d.Rehold(f, tc.now))
		})
	}
}

func TestDevicesAndObjects(t *testing.T) {
	object := readiness.Object{APIVersion: "v1", Kind: "ConfigMap", Namespace: "a", Name: "b", Expression: "object.data.x == 'y'"}
	rule := makeRule(func(r *readiness.Rule) {
		r.Conditions = nil
		r.Devices = []readiness.Devices{{Driver: "gpu.example.com", Min: 2}}
		r.Objects = []readiness.Object{object}
	})
	state := readiness.ObjectState{}
	f := makeFacts(func(f *readiness.Facts) {
		f.Objects = func(o *readiness.Object) readiness.ObjectState {
			require.Equal(t, object, *o)
			return state
		}
	})
	codes := func() (out []readiness.ReasonCode) {
		for _, r := range readiness.Evaluate(rule, f, born.Add(2*time.Minute)).Reasons {
			out = append(out, r.Code)
		}
		return out
	}
	require.Equal(t, []readiness.ReasonCode{readiness.ReasonDevicesMissing, readiness.ReasonObjectUnknown}, codes())
	f.Devices, state = map[string]int{"gpu.example.com": 1}, readiness.ObjectState{Known: true}
	require.Equal(t, []readiness.ReasonCode{readiness.ReasonDevicesMissing, readiness.ReasonObjectMissing}, codes())
	f.Devices, state = map[string]int{"gpu.example.com": 2}, readiness.ObjectState{Known: true, Found: true, Problem: "the expression is false"}
	require.Equal(t, []readiness.ReasonCode{readiness.ReasonObjectExpression}, codes())
	state.Holds = true
	require.Empty(t, codes())
}
