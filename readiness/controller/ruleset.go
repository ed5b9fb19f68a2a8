package controller

import (
	"encoding/json"
	"fmt"
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
	// good are the last ones that were understood.
	good map[types.UID]T
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
	if err == nil {
		s.keepGood(in)
	}
	switch {
	case err != nil && in.GetDeletionTimestamp() != nil:
		s.engine.DeleteRule(in.GetUID())
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
			delete(s.good, uid)
		}
	}
	s.latest[in.GetUID()] = in
	return replaced
}

func (s *ruleSet[T]) keepGood(in T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good == nil {
		s.good = map[types.UID]T{}
	}
	s.good[in.GetUID()] = in
}

// specField is the spec of an object of the API.
type specField struct {
	Spec json.RawMessage `json:"spec"`
}

// Spec is that of the last good form of the rule; nil where there is none.
func (s *ruleSet[T]) Spec(uid types.UID) []byte {
	s.mu.Lock()
	in, ok := s.good[uid]
	s.mu.Unlock()
	if !ok {
		return nil
	}
	var out specField
	if text, err := json.Marshal(in); err != nil || json.Unmarshal(text, &out) != nil {
		return nil
	}
	return out.Spec
}

// Restore makes the rule that is there now, with an earlier spec, and takes that for the last good one.
func (s *ruleSet[T]) Restore(uid types.UID, spec []byte) (*readiness.Rule, error) {
	in, ok := s.get(uid)
	if !ok {
		return nil, fmt.Errorf("restore rule %s: it is gone", uid)
	}
	whole, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("restore rule %q: %w", in.GetName(), err)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(whole, &fields); err != nil {
		return nil, fmt.Errorf("restore rule %q: %w", in.GetName(), err)
	}
	fields["spec"] = spec
	if whole, err = json.Marshal(fields); err != nil {
		return nil, fmt.Errorf("restore rule %q: %w", in.GetName(), err)
	}
	out, ok := in.DeepCopyObject().(T)
	if !ok {
		return nil, fmt.Errorf("restore rule %q: %T is no copy", in.GetName(), out)
	}
	if err := json.Unmarshal(whole, out); err != nil {
		return nil, fmt.Errorf("restore rule %q: %w", in.GetName(), err)
	}
	rule, err := s.convert(out)
	if err == nil {
		s.keepGood(out)
	}
	return rule, err
}

func (s *ruleSet[T]) forget(uid types.UID) {
	s.mu.Lock()
	delete(s.latest, uid)
	delete(s.good, uid)
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
