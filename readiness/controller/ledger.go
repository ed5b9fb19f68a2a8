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
	ledgerRetry   = 5 * time.Second
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
}

// Run loads the claims of an earlier controller, and keeps the ConfigMap up to date until ctx ends.
func (l *ledger) Run(ctx context.Context) error {
	loaded := false
	for {
		var err error
		if !loaded {
			err = l.load(ctx)
			loaded = err == nil
		}
		if loaded {
			err = l.save(ctx)
		}
		var retry <-chan time.Time
		if err != nil {
			l.log.V(1).Info("ledger is not up to date, will try again", "error", err.Error())
			retry = time.After(ledgerRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-retry:
		case <-l.engine.claimEvent:
		}
	}
}

func (l *ledger) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	cm, err := l.maps.Get(ctx, ledgerName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	var records []claimRecord
	if err := json.Unmarshal([]byte(cm.Data[ledgerKey]), &records); err != nil {
		l.log.Error(err, "ledger cannot be read and is begun anew")
		return nil
	}
	var rules []*readiness.Rule
	for _, r := range records {
		rule := &readiness.Rule{UID: r.UID, Name: r.Name, Form: r.Form, Taint: corev1.Taint{Key: r.Key, Effect: r.Effect}}
		if r.Timeout != nil {
			rule.Timeout = r.Timeout.Duration
		}
		if r.Selector != nil {
			if rule.Selector, err = labels.Parse(*r.Selector); err != nil {
				l.log.Error(err, "a claim of the ledger cannot be read", "rule", r.Name)
				continue
			}
		}
		rules = append(rules, rule)
	}
	l.engine.recall(rules)
	return nil
}

func (l *ledger) save(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	text, err := json.Marshal(l.engine.claimRecords())
	if err != nil {
		return fmt.Errorf("encode ledger: %w", err)
	}
	cm, err := l.maps.Get(ctx, ledgerName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if string(text) == "[]" {
			return nil
		}
		cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: ledgerName}, Data: map[string]string{ledgerKey: string(text)}}
		if _, err = l.maps.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("make ledger: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	if cm.Data[ledgerKey] == string(text) {
		return nil
	}
	cm.Data = map[string]string{ledgerKey: string(text)}
	if _, err = l.maps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

// recall takes over the claims of an earlier controller: those that no rule of today makes are retired.
func (e *Engine) recall(rules []*readiness.Rule) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, old := range rules {
		var now *readiness.Rule
		if entry := e.byUID[old.UID]; entry != nil && entry.invalid == "" {
			now = entry.rule
		}
		e.retire(old, now)
	}
	e.decideAll()
	e.settleClaims()
}

// claimRecords are the claims of today's rules, and those retired ones that some node still carries.
func (e *Engine) claimRecords() []claimRecord {
	e.mu.Lock()
	defer e.mu.Unlock()
	found := map[string]claimRecord{}
	add := func(r *readiness.Rule) {
		c := claimRecord{UID: r.UID, Name: r.Name, Form: r.Form, Key: r.Taint.Key, Effect: r.Taint.Effect}
		if r.Selector != nil {
			text := r.Selector.String()
			c.Selector = &text
		}
		if r.Timeout > 0 {
			c.Timeout = &metav1.Duration{Duration: r.Timeout}
		}
		found[string(c.UID)+" "+readiness.TaintID(&r.Taint)] = c
	}
	for i := range e.retired {
		add(e.retired[i].Rule)
	}
	for _, r := range e.rules {
		if !r.DryRun {
			add(r)
		}
	}
	out := make([]claimRecord, 0, len(found))
	for _, key := range slices.SortedFunc(maps.Keys(found), strings.Compare) {
		out = append(out, found[key])
	}
	return out
}

// claimsChanged tells the ledger. e.mu is held.
func (e *Engine) claimsChanged() {
	select {
	case e.claimEvent <- struct{}{}:
	default:
	}
}
