package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	judged   map[types.UID]judgement
	totals   map[types.UID]*total
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
		policies: map[types.UID]*v1alpha1.GatePolicy{}, judged: map[types.UID]judgement{}, totals: map[types.UID]*total{},
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

// remove forgets a policy.
func (b *book) remove(policy *v1alpha1.GatePolicy) map[string]*gates.Policy {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.policies, policy.UID)
	delete(b.totals, policy.UID)
	b.metrics.end(policy.Name)
	return b.judge()
}

// judge judges all policies anew. The caller holds the lock.
func (b *book) judge() map[string]*gates.Policy {
	before := b.judged
	b.judged = judge(b.policies)
	inForce := map[string]*gates.Policy{}
	for uid, j := range b.judged {
		if j.compiled != nil {
			inForce[j.compiled.GateName] = j.compiled
			continue
		}
		told := meta.FindStatusCondition(j.policy.Status.Conditions, conditionAccepted)
		if before[uid].reason != j.reason && (told == nil || told.Reason != j.reason) {
			b.events.refused(j.policy, j.reason, j.message)
		}
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
	case outcome == gates.Release:
		t.deadline++
	default:
		t.lifted++
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

func (b *book) fill(policy *v1alpha1.GatePolicy, j judgement) {
	s := &policy.Status
	s.ObservedGeneration = policy.Generation
	s.LiftedTotal, s.DeadlineTotal = b.totals[policy.UID].lifted, b.totals[policy.UID].deadline
	s.WaitingPods, s.OldestWaiting = 0, nil
	accepted := metav1.Condition{
		Type: conditionAccepted, Status: metav1.ConditionFalse, ObservedGeneration: policy.Generation, Reason: j.reason, Message: j.message,
	}
	satisfiable := metav1.Condition{
		Type: conditionSatisfiable, Status: metav1.ConditionUnknown, ObservedGeneration: policy.Generation,
		Reason: reasonNotInForce, Message: "the policy is not in force",
	}
	if j.compiled != nil {
		accepted.Status = metav1.ConditionTrue
		count, oldest := b.waitlist.count(j.compiled.GateName)
		s.WaitingPods = count
		if count > 0 {
			s.OldestWaiting = &metav1.Time{Time: oldest}
		}
		satisfiable.Status, satisfiable.Reason, satisfiable.Message = metav1.ConditionTrue, reasonSatisfiable, "nothing in the cluster makes the requirements impossible"
		if obstacle, ok := b.waitlist.obstacle(j.compiled, b.served); ok {
			satisfiable.Status, satisfiable.Reason, satisfiable.Message = metav1.ConditionFalse, obstacle.Reason, obstacle.Message
		}
	}
	meta.SetStatusCondition(&s.Conditions, accepted)
	meta.SetStatusCondition(&s.Conditions, satisfiable)
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
