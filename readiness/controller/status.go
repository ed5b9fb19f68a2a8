package controller

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// ruleSource is the API that a rule came from.
type ruleSource interface {
	// WriteStatus brings the rule's status up to date, in at most one request and in none where it says that already.
	WriteStatus(ctx context.Context, s RuleStatus) error
}

// RuleStatus is what the engine says of a rule.
type RuleStatus struct {
	Rule   *readiness.Rule
	Counts Counts
	// Invalid, Conflict and Unsatisfiable are empty, or say why in one line.
	Invalid       string
	Conflict      string
	Unsatisfiable string
	// Refused likewise: agents do not run a probe that the rule asks for.
	Refused string
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
		cancel()
		if err != nil {
			w.log.V(1).Info("writing rule status failed, will try again", "rule", s.Rule.Name, "error", err.Error())
			w.engine.remark(s.Rule.UID)
		}
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
		if entry == nil || !entry.ready {
			continue
		}
		if entry.invalid != "" {
			out = append(out, pendingStatus{RuleStatus: RuleStatus{Rule: entry.rule, Invalid: entry.invalid}, source: entry.source})
			continue
		}
		s := RuleStatus{Rule: entry.rule, Counts: entry.counts, Conflict: e.conflict(entry.rule), Unsatisfiable: e.unsatisfiable(entry.rule)}
		if entry.counts.Refused > 0 {
			s.Refused = entry.rule.ProbesRefused()
		}
		if entry.rule.Form == readiness.FormUpstream {
			s.View = e.view(entry.rule)
		}
		out = append(out, pendingStatus{RuleStatus: s, source: entry.source})
	}
	clear(e.dirtyRules)
	return out
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
	return r.Unsatisfiable(func(namespace, name string) *readiness.DaemonSetSpec { return e.daemonSets[namespace][name] })
}
