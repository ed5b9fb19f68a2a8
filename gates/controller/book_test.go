package controller

import (
	"math"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

func TestAStandbyCountsOnWhereItsLeaderStopped(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	b := newBook(nil, newWorld(t).waitlist, newEvents(nil, logr.Discard()), m, logr.Discard())
	policy := func(lifted, deadline int64) *v1alpha1.GatePolicy {
		return &v1alpha1.GatePolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u", Generation: 1},
			Spec:       v1alpha1.GatePolicySpec{GateName: gateA, Requires: []v1alpha1.Requirement{references()}},
			Status:     v1alpha1.GatePolicyStatus{LiftedTotal: lifted, DeadlineTotal: deadline},
		}
	}
	b.set(policy(0, 0))
	b.set(policy(1000, 7)) // the leader writes
	b.lifted("u", gates.Lift)
	b.set(policy(1000, 7)) // the watch is late
	for _, changed := range b.changed() {
		require.EqualValues(t, 1001, changed.Status.LiftedTotal)
		require.EqualValues(t, 7, changed.Status.DeadlineTotal)
		return
	}
	require.Fail(t, "the status is to be written")
}

func TestAFailedLiftIsTriedAgainInTime(t *testing.T) {
	limiter := retries()
	for range 1000 {
		require.LessOrEqual(t, limiter.When(reconcile.Request{}), retryMost)
	}
	require.Less(t, retryMost.Seconds(), math.Floor(gates.DefaultDeadline.Seconds()/2))
}

func gatePolicy(name string, created int64, generation int64, expression string) *v1alpha1.GatePolicy {
	return &v1alpha1.GatePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Generation: generation, CreationTimestamp: metav1.Unix(created, 0)},
		Spec: v1alpha1.GatePolicySpec{GateName: gateA, Requires: []v1alpha1.Requirement{{Object: &v1alpha1.ObjectRequirement{
			APIVersion: "v1", Kind: "ConfigMap", Name: "x", Expression: expression,
		}}}},
	}
}

func TestAPolicyThatCannotBeCarriedOutHoldsNobodyForEver(t *testing.T) {
	const good, bad = "object.data.ready == 'true'", "object.data +"
	m, err := newMetrics(nil)
	require.NoError(t, err)
	b := newBook(nil, newWorld(t).waitlist, newEvents(nil, logr.Discard()), m, logr.Discard())
	inForce, _ := b.set(gatePolicy("first", 1, 1, good))
	require.EqualValues(t, 1, inForce[gateA].Generation)
	inForce, _ = b.set(gatePolicy("first", 1, 2, bad))
	require.EqualValues(t, 1, inForce[gateA].Generation, "the last good spec")
	require.False(t, inForce[gateA].Broken())
	inForce, _ = b.set(gatePolicy("second", 2, 1, good))
	require.Equal(t, "second", inForce[gateA].Name, "one that can be carried out goes before one that cannot")
	inForce, _ = b.set(gatePolicy("third", 0, 1, bad))
	require.Equal(t, "second", inForce[gateA].Name)
	b.remove(gatePolicy("second", 2, 1, good), begin())
	inForce = b.remove(gatePolicy("first", 1, 2, bad), begin())
	require.Equal(t, "third", inForce[gateA].Name)
	require.True(t, inForce[gateA].Broken(), "its deadline alone")
	verdict := inForce[gateA].Evaluate(newWorld(t).read(object("web", "x", gateA)), gates.Facts{}, gates.Clock{
		Now: begin().Add(gates.DefaultDeadline), Since: begin(),
	})
	require.Equal(t, gates.Release, verdict.Outcome)
}

func TestPodsOfADeletedPolicyAreLetGo(t *testing.T) {
	m, err := newMetrics(nil)
	require.NoError(t, err)
	w := newWorld(t)
	b := newBook(nil, w.waitlist, newEvents(nil, logr.Discard()), m, logr.Discard())
	policy := gatePolicy("p", 1, 1, "")
	inForce, _ := b.set(policy)
	w.sources.object = func(gates.Dependency) (gates.Object, gates.Existence) { return gates.Object{}, gates.There(false) }
	w.setPolicies(inForce)
	key := w.put(object("web", "x", gateA))
	require.Empty(t, lifts(w.decideAt(key, 0)))

	require.Empty(t, w.setPolicies(b.remove(policy, begin())), "who replaces a policy deletes it first")
	require.Empty(t, lifts(w.decideAt(key, 0)))
	inForce, again := b.settle(begin().Add(deletionGrace - 1))
	require.Empty(t, w.setPolicies(inForce))
	require.Equal(t, begin().Add(deletionGrace), again)
	inForce, _ = b.settle(begin().Add(deletionGrace))
	require.Equal(t, []types.NamespacedName{key}, w.setPolicies(inForce))
	d := w.decideAt(key, deletionGrace)
	require.Equal(t, []string{gateA}, lifts(d))
	require.Equal(t, gates.Deleted, d.lift[0].verdict.Outcome)
	w.deletePod(w.read(object("web", "x", gateA)))
	inForce, again = b.settle(begin().Add(2 * deletionGrace))
	require.Empty(t, inForce, "nobody waits by it any more")
	require.Zero(t, again)

	hold := gatePolicy("hold", 1, 1, "")
	hold.Spec.OnDeadline = v1alpha1.OnDeadlineHold
	inForce, _ = b.set(hold)
	w.setPolicies(inForce)
	key = w.put(object("held", "x", gateA))
	b.remove(hold, begin())
	inForce, _ = b.settle(begin().Add(deletionGrace))
	w.setPolicies(inForce)
	d = w.decideAt(key, deletionGrace)
	require.Empty(t, lifts(d))
	require.True(t, d.wait[0].policy.Deleted(), "its pods are told that nobody holds them")
}
