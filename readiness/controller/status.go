package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// ruleSource is the API that a rule came from.
type ruleSource interface {
	// WriteStatus brings the rule's status up to date, in at most one request and in none where it says that already.
	WriteStatus(ctx context.Context, s RuleStatus) error
	// Warn posts a Warning on the rule, and returns when it is posted or cannot be.
	Warn(ctx context.Context, uid types.UID, reason, message string) error
	// Spec is the spec of the rule that is in force, as JSON; nil where there is none.
	Spec(uid types.UID) []byte
	// Restore makes the rule that the API has now, with an earlier spec.
	Restore(uid types.UID, spec []byte) (*readiness.Rule, error)
}

// RuleStatus is what the engine says of a rule.
type RuleStatus struct {
	Rule   *readiness.Rule
	Counts Counts
	// Invalid, Conflict and Unsatisfiable are empty, or say why in one line.
	Invalid       string
	Conflict      string
	Unsatisfiable string
	// Braked likewise: the rule's budget is used up.
	Braked string
	// Refused likewise: agents do not run a probe that the rule asks for.
	Refused string
	// Generation is the one that was seen last; that of Rule is the one in force.
	Generation int64
	// InForce says that Rule is a whole one, though Invalid may say that the API has another.
	InForce bool
	// Undecided says what of the rule cannot be looked at, and Failure why nodes cannot be written.
	Undecided, Failure string
	timedOut           timedOut
	// View is set for the upstream form, whose status lists nodes.
	View *readiness.RuleView
}

const (
	// statusInterval is the least time between two writes of a rule's status.
	statusInterval = time.Second
	// statusPatience is how long counts are held back while nodes are waiting to be written: they change again anyway.
	statusPatience = 5 * time.Second
	statusTimeout  = 10 * time.Second
)

// statusWriter writes the status of rules beside the path of the nodes' writes.
type statusWriter struct {
	engine *Engine
	log    logr.Logger
}

// Run writes until ctx ends.
func (w *statusWriter) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.engine.ruleEvent:
		}
		// What changed now changes again within a second: one write tells of all of it.
		first := time.Now()
		for {
			if !pause(ctx, statusInterval) {
				return nil
			}
			if w.engine.idle() || time.Since(first) > statusPatience {
				break
			}
		}
		w.flush(ctx)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (w *statusWriter) flush(ctx context.Context) {
	for _, s := range w.engine.takeStatus() {
		one, cancel := context.WithTimeout(ctx, statusTimeout)
		err := s.source.WriteStatus(one, s.RuleStatus)
		told := w.tellTimeouts(one, &s)
		cancel()
		if err = errors.Join(err, told); err != nil {
			w.log.V(1).Info("writing rule status failed, will try again", "rule", s.Rule.Name, "error", err.Error())
			w.engine.remark(s.Rule.UID)
		}
	}
}

// tellTimeouts tells on the rule, in one Warning, of all nodes whose time is up; what cannot be told now is told later.
func (w *statusWriter) tellTimeouts(ctx context.Context, s *pendingStatus) error {
	t := &s.timedOut
	if t.nodes == 0 {
		return nil
	}
	who := strings.Join(t.names, ", ")
	if more := t.nodes - len(t.names); more > 0 {
		who += fmt.Sprintf(" and %d more", more)
	}
	message := fmt.Sprintf("%d nodes were not ready within %s (onTimeout %s): %s; missing: %s", t.nodes, s.Rule.Timeout, s.Rule.OnTimeout, who, t.missing)
	err := s.source.Warn(ctx, s.Rule.UID, reasonTimedOut, message)
	if apierrors.IsForbidden(err) {
		w.log.Error(err, "cannot tell of nodes that were not ready in time", "rule", s.Rule.Name)
		return nil
	}
	if err != nil {
		w.engine.keepTimeouts(s.Rule.UID, *t)
	}
	return err
}

// keepTimeouts takes back what could not be told.
func (e *Engine) keepTimeouts(uid types.UID, t timedOut) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if entry := e.byUID[uid]; entry != nil {
		t.add(entry.timedOut)
		entry.timedOut = t
	}
}

type pendingStatus struct {
	RuleStatus
	source ruleSource
}

// takeStatus returns the status of every rule whose counts have changed since.
func (e *Engine) takeStatus() []pendingStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]pendingStatus, 0, len(e.dirtyRules))
	for uid := range e.dirtyRules {
		entry := e.byUID[uid]
		if entry == nil || entry.source == nil || !entry.stub && entry.blind.Required && entry.blind.Why == "" {
			continue
		}
		s := e.statusOf(entry)
		s.timedOut, entry.timedOut = entry.timedOut, timedOut{}
		out = append(out, pendingStatus{RuleStatus: s, source: entry.source})
	}
	clear(e.dirtyRules)
	return out
}

// statusOf says how the rule does; e.mu is held.
func (e *Engine) statusOf(entry *ruleEntry) RuleStatus {
	rule := entry.rule
	s := RuleStatus{Rule: rule, Generation: entry.generation, InForce: !entry.stub && !entry.unknown, Invalid: entry.invalid}
	if !s.InForce {
		return s
	}
	s.Counts, s.Conflict, s.Unsatisfiable, s.Undecided = entry.counts, e.conflict(rule), e.unsatisfiable(rule), entry.trouble
	if s.Counts.Failing > 0 {
		s.Failure = e.failure(rule)
	}
	if s.Counts.Refused > 0 {
		s.Refused = rule.ProbesRefused()
	}
	if s.Invalid == "" && rule.HasExec() && !entry.runsExec {
		s.Invalid = rule.ExecRefused()
	}
	if s.Counts.Braked > 0 {
		s.Braked = rule.BudgetUsedUp(int(s.Counts.Braked))
	}
	if rule.Form == readiness.FormUpstream {
		s.View = e.view(rule)
	}
	return s
}

func (e *Engine) remark(uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byUID[uid] != nil {
		e.markRule(uid)
	}
}

// idle says whether no node waits to be written.
func (e *Engine) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queue.size == 0
}

// conflict says which other rule disagrees with r about their common taint; e.mu is held.
func (e *Engine) conflict(r *readiness.Rule) string {
	for _, other := range e.rules {
		if other.UID == r.UID || other.DryRun || r.DryRun {
			continue
		}
		if why := r.ConflictsWith(other); why != "" {
			return why
		}
	}
	return ""
}

// unsatisfiable says what r waits for that can never come while its taint is there; e.mu is held.
func (e *Engine) unsatisfiable(r *readiness.Rule) string {
	return r.Unsatisfiable(e.daemonSetsOf)
}
