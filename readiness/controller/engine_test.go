package controller

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

func makeEngine(t *testing.T) *Engine {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	return newEngine(logr.Discard(), time.Now, m)
}

func makeNode(name, version string, change ...func(*corev1.Node)) stripped {
	return stripNode(apiNode(name, version, change...))
}

func apiNode(name, version string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: "uid-1", ResourceVersion: version, Labels: map[string]string{"pool": "a"}, CreationTimestamp: metav1.Now(),
	}}
	for _, c := range change {
		c(n)
	}
	return n
}

func readyNode(n *corev1.Node) {
	n.Status.Conditions = []corev1.NodeCondition{{Type: "Ready-For-Test", Status: corev1.ConditionTrue}}
}

func taintedNode(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{testTaint} }

var testTaint = corev1.Taint{Key: "readiness.k8s.io/r", Value: "pending", Effect: corev1.TaintEffectNoSchedule}

func testRule(change ...func(*readiness.Rule)) *readiness.Rule {
	r := &readiness.Rule{
		Name: "r", UID: "rule", Generation: 1, Created: time.Now().Add(-time.Hour), Selector: labels.SelectorFromSet(labels.Set{"pool": "a"}),
		Conditions: []readiness.Condition{{Type: "Ready-For-Test", Required: corev1.ConditionTrue}},
		Taint:      testTaint, Timeout: 10 * time.Minute, OnTimeout: v1alpha1.TimeoutRelease,
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func TestReleasesGoBeforeHoldsBeforeLabels(t *testing.T) {
	e := makeEngine(t)
	e.SetRule(testRule(), nil)
	e.Lead(true)
	e.ObserveNode(makeNode("label", "1", func(n *corev1.Node) {
		n.Labels = map[string]string{}
		n.Status.Conditions = []corev1.NodeCondition{{Type: readiness.ConditionCNIReady, Status: corev1.ConditionTrue}}
	}))
	e.ObserveNode(makeNode("hold", "2"))
	e.ObserveNode(makeNode("release", "3", taintedNode, readyNode))
	var order []string
	for j, ok := e.next(); ok; j, ok = e.next() {
		order = append(order, j.node.Name)
	}
	require.Equal(t, []string{"release", "hold", "label"}, order)
}

func TestAnOldEventDoesNotUndoOurOwnWrite(t *testing.T) {
	e := makeEngine(t)
	e.SetRule(testRule(), nil)
	e.Lead(true)
	e.ObserveNode(makeNode("n", "5", taintedNode, readyNode))
	j, ok := e.next()
	require.True(t, ok)
	e.succeeded(j, "9")
	e.ObserveNode(makeNode("n", "7", taintedNode, readyNode))
	_, ok = e.next()
	require.False(t, ok, "version 7 is older than our write 9")
	e.ObserveNode(makeNode("n", "11", taintedNode, readyNode))
	_, ok = e.next()
	require.True(t, ok, "version 11 shows a taint that somebody has added since")
}

func TestANodeStandsStillWhileItIsWritten(t *testing.T) {
	e := makeEngine(t)
	e.SetRule(testRule(), nil)
	e.Lead(true)
	e.ObserveNode(makeNode("n", "1", taintedNode, readyNode))
	j, ok := e.next()
	require.True(t, ok)
	e.ObserveNode(makeNode("n", "2", taintedNode, readyNode))
	_, ok = e.next()
	require.False(t, ok)
	e.failed(j, errors.New("broken"))
	e.mu.Lock()
	require.True(t, e.nodes["n"].stale, "whether it took effect is not known")
	e.mu.Unlock()
}

func TestAStandbyWritesNothingAndLosesNothing(t *testing.T) {
	e := makeEngine(t)
	e.SetRule(testRule(), nil)
	e.ObserveNode(makeNode("n", "1", taintedNode, readyNode))
	_, ok := e.next()
	require.False(t, ok)
	e.Lead(true)
	_, ok = e.next()
	require.True(t, ok)
}

func TestARuleWhosePodsAreNotListedDoesNothing(t *testing.T) {
	e := makeEngine(t)
	sel := labels.SelectorFromSet(labels.Set{"app": "cni"})
	e.SetRule(testRule(func(r *readiness.Rule) {
		r.DaemonSets = []readiness.DaemonSet{{Namespace: "kube-system", Name: "cni", Selector: sel}}
	}), nil)
	e.Lead(true)
	e.ObserveNode(makeNode("n", "1", readyNode))
	_, ok := e.next()
	require.False(t, ok, "the pod may be there")
	key := podWatch("kube-system", sel)
	require.Contains(t, e.wantedWatches(), key)
	e.ReplacePods(key, nil)
	e.watchSynced(key, true)
	j, ok := e.next()
	require.True(t, ok)
	require.Equal(t, readiness.UrgencyHold, j.change.Urgency)
}

func TestTimeoutComesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := makeEngine(t)
		e.SetRule(testRule(), nil)
		e.Lead(true)
		e.ObserveNode(makeNode("n", "1", taintedNode))
		ctx, stop := context.WithCancel(t.Context())
		go e.clock(ctx)
		time.Sleep(9 * time.Minute) //nolint:forbidigo // synctest's time
		synctest.Wait()
		_, ok := e.next()
		require.False(t, ok)
		time.Sleep(2 * time.Minute) //nolint:forbidigo // synctest's time
		synctest.Wait()
		j, ok := e.next()
		require.True(t, ok)
		require.Equal(t, readiness.StateTimedOut, j.change.Transitions[0].State)
		stop()
		synctest.Wait()
	})
}

func TestPatchIsACompareAndSwap(t *testing.T) {
	n := makeNode("n", "1", taintedNode, func(n *corev1.Node) { n.Annotations = map[string]string{"x": "y"} })
	patch, err := buildPatch(n.Node, &readiness.Change{TaintsChanged: true, RecordChanged: true, Record: "{}", SetLabels: []string{"a/b"}, RemoveLabels: []string{"c"}})
	require.NoError(t, err)
	require.JSONEq(t, `[
		{"op":"test","path":"/metadata/uid","value":"uid-1"},
		{"op":"test","path":"/spec/taints","value":[{"key":"readiness.k8s.io/r","value":"pending","effect":"NoSchedule"}]},
		{"op":"remove","path":"/spec/taints"},
		{"op":"test","path":"/metadata/annotations/headstart.dev~1readiness","value":null},
		{"op":"add","path":"/metadata/annotations/headstart.dev~1readiness","value":"{}"},
		{"op":"add","path":"/metadata/labels/a~1b","value":"true"},
		{"op":"remove","path":"/metadata/labels/c"}
	]`, string(patch))
	require.True(t, json.Valid(patch))
}

func TestMetricsFollowTheConventions(t *testing.T) {
	reg := prometheus.NewRegistry()
	_, err := newMetrics(reg)
	require.NoError(t, err)
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}
