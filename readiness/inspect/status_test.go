package inspect_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/gates"
	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/columns"
	"headstart.dev/readiness"
	"headstart.dev/readiness/inspect"
)

// statusLines are the lines of the table.
func statusLines(t *testing.T, v inspect.View, nodes []corev1.Node, rules []*readiness.Rule, wide bool) []string {
	t.Helper()
	width := columns.Width
	if wide {
		width = 0
	}
	var out strings.Builder
	require.NoError(t, v.StatusTable(v.Nodes(nodes, rules), wide).Write(&out, width))
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func probed(n corev1.Node, conditions ...string) corev1.Node {
	for _, c := range conditions {
		name, status, _ := strings.Cut(c, "=")
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeConditionType("headstart.dev/" + name), Status: corev1.ConditionStatus(status)})
	}
	return n
}

// Names of EC2 are shown whole in a table that fits two panes, whatever the other columns hold.
func TestStatusFitsAHundredColumns(t *testing.T) {
	const name = "ip-100-150-123-145.ap-southeast-2.compute.internal"
	long := node(name, "False", strings.Repeat("no conflist in /etc/cni/net.d yet ", 9), held)
	long.CreationTimestamp = metav1.NewTime(now.Add(-9*time.Minute - 59*time.Second))
	for i := range 12 {
		long = probed(long, fmt.Sprintf("AnAgentOfMyOwn%dReady=False", i), fmt.Sprintf("DaemonSetReady.kube-system.a-daemon-%d=Unknown", i))
	}
	endless := node(strings.Repeat("n", 253), "True", "")
	for _, nodes := range [][]corev1.Node{{long}, {long, endless}, {endless}} {
		for _, line := range statusLines(t, at, nodes, []*readiness.Rule{rule(t)}, false) {
			require.LessOrEqual(t, utf8.RuneCountInString(line), 100, line)
		}
	}
	lines := statusLines(t, at, []corev1.Node{long}, []*readiness.Rule{rule(t)}, false)
	require.Contains(t, lines[1], name)
	require.Contains(t, lines[1], "AnAgent…,+24", "what is not ready can be seen")
	require.Contains(t, lines[1], "headstart")

	wide := statusLines(t, at, []corev1.Node{long}, []*readiness.Rule{rule(t)}, true)
	for _, want := range []string{name, "AnAgentOfMyOwn11=False", "kube-system/a-daemon-11=Unknown"} {
		require.Contains(t, wide[1], want, "wide has all")
	}
}

func TestAUsersProbeIsInTheRow(t *testing.T) {
	nodes := []corev1.Node{
		probed(node("a", "True", "ok"), "MyAgentReady=False", "ImagesReady=True"),
		probed(node("b", "True", "ok"), "MyAgentReady=True"),
		probed(node("c", "Unknown", ""), "MyAgentReady=False"),
	}
	lines := statusLines(t, at, nodes, []*readiness.Rule{rule(t)}, false)
	require.Regexp(t, `^NODE +STATE +AGE +READY +NOT READY +WAITS FOR$`, lines[0])
	require.Regexp(t, `^a +Released +30s +2/3 +MyAgent=False +-$`, lines[1])
	require.Regexp(t, `^b +Released +30s +2/2 +- +-$`, lines[2])
	require.Regexp(t, `^c +\S+ +30s +0/2 +MyAgent=False,CNI=Unknown +`, lines[3])

	wide := statusLines(t, at, nodes, []*readiness.Rule{rule(t)}, true)
	require.Regexp(t, `^NODE +STATE +AGE +CNI +CSI +GPU +IMAGES +PROBES +WARM +WAITS FOR$`, wide[0])
	require.Regexp(t, `^a +Released +30s +True +- +- +True +MyAgent=False +1 +-$`, wide[1])
}

func TestAListHasItems(t *testing.T) {
	text, err := json.Marshal(at.List(nil))
	require.NoError(t, err)
	require.JSONEq(t, `{"items":[]}`, string(text))
	text, err = json.Marshal(at.List(at.Nodes([]corev1.Node{node("a", "True", "")}, nil)))
	require.NoError(t, err)
	require.Contains(t, string(text), `{"items":[{"name":"a"`)
}

func lease(namespace, holder string, renewed time.Time) coordinationv1.Lease {
	seconds := int32(15)
	at := metav1.NewMicroTime(renewed)
	return coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: inspect.LeaseName},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &at},
	}
}

func TestWhoIsAlive(t *testing.T) {
	for name, tc := range map[string]struct {
		leases []coordinationv1.Lease
		absent string
	}{
		"a leader":                     {[]coordinationv1.Lease{lease("a", "x", now.Add(-3*time.Second))}, ""},
		"a leader beside an old lease": {[]coordinationv1.Lease{lease("old", "y", now.Add(-time.Hour)), lease("a", "x", now)}, ""},
		"a clock that is ahead":        {[]coordinationv1.Lease{lease("a", "x", now.Add(time.Minute))}, ""},
		"one that died":                {[]coordinationv1.Lease{lease("a", "x", now.Add(-10*time.Minute))}, "the lease a/headstart-controller was last renewed 10m ago, by x"},
		"one that went":                {[]coordinationv1.Lease{lease("a", "", now)}, "nobody holds the lease a/headstart-controller"},
		"an empty lease":               {[]coordinationv1.Lease{{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "l"}}}, "nobody holds the lease a/l"},
		"none":                         {nil, "there is no lease headstart-controller in any namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			got := inspect.ReadController(tc.leases, now).Absent
			if tc.absent == "" {
				require.Empty(t, got)
			} else {
				require.Contains(t, got, tc.absent)
			}
		})
	}
}

// Where nobody acts nothing is foretold: no node is held that has no taint, and no deadline comes.
func TestWithoutAControllerNothingIsForetold(t *testing.T) {
	dead := inspect.View{Now: now, Controller: inspect.Controller{Absent: "there is no lease"}}
	nodes := []corev1.Node{node("bare", "False", "no conflist"), node("tainted", "False", "no conflist", held)}
	rules := []*readiness.Rule{rule(t)}
	alive := at.Nodes(nodes, rules)
	require.Equal(t, readiness.StateHeld, alive[0].State)
	require.NotZero(t, alive[0].Rules[0].Deadline)

	report := dead.Nodes(nodes, rules)
	require.Equal(t, inspect.StateWouldHold, report[0].State)
	require.Equal(t, readiness.StateHeld, report[1].State)
	require.Len(t, inspect.Held(report), 1)
	for i := range report {
		require.Zero(t, report[i].Rules[0].Deadline)
		require.Empty(t, report[i].Rules[0].OnTimeout)
		var out strings.Builder
		require.NoError(t, inspect.WriteNode(&out, &report[i], now))
		require.Contains(t, out.String(), "no controller is alive: there is no lease")
		require.NotContains(t, out.String(), "deadline")
	}
	require.Contains(t, dead.List(report).Notice, "no controller is alive")

	policies := []gatesv1alpha1.GatePolicy{{
		ObjectMeta: metav1.ObjectMeta{Name: "config"}, Status: gatesv1alpha1.GatePolicyStatus{ObservedGeneration: 1},
		Spec: gatesv1alpha1.GatePolicySpec{GateName: "example.com/config", Requires: []gatesv1alpha1.Requirement{{References: &gatesv1alpha1.ReferencesRequirement{}}}},
	}}
	pod := gatedPod()
	pod.Spec.SchedulingGates = pod.Spec.SchedulingGates[:1]
	for _, there := range []bool{true, false} {
		facts := gates.Facts{Fleet: gates.NewFleet(), Exists: func(gates.Dependency) gates.Existence { return gates.There(there) }}
		explained, err := dead.Pod(pod, policies, facts, report)
		require.NoError(t, err)
		require.Zero(t, explained.Gates[0].Deadline)
		var out strings.Builder
		require.NoError(t, inspect.WritePod(&out, &explained, now))
		require.Contains(t, out.String(), "no controller is alive to lift it")
		require.NotContains(t, out.String(), "at the latest")
		require.NotContains(t, out.String(), "about to be")
	}
}

// A controller that lives does nothing about a rule of a form that it was not told of.
func TestARuleThatNobodyHasTakenUp(t *testing.T) {
	require.True(t, at.Overlooked(now.Add(-time.Minute), 0))
	require.False(t, at.Overlooked(now.Add(-time.Minute), 1))
	require.False(t, at.Overlooked(now.Add(-5*time.Second), 0), "it is about to")

	overlooked, other := rule(t), rule(t)
	other.Name, other.UID, other.Form = "other", "r2", readiness.FormGuide
	view := inspect.View{Now: now, Unseen: []inspect.RuleKey{{Form: readiness.FormNative, Name: "headstart"}}}
	nodes := []corev1.Node{node("a", "False", "")}
	report := view.Nodes(nodes, []*readiness.Rule{overlooked})
	require.Equal(t, inspect.StateWouldHold, report[0].State)
	require.Zero(t, report[0].Rules[0].Deadline)
	require.Contains(t, report[0].Notice, "no controller has taken up headstart (native)")
	require.Contains(t, view.List(report).Notice, "--rules=")
	report = view.Nodes(nodes, []*readiness.Rule{other})
	require.Equal(t, readiness.StateHeld, report[0].State)
	require.NotZero(t, report[0].Rules[0].Deadline)
	require.Empty(t, report[0].Notice, "the other rule is none of this node's")

	policy := gatesv1alpha1.GatePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "config", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
		Spec:       gatesv1alpha1.GatePolicySpec{GateName: "example.com/config", Requires: []gatesv1alpha1.Requirement{{References: &gatesv1alpha1.ReferencesRequirement{}}}},
	}
	for observed, says := range map[int64]string{0: "no controller has taken it up", 1: "about to be lifted"} {
		policy.Status.ObservedGeneration = observed
		facts := gates.Facts{Fleet: gates.NewFleet(), Exists: func(gates.Dependency) gates.Existence { return gates.There(true) }}
		explained, err := at.Pod(gatedPod(), []gatesv1alpha1.GatePolicy{policy}, facts, nil)
		require.NoError(t, err)
		require.Contains(t, explained.Gates[0].Describe(now), says)
	}
}

func TestADryRunHoldsNothing(t *testing.T) {
	dry, real := rule(t), rule(t)
	dry.Name, dry.UID, dry.DryRun = "dry", "r2", true
	nodes := []corev1.Node{node("a", "False", "")}
	require.Equal(t, inspect.StateWouldHold, at.Nodes(nodes, []*readiness.Rule{dry})[0].State)
	require.Equal(t, readiness.StateHeld, at.Nodes(nodes, []*readiness.Rule{dry, real})[0].State)
	require.Empty(t, inspect.Held(at.Nodes(nodes, []*readiness.Rule{dry})))
}
