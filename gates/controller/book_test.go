package controller

import (
	"math"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

func TestAStandbyCountsOnWhereItsLeaderStopped(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	b := newBook(nil, newWaitlist(), newEvents(nil, logr.Discard()), m, logr.Discard())
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
