package controller

import (
	"context"
	"time"

	"headstart.dev/gates"
)

// deletionGrace is how long the pods of a deleted policy go on waiting: whoever replaces a policy deletes it first.
const deletionGrace = 5 * time.Second

// deletionMemory is how long pods that wait for ever by a deleted policy are told so.
const deletionMemory = time.Minute

// deletedPolicy is a policy that was deleted while it was in force.
type deletedPolicy struct {
	policy *gates.Policy
	since  time.Time
}

// settle brings deleted policies forward, and says when to call again: zero when none is left.
func (b *book) settle(now time.Time) (inForce map[string]*gates.Policy, again time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for gate, d := range b.deleted {
		waiting, _ := b.waitlist.count(gate)
		passed := now.Sub(d.since)
		switch {
		case passed < deletionGrace:
			again = sooner(again, d.since.Add(deletionGrace))
			continue
		case !d.policy.Deleted():
			d.policy = d.policy.AfterDeletion()
		case waiting == 0 || (d.policy.Hold && passed > deletionMemory):
			delete(b.deleted, gate)
			continue
		}
		again = sooner(again, now.Add(deletionGrace))
	}
	return b.judge(), again
}

// settleDeleted lets the pods of deleted policies go when their time has come; it sleeps while there is none.
func (s *source) settleDeleted(ctx context.Context) {
	s.deletions.each(ctx, 0, func() time.Time {
		inForce, again := s.book.settle(time.Now())
		s.enforce(ctx, inForce)
		return again
	})
}
