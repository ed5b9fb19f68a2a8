package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// lease is the leader's lease, and what this replica has seen of it. It is safe for concurrent use.
type lease struct {
	resourcelock.Interface

	mu      sync.Mutex
	last    []byte
	renewed time.Time // when another's hold on the lease was last seen to have been renewed; zero: never
}

// newLease makes the lock. Its requests end well before the deadline by which a leader must have renewed it, so that one
// that hangs does not cost the leadership.
func newLease(config *rest.Config, namespace string) (*lease, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this replica: %w", err)
	}
	config = leaseConfig(config)
	client, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client for the lease: %w", err)
	}
	return &lease{Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: leaseName},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
	}}, nil
}

// leaseConfig is a copy of config for the lease alone. AddUserAgent returns the Config that it was given: with this time-out
// on it, every watch of the controllers would end after seconds and no long LIST would succeed.
func leaseConfig(config *rest.Config) *rest.Config {
	out := rest.AddUserAgent(rest.CopyConfig(config), "leader-election")
	out.Timeout = renewDeadline / 2
	return out
}

// Get reads the lease, and takes note of a holder that lives: one whose record changes between two looks. The times in the
// record are another machine's, and say nothing here.
func (l *lease) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err != nil {
		return record, raw, err //nolint:wrapcheck // the elector asks what kind of error it is
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if others := record.HolderIdentity != "" && record.HolderIdentity != l.Identity(); others && l.last != nil && !bytes.Equal(raw, l.last) {
		l.renewed = time.Now()
	}
	l.last = bytes.Clone(raw)
	return record, raw, nil
}

// known fails until it is clear who leads: this replica, when leads is closed, or another that renews its lease.
func (l *lease) known(leads <-chan struct{}) error {
	select {
	case <-leads:
		return nil
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.renewed.IsZero():
		return errors.New("it is not known yet who leads")
	case time.Since(l.renewed) > leaseDuration:
		return fmt.Errorf("nobody is known to lead: the lease was not seen renewed for %s", time.Since(l.renewed).Round(time.Second))
	}
	return nil
}

// addChecks serves whether the process answers, and whether it is known who leads. lock is nil where there is no election.
func addChecks(mgr ctrl.Manager, lock *lease) error {
	if err := mgr.AddHealthzCheck("process", healthz.Ping); err != nil {
		return fmt.Errorf("add check: %w", err)
	}
	if lock == nil {
		return nil
	}
	known := func(*http.Request) error { return lock.known(mgr.Elected()) }
	if err := mgr.AddReadyzCheck("leadership", known); err != nil {
		return fmt.Errorf("add check: %w", err)
	}
	return nil
}
