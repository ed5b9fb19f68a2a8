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

// deafAfter is how long a replica may hear nothing of nodes and still lead, or come to lead. Leases are written over another
// connection than the one that nodes are watched by: a leader whose watch goes to an API server that hangs would renew its
// lease for ever and do nothing. By then the watch has been begun anew, in vain.
const deafAfter = 4 * time.Minute

// errDeaf means that this replica must not lead: it does not hear of nodes.
var errDeaf = errors.New("nothing is heard of nodes: another replica should lead")

// lease is the leader's lease, and what this replica has seen of it. It is safe for concurrent use.
type lease struct {
	resourcelock.Interface

	// silence is for how long nothing was heard of nodes. Set before the election begins; nil: not looked at.
	silence func() time.Duration

	mu       sync.Mutex
	answered time.Time // when the API server last answered a look at the lease
	last     []byte
	renewed  time.Time // when another's hold on the lease was last seen to have been renewed; zero: never
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
	l.answered = time.Now()
	if others := record.HolderIdentity != "" && record.HolderIdentity != l.Identity(); others && l.last != nil && !bytes.Equal(raw, l.last) {
		l.renewed = time.Now()
	}
	l.last = bytes.Clone(raw)
	return record, raw, nil
}

// Create takes a lease that nobody has had, unless this replica is deaf.
func (l *lease) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if l.deaf() {
		return errDeaf
	}
	return l.Interface.Create(ctx, record) //nolint:wrapcheck // the elector asks what kind of error it is
}

// Update takes or renews the lease, unless this replica is deaf. To give it back is always allowed.
func (l *lease) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if record.HolderIdentity != "" && l.deaf() {
		return errDeaf
	}
	err := l.Interface.Update(ctx, record)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.answered = time.Now()
	}
	return err //nolint:wrapcheck // the elector asks what kind of error it is
}

func (l *lease) deaf() bool { return l.silence != nil && l.silence() > deafAfter }

// hears fails where the API server answers and yet nothing is heard of nodes: then a restart, with connections of its own,
// may help. It has the form of controller-runtime's healthz.Checker.
func (l *lease) hears(*http.Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf() && time.Since(l.answered) < leaseDuration {
		return fmt.Errorf("the API server answers, but nothing was heard of nodes for %s", l.silence().Round(time.Second))
	}
	return nil
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
	if err := mgr.AddHealthzCheck("watches", lock.hears); err != nil {
		return fmt.Errorf("add check: %w", err)
	}
	known := func(*http.Request) error { return lock.known(mgr.Elected()) }
	if err := mgr.AddReadyzCheck("leadership", known); err != nil {
		return fmt.Errorf("add check: %w", err)
	}
	return nil
}
