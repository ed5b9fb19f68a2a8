package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
	"headstart.dev/readiness/health"
)

// statusPeriod is the least time between two writes of policies' statuses.
const statusPeriod = time.Second

// book keeps the policies, counts what is lifted and writes it to their status: at most once a period, and only what
// has changed.
type book struct {
	client   client.Client
	waitlist *waitlist
	events   *events
	metrics  *gateMetrics
	log      logr.Logger
	work     health.Work
	dirty    bell          // statuses may have changed
	opened   chan struct{} // closed when everything that was there at the start has been seen
	openOnce sync.Once

	mu       sync.Mutex
	policies map[types.UID]*v1alpha1.GatePolicy
	judged   map[types.UID]gates.Judgement
	// good are the last specs that could be carried out; deleted are policies whose pods have not been let go yet, by gate.
	good    map[types.UID]*gates.Policy
	deleted map[string]*deletedPolicy
	totals  map[types.UID]*total
	// refusedLifts says of a policy why the API server refused to lift its gate the last time.
	refusedLifts map[types.UID]string
	// refusedPulls says of a policy why an image is not pulled.
	refusedPulls map[types.UID]string
}

// total counts lifts since the policy was made.
type total struct{ lifted, deadline int64 }

// follow takes over what the status says: a standby counts on where its leader stopped. The leader itself is never behind.
func (t *total) follow(status *v1alpha1.GatePolicyStatus) {
	t.lifted, t.deadline = max(t.lifted, status.LiftedTotal), max(t.deadline, status.DeadlineTotal)
}

func newBook(c client.Client, list *waitlist, e *events, m *gateMetrics, log logr.Logger) *book {
	e.stillWaiting = list.stillWaiting
	return &book{
		client: c, waitlist: list, events: e, metrics: m, log: log, dirty: newBell(), opened: make(chan struct{}),
		policies: map[types.UID]*v1alpha1.GatePolicy{}, judged: map[types.UID]gates.Judgement{}, totals: map[types.UID]*total{},
		good: map[types.UID]*gates.Policy{}, deleted: map[string]*deletedPolicy{}, refusedLifts: map[types.UID]string{},
	}
}

// open lets statuses be written. Before it they would tell of pods that have not been counted yet.
func (b *book) open() { b.openOnce.Do(func() { close(b.opened) }) }

// set takes a policy as it is now. changed is false when only its status moved.
func (b *book) set(policy *v1alpha1.GatePolicy) (inForce map[string]*gates.Policy, changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.policies[policy.UID]
	b.policies[policy.UID] = policy
	if old == nil {
		b.totals[policy.UID] = &total{}
		b.metrics.begin(policy.Name)
	}
	b.totals[policy.UID].follow(&policy.Status)
	if old != nil && old.Generation == policy.Generation {
		return nil, false
	}
	return b.judge(), true
}

// remove forgets a policy. Pods that wait by it go on waiting for a moment: who deletes a policy may make it anew.
func (b *book) remove(policy *v1alpha1.GatePolicy, now time.Time) map[string]*gates.Policy {
	b.mu.Lock()
	defer b.mu.Unlock()
	if held := b.judged[policy.UID].InForce; held != nil {
		b.deleted[held.GateName] = &deletedPolicy{policy: held.Leaving(), since: now}
	}
	delete(b.policies, policy.UID)
	delete(b.totals, policy.UID)
	delete(b.good, policy.UID)
	delete(b.refusedLifts, policy.UID)
	b.metrics.end(policy.Name)
	return b.judge()
}

// judge judges all policies anew. The caller holds the lock.
func (b *book) judge() map[string]*gates.Policy {
	before := b.judged
	b.judged = gates.Judge(slices.Collect(maps.Values(b.policies)), b.good)
	inForce := map[string]*gates.Policy{}
	for uid, j := range b.judged {
		if j.Good != nil {
			b.good[uid] = j.Good
		}
		if j.InForce != nil {
			inForce[j.InForce.GateName] = j.InForce
			delete(b.deleted, j.InForce.GateName)
		}
		if j.Reason == gates.ReasonAccepted {
			continue
		}
		told := meta.FindStatusCondition(j.Policy.Status.Conditions, conditionAccepted)
		if before[uid].Reason != j.Reason && (told == nil || told.Reason != j.Reason) {
			b.events.refused(j.Policy, j.Reason, j.Message)
		}
	}
	for gate, d := range b.deleted {
		inForce[gate] = d.policy
	}
	b.dirty.ring()
	return inForce
}

// lifted counts a lifted gate.
func (b *book) lifted(uid types.UID, outcome gates.Outcome) {
	defer b.dirty.ring()
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.totals[uid]
	switch {
	case t == nil: // the policy was deleted meanwhile
		return
	case outcome == gates.Release:
		t.deadline++
	default:
		t.lifted++
	}
	delete(b.refusedLifts, uid)
}

// liftRefused takes note that the API server refused to lift the gate.
func (b *book) liftRefused(uid types.UID, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.policies[uid] != nil {
		b.refusedLifts[uid] = why
		b.dirty.ring()
	}
}

// pullsRefused takes note of what is not pulled.
func (b *book) pullsRefused(why map[types.UID]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !maps.Equal(b.refusedPulls, why) {
		b.refusedPulls = why
		b.dirty.ring()
	}
}

// run writes statuses until ctx ends.
func (b *book) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-b.opened:
	}
	ticker := time.NewTicker(statusPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.dirty:
		}
		for _, policy := range b.changed() {
			if err := b.write(ctx, policy); err != nil {
				b.log.V(1).Info("status not written", "policy", policy.Name, "reason", err.Error())
				b.dirty.ring()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// changed returns the policies whose status is not what it should be, with the status that it should be.
func (b *book) changed() []*v1alpha1.GatePolicy {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*v1alpha1.GatePolicy
	for uid, j := range b.judged {
		policy := b.policies[uid].DeepCopy()
		b.fill(policy, j)
		if !equality.Semantic.DeepEqual(policy.Status, b.policies[uid].Status) {
			out = append(out, policy)
		}
	}
	return out
}

// served says whether the API server knows a type.
func (b *book) served(typ string) bool {
	gvk, err := groupVersionKind(gates.Dependency{Type: typ})
	if err != nil {
		return false
	}
	_, err = b.client.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
	return !meta.IsNoMatchError(err)
}

func (b *book) write(ctx context.Context, policy *v1alpha1.GatePolicy) error {
	defer b.work.Begin().End()
	b.mu.Lock()
	before := b.policies[policy.UID]
	b.mu.Unlock()
	if before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	if err := b.client.Status().Patch(ctx, policy, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of GatePolicy %s: %w", policy.Name, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.policies[policy.UID] == before {
		b.policies[policy.UID] = policy
	}
	return nil
}
