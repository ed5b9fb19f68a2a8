package main

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// stored is a lease as the API server has it.
type stored struct {
	resourcelock.Interface

	record resourcelock.LeaderElectionRecord
	err    error
}

func (s *stored) Identity() string { return "me" }

func (s *stored) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	if s.err != nil {
		return nil, nil, s.err
	}
	raw, err := json.Marshal(s.record)
	return &s.record, raw, err
}

func (s *stored) renew(holder string, at time.Time) {
	s.record = resourcelock.LeaderElectionRecord{HolderIdentity: holder, RenewTime: metav1.NewTime(at)}
}

func TestLeadershipIsKnownByALeaseThatIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &stored{}
		l := &lease{Interface: server}
		leads := make(chan struct{})
		look := func() error {
			_, _, err := l.Get(t.Context())
			require.ErrorIs(t, err, server.err)
			return l.known(leads)
		}
		require.ErrorContains(t, l.known(leads), "not known yet", "nobody has looked")

		// A lease that a dead leader has left behind looks valid, by a clock that is an hour ahead too.
		server.renew("other", time.Now().Add(time.Hour))
		require.ErrorContains(t, look(), "not known yet")
		require.ErrorContains(t, look(), "not known yet")

		server.renew("other", time.Now().Add(-time.Hour))
		require.NoError(t, look(), "it lives, whatever its clock says")
		<-time.After(leaseDuration)
		require.NoError(t, look())

		server.err = errors.New("the API server is away")
		<-time.After(time.Second)
		require.ErrorContains(t, look(), "not seen renewed for 16s")
		server.err = nil
		server.renew("other", time.Now())
		require.NoError(t, look())

		// A leader that stops gives the lease back, and the record that this replica writes is not another's.
		<-time.After(leaseDuration + time.Second)
		server.renew("", time.Now())
		require.Error(t, look())
		server.renew("me", time.Now())
		require.Error(t, look())
		close(leads)
		require.NoError(t, l.known(leads), "this replica leads")
	})
}

func TestTheLeaseHasItsTimeOutToItself(t *testing.T) {
	shared := &rest.Config{Host: "https://127.0.0.1:1", UserAgent: "headstart-controller/test"}
	before := rest.CopyConfig(shared)
	_, err := newLease(shared, "default")
	require.NoError(t, err)
	require.Equal(t, before, shared, "what all controllers share is as it was")
	require.Equal(t, renewDeadline/2, leaseConfig(shared).Timeout)
}

func (s *stored) Create(_ context.Context, record resourcelock.LeaderElectionRecord) error {
	s.record = record
	return s.err
}

func (s *stored) Update(_ context.Context, record resourcelock.LeaderElectionRecord) error {
	s.record = record
	return s.err
}

// TestADeafReplicaDoesNotLead is of an API server that hangs behind a balancer: the watch is silent, the lease is renewed by
// another server.
func TestADeafReplicaDoesNotLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &stored{}
		heard := time.Now()
		l := &lease{Interface: server, silence: func() time.Duration { return time.Since(heard) }}
		mine := resourcelock.LeaderElectionRecord{HolderIdentity: "me"}
		require.NoError(t, l.Create(t.Context(), mine))
		require.NoError(t, l.Update(t.Context(), mine))

		<-time.After(deafAfter)
		require.NoError(t, l.Update(t.Context(), mine))
		<-time.After(time.Second)
		require.ErrorIs(t, l.Update(t.Context(), mine), errDeaf)
		require.ErrorIs(t, l.Create(t.Context(), mine), errDeaf)
		require.ErrorContains(t, l.hears(nil), "nothing was heard of nodes for 4m1s")
		require.NoError(t, l.Update(t.Context(), resourcelock.LeaderElectionRecord{}), "it gives the lease back")

		server.err = errors.New("the API server is away")
		<-time.After(leaseDuration)
		_, _, err := l.Get(t.Context())
		require.ErrorIs(t, err, server.err)
		require.NoError(t, l.hears(nil), "a restart does not help against that")
		server.err = nil
		heard = time.Now()
		require.NoError(t, l.Update(t.Context(), mine))
	})
}
