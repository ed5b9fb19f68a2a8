package controller

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// fleet are nodes that say the same.
func fleet(e *Engine, nodes int, version int, change ...func(*corev1.Node)) {
	for i := range nodes {
		e.ObserveNode(makeNode(fmt.Sprintf("n%d", i), fmt.Sprint(version), append(change, func(n *corev1.Node) {
			n.UID = types.UID(fmt.Sprintf("uid-%d", i))
		})...))
	}
}

// write carries out all that is to be written, and says on how many nodes.
func write(e *Engine) (nodes int) {
	for j, ok := e.next(); ok; j, ok = e.next() {
		nodes++
		e.succeeded(j, fmt.Sprint(j.n.version+1))
	}
	return nodes
}

// wake decides what time has come for.
func wake(e *Engine) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.wakes.due(e.now()) {
		e.decide(n)
	}
}

func TestHoldsAgainAreBoundedWithinTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := makeEngine(t)
		e.SetRule(testRule(func(r *readiness.Rule) {
			r.Continuous = true
			r.Budget = readiness.Budget{Window: time.Minute, Reholds: readiness.Share{Percent: 20}}
		}), nil)
		e.Lead(true)
		fleet(e, 10, 1)
		require.Equal(t, 10, write(e), "nodes that boot are held, all of them")
		fleet(e, 10, 2_000_000, readyNode, taintedNode)
		require.Equal(t, 10, write(e))
		time.Sleep(2 * flipInterval) //nolint:forbidigo // the bubble's clock
		fleet(e, 10, 3_000_000)
		wake(e)
		require.Equal(t, 2, write(e), "20% of 10")
		require.Equal(t, int32(8), e.byUID["rule"].counts.Braked)
		require.Equal(t, map[string]bool{"r": true}, e.braked())
		time.Sleep(time.Minute + time.Second) //nolint:forbidigo // the bubble's clock
		wake(e)
		require.Equal(t, 2, write(e), "the window is over")
		require.Equal(t, int32(6), e.byUID["rule"].counts.Braked)
		fleet(e, 10, 4_000_000, readyNode)
		require.Zero(t, e.byUID["rule"].counts.Braked)
	})
}

func TestNodeClaimDeletionsAreBoundedAndRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owned := func(n *corev1.Node) {
			n.OwnerReferences = []metav1.OwnerReference{{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: n.Name, UID: types.UID("claim-" + n.Name)}}
		}
		impatient := func(r *readiness.Rule) {
			r.Timeout, r.OnTimeout = time.Second, v1alpha1.TimeoutDeleteNodeClaim
			r.Budget = readiness.Budget{Window: 10 * time.Minute, Deletions: readiness.Share{Percent: 10}}
		}
		begin := func() *Engine {
			e := makeEngine(t)
			e.SetRule(testRule(impatient), nil)
			e.Lead(true)
			fleet(e, 30, 1, taintedNode, owned)
			time.Sleep(2 * time.Second) //nolint:forbidigo // the bubble's clock
			wake(e)
			return e
		}
		first := begin()
		require.Empty(t, first.claims, "not before it is known what was deleted lately")
		first.recallDeletions(nil)
		require.Len(t, first.claims, 3, "10% of 30")
		require.Equal(t, int32(27), first.byUID["rule"].counts.Braked)
		records := first.deletionRecords()
		require.Len(t, records, 3)

		next := begin()
		next.recallDeletions(records)
		require.LessOrEqual(t, len(next.claims), 3)
		for len(next.claims) > 0 {
			require.Contains(t, records, deletionRecord{Rule: "rule", Claim: string((<-next.claims).ref.UID), At: records[0].At}, "none but those again")
		}
		time.Sleep(10 * time.Minute) //nolint:forbidigo // the bubble's clock
		wake(next)
		require.NotEmpty(t, next.claims, "the window is over")
	})
}

func TestDampingCountsFromTheFirstLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := makeEngine(t)
		e.SetRule(testRule(func(r *readiness.Rule) {
			r.Continuous, r.HoldAfter, r.ReleaseAfter = true, 30*time.Second, 10*time.Second
		}), nil)
		e.Lead(true)
		e.ObserveNode(makeNode("n", "1", readyNode, taintedNode))
		require.Zero(t, write(e))
		time.Sleep(10 * time.Second) //nolint:forbidigo // the bubble's clock
		wake(e)
		require.Equal(t, 1, write(e), "ready for 10 s")
		e.ObserveNode(makeNode("n", "2000000"))
		require.Zero(t, write(e))
		time.Sleep(20 * time.Second) //nolint:forbidigo // the bubble's clock
		e.ObserveNode(makeNode("n", "2000001", readyNode))
		e.ObserveNode(makeNode("n", "2000002"))
		time.Sleep(20 * time.Second) //nolint:forbidigo // the bubble's clock
		wake(e)
		require.Zero(t, write(e), "it was ready in between")
		time.Sleep(10 * time.Second) //nolint:forbidigo // the bubble's clock
		wake(e)
		require.Equal(t, 1, write(e))
	})
}
