package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// ledger remembers, in one ConfigMap, which taints the rules of this cluster claim. A node that registers with its taint
// has no record of it (that would cost a write a node), so a rule that is deleted while no controller runs could not be
// cleaned up after otherwise; a finalizer would do too, but hangs every deletion while the controller is away. It is
// written when rules change, never when nodes do.
type ledger struct {
	log    logr.Logger
	engine *Engine
	maps   corev1client.ConfigMapInterface
}

const (
	ledgerName    = "headstart-readiness"
	ledgerKey     = "claims"
	ledgerTimeout = 10 * time.Second
	// The wait after a failure, doubled from first to last: what is not written down is lost with the process.
	ledgerRetryFirst = 100 * time.Millisecond
	ledgerRetryLast  = 5 * time.Second
	// ledgerAgain is when what was written is looked at once more. A leader that has lost its lease may write last, what it
	// knew before: it does so within one request's time.
	ledgerAgain = ledgerTimeout + 2*time.Second
)

// claimRecord is a claim as the ConfigMap holds it.
type claimRecord struct {
	UID      types.UID          `json:"uid"`
	Name     string             `json:"name"`
	Form     readiness.Form     `json:"form"`
	Key      string             `json:"key"`
	Effect   corev1.TaintEffect `json:"effect"`
	Selector *string            `json:"selector,omitempty"`
	// Timeout is the rule's, as text; absent where it had none.
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// Labels are the readyLabels of the rule.
	Labels []string `json:"labels,omitempty"`
	// Until is when the claim of a rule that is gone ends; absent for a rule that is there.
	Until *metav1.Time `json:"until,omitempty"`
	// Spec is the last one of the rule that was understood; left out where there is no room.
	Spec json.RawMessage `json:"spec,omitempty"`
}

// rule is what the claim tells of its rule.
func (c *claimRecord) rule() (*readiness.Rule, error) {
	rule := &readiness.Rule{UID: c.UID, Name: c.Name, Form: c.Form, Taint: corev1.Taint{Key: c.Key, Effect: c.Effect}, OnTimeout: v1alpha1.TimeoutRelease}
	if c.Timeout != nil {
		rule.Timeout = c.Timeout.Duration
	}
	for _, label := range c.Labels {
		rule.Optional = append(rule.Optional, readiness.DaemonSet{ReadyLabel: label})
	}
	if c.Selector != nil {
		var err error
		if rule.Selector, err = labels.Parse(*c.Selector); err != nil {
			return nil, fmt.Errorf("parse selector: %w", err)
		}
	}
	return rule, nil
}

// Run loads the claims of an earlier controller, and keeps the ConfigMap up to date until ctx ends.
func (l *ledger) Run(ctx context.Context) error {
	loaded, wait := false, ledgerRetryFirst
	for looking := false; ; {
		var err error
		wrote := false
		if !loaded {
			err = l.load(ctx)
			loaded = err == nil
		}
		if loaded {
			wrote, err = l.save(ctx)
		}
		var retry, again <-chan time.Time
		switch {
		case err != nil:
			l.log.V(1).Info("ledger is not up to date, will try again", "error", err.Error())
			retry = time.After(wait)
			wait = min(2*wait, ledgerRetryLast)
		case wrote || !looking:
			wait = ledgerRetryFirst
			again = time.After(ledgerAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-retry:
		case <-again:
			looking = true
			continue
		case <-l.engine.claimEvent:
		}
		looking = false
	}
}

func (l *ledger) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	cm, err := l.maps.Get(ctx, ledgerName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		l.engine.recall(nil)
		l.engine.recallDeletions(nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	l.loadDeletions(cm.Data[deletionsKey])
	var records []claimRecord
	if err := json.Unmarshal([]byte(cm.Data[ledgerKey]), &records); err != nil {
		l.log.Error(err, "ledger cannot be read and is begun anew")
		l.engine.recall(nil)
		return nil
	}
	l.engine.recall(records)
	return nil
}

// save writes the claims of today, and reports whether the ledger did not have them.
func (l *ledger) save(ctx context.Context) (wrote bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	text, err := json.Marshal(l.engine.claimRecords())
	if err != nil {
		return false, fmt.Errorf("encode ledger: %w", err)
	}
	cm, err := l.maps.Get(ctx, ledgerName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if string(text) == "[]" {
			return false, nil
		}
		cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: ledgerName}, Data: map[string]string{ledgerKey: string(text)}}
		if _, err = l.maps.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			return false, fmt.Errorf("make ledger: %w", err)
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read ledger: %w", err)
	}
	if cm.Data[ledgerKey] == string(text) {
		return false, nil
	}
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	cm.Data[ledgerKey] = string(text)
	if _, err = l.maps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		return false, fmt.Errorf("write ledger: %w", err)
	}
	return true, nil
}

// pendingClaim is a claim of the ledger whose rule is of a form that is not known yet.
type pendingClaim struct {
	readiness.Claim
	record claimRecord
}

// claimKey tells claims apart: a rule whose taint was edited has two.
func claimKey(r *readiness.Rule) string { return string(r.UID) + " " + readiness.TaintID(&r.Taint) }

// recall takes over the claims of an earlier controller: those that no rule of today makes are retired. A rule that is not
// understood as it is now comes into force again as it was.
func (e *Engine) recall(records []claimRecord) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.recalled, e.pending = true, nil
	for i := range records {
		e.recallOne(&records[i])
	}
	e.decideAll()
	e.settleClaims()
}

func (e *Engine) recallOne(c *claimRecord) {
	old, err := c.rule()
	if err != nil {
		e.log.Error(err, "a claim of the ledger cannot be read", "rule", c.Name)
		return
	}
	if _, unseen := e.unseen[c.Form]; unseen {
		e.pending = append(e.pending, pendingClaim{readiness.Claim{Rule: old}, *c})
		return
	}
	entry := e.byUID[c.UID]
	switch {
	case entry != nil && entry.stub && c.Until == nil:
		e.revive(entry, old, c.Spec)
	case c.Until != nil && (entry == nil || entry.stub || !readiness.SameTaint(&entry.rule.Taint, &old.Taint) || entry.rule.DryRun):
		e.claim(readiness.Claim{Rule: old, Until: c.Until.Time})
	case entry != nil && !entry.stub:
		e.retire(old, entry.rule)
	default:
		e.retire(old, nil)
	}
}

// revive brings the last good form of a rule into force; where its spec was not kept, only its time-out: nodes that it holds
// stay so until then.
func (e *Engine) revive(entry *ruleEntry, claimed *readiness.Rule, spec []byte) {
	next := &ruleEntry{rule: claimed, source: entry.source, invalid: entry.invalid, generation: entry.generation, unknown: true}
	if len(spec) > 0 && entry.source != nil {
		rule, err := entry.source.Restore(entry.rule.UID, spec)
		if err == nil {
			next.rule, next.unknown = rule, false
		} else {
			e.log.Error(err, "the last good spec of a rule cannot be read", "rule", entry.rule.Name)
		}
	}
	if next.unknown {
		// Nothing new is held for it.
		claimed.Continuous = true
	}
	e.put(next)
}

// sawForm notes that the rules of a form are known now, and settles the claims that waited for that.
func (e *Engine) sawForm(form readiness.Form) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, unseen := e.unseen[form]; !unseen {
		return
	}
	delete(e.unseen, form)
	waiting := e.pending
	e.pending = nil
	for i := range waiting { // those of other forms wait on
		e.recallOne(&waiting[i].record)
	}
	e.decideAll()
	e.settleClaims()
}

// missForm notes why the rules of a form are not known.
func (e *Engine) missForm(form readiness.Form, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old, unseen := e.unseen[form]; unseen && old != why {
		e.unseen[form] = why
	}
}

// maxLedger bounds the ledger: a ConfigMap has at most 1 MiB.
const maxLedger = 768 << 10

// claimRecords are the claims of today's rules and the retired ones. Specs are left out where they have no room, last those
// of rules that nothing else tells of.
func (e *Engine) claimRecords() []claimRecord {
	e.mu.Lock()
	defer e.mu.Unlock()
	found := map[string]claimRecord{}
	add := func(r *readiness.Rule, until time.Time) {
		c := claimRecord{UID: r.UID, Name: r.Name, Form: r.Form, Key: r.Taint.Key, Effect: r.Taint.Effect}
		if r.Selector != nil {
			text := r.Selector.String()
			c.Selector = &text
		}
		if r.Timeout > 0 {
			c.Timeout = &metav1.Duration{Duration: r.Timeout}
		}
		for i := range r.Optional {
			if label := r.Optional[i].ReadyLabel; label != "" {
				c.Labels = append(c.Labels, label)
			}
		}
		if !until.IsZero() {
			c.Until = &metav1.Time{Time: until.UTC().Truncate(time.Second)}
		}
		found[claimKey(r)] = c
	}
	for i := range e.retired {
		add(e.retired[i].Rule, e.retired[i].Until)
	}
	for i := range e.pending {
		// As it was, with the spec: its rule may be one that is not understood.
		found[claimKey(e.pending[i].Rule)] = e.pending[i].record
	}
	for _, r := range e.rules {
		if !r.DryRun {
			add(r, time.Time{})
		}
	}
	out := make([]claimRecord, 0, len(found))
	for _, key := range slices.SortedFunc(maps.Keys(found), strings.Compare) {
		out = append(out, found[key])
	}
	e.addSpecs(out)
	return out
}

// addSpecs adds the specs of rules that are not understood now, then those of the others, while there is room.
func (e *Engine) addSpecs(records []claimRecord) {
	room := maxLedger - 512*len(records)
	for i := range records {
		room -= len(records[i].Spec)
	}
	for _, invalid := range []bool{true, false} {
		for i := range records {
			entry := e.byUID[records[i].UID]
			if records[i].Until != nil || entry == nil || entry.source == nil || (entry.invalid != "") != invalid {
				continue
			}
			if spec := entry.source.Spec(entry.rule.UID); len(spec) > 0 && len(spec) < room {
				records[i].Spec = spec
				room -= len(spec)
			}
		}
	}
}

// claimsChanged tells the ledger. e.mu is held.
func (e *Engine) claimsChanged() {
	select {
	case e.claimEvent <- struct{}{}:
	default:
	}
}
