package controller

import (
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
)

// ruleSet brings the rules of one form, as its API has them, to the engine.
type ruleSet[T client.Object] struct {
	engine *Engine
	log    logr.Logger
	// source writes the rules' statuses.
	source  ruleSource
	convert func(T) (*readiness.Rule, error)

	// order keeps what is converted first from reaching the engine last.
	order sync.Mutex

	mu     sync.Mutex
	latest map[types.UID]T
}

// observe takes over a rule; known says whether it exists still. One that is being deleted lets go of its nodes at once.
func (s *ruleSet[T]) observe(in T, known bool) {
	s.order.Lock()
	defer s.order.Unlock()
	if !known {
		s.forget(in.GetUID())
		return
	}
	for _, uid := range s.keep(in) {
		// Deleted and created again between two looks.
		s.engine.DeleteRule(uid)
	}
	rule, err := s.convert(in)
	switch {
	case err != nil:
		s.log.Error(err, "rule is not understood", "rule", in.GetName())
		s.engine.SetInvalid(in.GetUID(), in.GetGeneration(), err, s.source, in.GetName())
	case in.GetDeletionTimestamp() != nil:
		s.engine.RetireRule(rule)
	default:
		s.engine.SetRule(rule, s.source)
	}
}

// keep remembers the rule, forgets those of its name that it has replaced, and returns them.
func (s *ruleSet[T]) keep(in T) (replaced []types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, other := range s.latest {
		if other.GetName() == in.GetName() && uid != in.GetUID() {
			replaced = append(replaced, uid)
			delete(s.latest, uid)
		}
	}
	s.latest[in.GetUID()] = in
	return replaced
}

func (s *ruleSet[T]) forget(uid types.UID) {
	s.mu.Lock()
	delete(s.latest, uid)
	s.mu.Unlock()
	s.engine.DeleteRule(uid)
}

// replace takes over a complete list.
func (s *ruleSet[T]) replace(list []T) {
	there := map[types.UID]bool{}
	for _, in := range list {
		there[in.GetUID()] = true
		s.observe(in, true)
	}
	for _, in := range s.all() {
		if !there[in.GetUID()] {
			s.forget(in.GetUID())
		}
	}
}

// get returns the rule as it was last seen, and whether it is there.
func (s *ruleSet[T]) get(uid types.UID) (T, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.latest[uid]
	return in, ok
}

func (s *ruleSet[T]) all() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]T, 0, len(s.latest))
	for _, in := range s.latest {
		out = append(out, in)
	}
	return out
}
