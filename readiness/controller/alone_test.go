package controller

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// memory is a source of rules that keeps what it is told.
type memory struct {
	statuses map[types.UID]RuleStatus
	warnings []string
	specs    map[types.UID]*readiness.Rule
}

func newMemory() *memory {
	return &memory{statuses: map[types.UID]RuleStatus{}, specs: map[types.UID]*readiness.Rule{}}
}

func (m *memory) WriteStatus(_ context.Context, s RuleStatus) error {
	m.statuses[s.Rule.UID] = s
	return nil
}

func (m *memory) Warn(_ context.Context, _ types.UID, _, message string) error {
	m.warnings = append(m.warnings, message)
	return nil
}

func (m *memory) Spec(uid types.UID) []byte {
	if m.specs[uid] == nil {
		return nil
	}
	return []byte(strconv.Quote(string(uid)))
}

func (m *memory) Restore(uid types.UID, _ []byte) (*readiness.Rule, error) {
	if r := m.specs[uid]; r != nil {
		return r, nil
	}
	return nil, errors.New("unknown")
}

// flush writes what is due.
func (m *memory) flush(t *testing.T, e *Engine) {
	t.Helper()
	(&statusWriter{engine: e, log: e.log}).flush(t.Context())
}

var errForbidden = apierrors.NewForbidden(storagev1.Resource("csinodes"), "", errors.New("no right"))

func needsDriver(r *readiness.Rule) {
	r.Name, r.UID, r.CSIDrivers, r.Taint.Key, r.Timeout = "blind", "blind", []string{"d"}, "readiness.k8s.io/blind", 5*time.Second
}

func TestARefusedWatchStopsOnlyItsRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, m := makeEngine(t), newMemory()
		e.SetRule(testRule(), m)
		e.SetRule(testRule(needsDriver), m)
		e.Lead(true)
		ctx, stop := context.WithCancel(t.Context())
		go e.clock(ctx)
		key := watchKey{kind: watchCSINodes}
		e.watchAsked(key, errForbidden)
		both := func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{testTaint, {Key: "readiness.k8s.io/blind", Value: "pending", Effect: corev1.TaintEffectNoSchedule}}
		}
		e.ObserveNode(makeNode("n", "1", both, readyNode))
		j, ok := e.next()
		require.True(t, ok, "the other rule decides")
		require.Equal(t, []corev1.Taint{{Key: "readiness.k8s.io/blind", Value: "pending", Effect: corev1.TaintEffectNoSchedule}}, j.change.Taints)
		e.succeeded(j, "2")
		m.flush(t, e)
		require.Contains(t, m.statuses["blind"].Undecided, "cannot list csinodes: forbidden")
		require.Empty(t, m.statuses["rule"].Undecided)
		require.Equal(t, 1, e.failingWatches()["csinodes"])

		time.Sleep(6 * time.Second) //nolint:forbidigo // synctest's time
		synctest.Wait()
		j, ok = e.next()
		require.True(t, ok, "its time-out comes")
		require.Equal(t, readiness.StateTimedOut, j.change.Transitions[0].State)

		e.watchAsked(key, nil)
		e.watchSynced(key, true)
		m.flush(t, e)
		require.Empty(t, m.statuses["blind"].Undecided)
		require.Zero(t, e.failingWatches()["csinodes"])
		stop()
		synctest.Wait()
	})
}

func TestARuleThatIsNotUnderstoodKeepsItsLastGoodForm(t *testing.T) {
	e, m := makeEngine(t), newMemory()
	e.SetRule(testRule(), m)
	e.Lead(true)
	e.recall(nil)
	e.ObserveNode(makeNode("n", "1", taintedNode))
	e.SetInvalid("rule", 2, errors.New("not valid!"), m, "r")
	_, ok := e.next()
	require.False(t, ok, "the node stays held")
	m.flush(t, e)
	s := m.statuses["rule"]
	require.Equal(t, "not valid!", s.Invalid)
	require.True(t, s.InForce)
	require.EqualValues(t, 2, s.Generation)
	require.EqualValues(t, 1, s.Counts.Held)
	e.ObserveNode(makeNode("n", "2", taintedNode, readyNode))
	_, ok = e.next()
	require.True(t, ok, "and is released by the form that was understood")
	e.DeleteRule("rule")
	e.ObserveNode(makeNode("m", "1", taintedNode))
	_, ok = e.next()
	require.True(t, ok, "a rule that is gone lets go")
}

// TestTheLastGoodFormOutlivesTheProcess reads it from the ledger; where the ledger has only the claim, the nodes that are held
// stay so until their time is up, and no other is.
func TestTheLastGoodFormOutlivesTheProcess(t *testing.T) {
	m := newMemory()
	before := makeEngine(t)
	m.specs["rule"] = testRule()
	before.SetRule(testRule(), m)
	before.recall(nil)
	text, err := json.Marshal(before.claimRecords())
	require.NoError(t, err)
	require.Contains(t, string(text), `"spec":"rule"`)
	var records []claimRecord
	require.NoError(t, json.Unmarshal(text, &records))
	for name, tc := range map[string]struct{ kept, late bool }{
		"with its spec": {kept: true}, "without": {}, "with its spec, read before the rules are": {kept: true, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			e, kept := makeEngine(t), tc.kept
			if tc.late {
				e.unseen[records[0].Form] = "cannot list rules"
			} else {
				e.SetInvalid("rule", 2, errors.New("not valid!"), m, "r")
			}
			e.Lead(true)
			e.ObserveNode(makeNode("held", "1", taintedNode))
			e.ObserveNode(makeNode("new", "1"))
			claims := slices.Clone(records)
			if !kept {
				claims[0].Spec = nil
			}
			e.recall(claims)
			if tc.late {
				require.Equal(t, claims[0].Spec, e.claimRecords()[0].Spec, "the ledger keeps it meanwhile")
				e.SetInvalid("rule", 2, errors.New("not valid!"), m, "r")
				e.sawForm(claims[0].Form)
			}
			j, ok := e.next()
			require.Equal(t, kept, ok, "a new node is held where it is known for what")
			if ok {
				require.Equal(t, "new", j.node.Name)
			}
			e.mu.Lock()
			s, _ := e.nodes["held"].states.get("rule")
			e.mu.Unlock()
			require.Equal(t, readiness.StateHeld, s.state)
		})
	}
}

func TestAFormThatCannotBeReadHoldsUpNothingAndLosesNothing(t *testing.T) {
	e, m := makeEngine(t), newMemory()
	guides := testRule(func(r *readiness.Rule) {
		r.Form, r.Name, r.UID, r.Taint.Key = readiness.FormGuide, "g", "g", "readiness.k8s.io/g"
	})
	e.unseen[readiness.FormGuide] = "cannot list rules"
	e.SetRule(testRule(), m)
	e.Lead(true)
	selector := "pool=a"
	e.recall([]claimRecord{{UID: "g", Name: "g", Form: readiness.FormGuide, Key: guides.Taint.Key, Effect: guides.Taint.Effect, Selector: &selector}})
	both := func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{testTaint, guides.Taint} }
	e.ObserveNode(makeNode("n", "1", both, readyNode, func(n *corev1.Node) {
		n.Annotations = map[string]string{readiness.AnnotationReadiness: `{"node":"uid-1","rules":{"h":{"name":"h","state":"done"}}}`}
	}))
	j, ok := e.next()
	require.True(t, ok)
	require.Equal(t, []corev1.Taint{guides.Taint}, j.change.Taints)
	require.Contains(t, j.change.Record, `"h":{"name":"h"`, "the other form may have that rule")
	e.succeeded(j, "2")
	e.sawForm(readiness.FormGuide)
	j, ok = e.next()
	require.True(t, ok, "now it is known that the rule is gone")
	require.Empty(t, j.change.Taints)
}

func TestClaimsOutliveTheirRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := makeEngine(t)
		e.SetRule(testRule(), nil)
		e.Lead(true)
		e.recall(nil)
		var told []string
		e.unclaimedTold = func(n *corev1.Node, _ string) { told = append(told, n.Name) }
		ctx, stop := context.WithCancel(t.Context())
		go e.clock(ctx)
		e.DeleteRule("rule")
		e.ObserveNode(makeNode("late", "1", taintedNode))
		j, ok := e.next()
		require.True(t, ok, "a node that was bought before the rule went")
		require.Empty(t, j.change.Taints)
		e.succeeded(j, "2")
		time.Sleep(leastClaim + time.Second) //nolint:forbidigo // synctest's time
		synctest.Wait()
		require.Empty(t, e.claimRecords())
		e.ObserveNode(makeNode("too-late", "1", taintedNode))
		_, ok = e.next()
		require.False(t, ok)
		require.Empty(t, told, "its rule may come")
		require.Equal(t, 1, e.unclaimedNodes())
		time.Sleep(unclaimedAfter + time.Second) //nolint:forbidigo // synctest's time
		synctest.Wait()
		require.Equal(t, []string{"too-late"}, told)
		e.Lead(false)
		e.Lead(true)
		require.Equal(t, []string{"too-late"}, told, "a restart tells nothing anew")
		stop()
		synctest.Wait()
	})
}

func TestStatusTellsWhatHappened(t *testing.T) {
	e, m := makeEngine(t), newMemory()
	e.SetRule(testRule(), m)
	e.Lead(true)
	e.ObserveNode(makeNode("n", "1", taintedNode, readyNode))
	m.flush(t, e)
	require.EqualValues(t, 1, m.statuses["rule"].Counts.Held, "it has the taint still")
	require.Zero(t, m.statuses["rule"].Counts.Released)
	j, ok := e.next()
	require.True(t, ok)
	for range failingAfter {
		e.failed(j, errors.New(`nodes "n" is forbidden`))
	}
	m.flush(t, e)
	require.Contains(t, m.statuses["rule"].Failure, "is forbidden")
	require.EqualValues(t, 1, m.statuses["rule"].Counts.Failing)
	e.succeeded(j, "2")
	m.flush(t, e)
	require.EqualValues(t, 1, m.statuses["rule"].Counts.Released)
	require.Empty(t, m.statuses["rule"].Failure)

	reg := prometheus.NewRegistry()
	require.NoError(t, reg.Register(newCollector(e)))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	count, err := testutil.GatherAndCount(reg, "headstart_rule_nodes")
	require.NoError(t, err)
	require.Equal(t, 6, count)
}

func TestTimeoutsAreToldOnTheRuleAllTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, m := makeEngine(t), newMemory()
		e.SetRule(testRule(), m)
		e.Lead(true)
		ctx, stop := context.WithCancel(t.Context())
		go e.clock(ctx)
		for i := range 60 {
			e.ObserveNode(makeNode("n"+strconv.Itoa(i), "1", taintedNode))
		}
		time.Sleep(11 * time.Minute) //nolint:forbidigo // synctest's time
		synctest.Wait()
		m.flush(t, e)
		require.Len(t, m.warnings, 1)
		require.Contains(t, m.warnings[0], "60 nodes were not ready within 10m0s")
		require.Contains(t, m.warnings[0], "and 55 more")
		require.EqualValues(t, 60, m.statuses["rule"].Counts.TimedOut)
		m.flush(t, e)
		require.Len(t, m.warnings, 1, "once")
		stop()
		synctest.Wait()
	})
}

// TestANodeMadeAnewIsNotReadyByWhatTheOldOneLeft is of a pod and a CSINode that stay for a while.
func TestANodeMadeAnewIsNotReadyByWhatTheOldOneLeft(t *testing.T) {
	e := makeEngine(t)
	sel := labels.SelectorFromSet(labels.Set{"app": "cni"})
	e.SetRule(testRule(func(r *readiness.Rule) {
		r.Conditions, r.CSIDrivers = nil, []string{"d"}
		r.DaemonSets = []readiness.DaemonSet{{Namespace: "kube-system", Selector: sel}}
	}), nil)
	key := podWatch("kube-system", sel)
	soon := metav1.NewTime(time.Now().Add(2 * time.Second)) // times have whole seconds
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "cni-1", Labels: map[string]string{"app": "cni"}, CreationTimestamp: soon}}
	pod.Spec.NodeName = "n"
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: soon}}
	csi := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n", CreationTimestamp: soon}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "d"}}}}
	for _, one := range []watchKey{key, {kind: watchCSINodes}, {kind: watchDaemonSets}} {
		e.watchSynced(one, true)
	}
	e.Lead(true)
	e.ObserveNode(makeNode("n", "1", taintedNode))
	e.ObservePod(key, pod, true)
	e.ObserveCSINode(csi, true)
	_, ok := e.next()
	require.True(t, ok, "the old node is ready")
	e.queue.clear()
	e.ForgetNode("n")
	e.ObserveNode(makeNode("n", "2", taintedNode, func(n *corev1.Node) { n.UID = "uid-2" }))
	_, ok = e.next()
	require.False(t, ok, "the new one is not, by that")

	again := pod.DeepCopy()
	again.Status.Conditions[0].LastTransitionTime = metav1.NewTime(time.Now().Add(5 * time.Second))
	e.ObservePod(key, again, true)
	e.ObserveCSINode(csi, false)
	e.ObserveCSINode(csi, true)
	_, ok = e.next()
	require.True(t, ok, "both were renewed")
}

func TestADaemonSetThatIsFoundByItsPodsAndDoesNotTolerateIsToldOf(t *testing.T) {
	e, m := makeEngine(t), newMemory()
	app := map[string]string{"app": "cni"}
	e.SetRule(testRule(func(r *readiness.Rule) {
		r.DaemonSets = []readiness.DaemonSet{{Namespace: "kube-system", Selector: labels.SelectorFromSet(app)}}
	}), m)
	require.Contains(t, e.wantedWatches(), watchKey{kind: watchDaemonSets})
	e.watchSynced(podWatch("kube-system", labels.SelectorFromSet(app)), true)
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "cni"}}
	ds.Spec.Selector = &metav1.LabelSelector{MatchLabels: app}
	ds.Spec.Template.Labels = app
	m.flush(t, e)
	e.ObserveDaemonSet(stripDaemonSet(ds), true)
	m.flush(t, e)
	require.Contains(t, m.statuses["rule"].Unsatisfiable, "does not tolerate")
}
