package readiness

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"headstart.dev/readiness/v1alpha1"
)

// Budget bounds what a rule may do to its nodes within a window of time: no sample, reporter or bug may do it to all of
// them at once.
type Budget struct {
	Window time.Duration
	// Deletions bounds how many nodes may have their NodeClaim deleted, Reholds how many may be held again.
	Deletions, Reholds Share
}

// Share is a number of a rule's nodes. The zero Share is no bound.
type Share struct {
	Nodes   int
	Percent int
}

// Unbounded says that the share is no bound.
func (s Share) Unbounded() bool { return s == Share{} }

// Of is how many of so many nodes the share is: at least one. Meaningless for one without a bound.
func (s Share) Of(nodes int) int {
	if s.Nodes > 0 {
		return s.Nodes
	}
	return max(1, nodes*s.Percent/100)
}

// String is the share as a user writes it.
func (s Share) String() string {
	if s.Nodes > 0 {
		return strconv.Itoa(s.Nodes)
	}
	return strconv.Itoa(s.Percent) + "%"
}

// What a rule may do that says nothing of it. Karpenter's node repair stops at 20% as well.
const (
	defaultWindow    = 10 * time.Minute
	defaultDeletions = 10
	defaultReholds   = 20
)

// newBudget reads a rule's budget, with the defaults of its mode.
func newBudget(in *v1alpha1.Budget, continuous bool) (Budget, error) {
	out := Budget{Window: defaultWindow, Deletions: Share{Percent: defaultDeletions}}
	if continuous {
		out.Reholds = Share{Percent: defaultReholds}
	}
	if in == nil {
		return out, nil
	}
	if in.Window != nil {
		out.Window = in.Window.Duration
	}
	if out.Window <= 0 {
		return out, fmt.Errorf("spec.budget.window: %s is not longer than 0s", out.Window)
	}
	var err error
	if in.NodeClaimDeletions != nil {
		if out.Deletions, err = parseShare("spec.budget.nodeClaimDeletions", in.NodeClaimDeletions); err != nil {
			return out, err
		}
	}
	if in.Reholds != nil {
		out.Reholds, err = parseShare("spec.budget.reholds", in.Reholds)
	}
	return out, err
}

func parseShare(field string, in *intstr.IntOrString) (Share, error) {
	if in.Type == intstr.Int && in.IntVal >= 1 {
		return Share{Nodes: int(in.IntVal)}, nil
	}
	if text, percent := strings.CutSuffix(in.StrVal, "%"); in.Type == intstr.String && percent {
		if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= 100 {
			return Share{Percent: n}, nil
		}
	}
	return Share{}, fmt.Errorf("%s: %s is neither a number from 1 nor a share from 1%% to 100%%", field, in.String())
}

// Brake counts on which subjects something was done within a window. The zero Brake has counted nothing. Times are of one
// clock, of whatever origin.
type Brake struct {
	done map[string]time.Time
}

// Allow says whether it may be done to the subject, where limit subjects may have it done within the window; one to which it
// was done already may have it done again. If not, retry is when that may change.
func (b *Brake) Allow(subject string, limit int, window time.Duration, now time.Time) (allowed bool, retry time.Time) {
	first := time.Time{}
	for other, at := range b.done {
		switch {
		case !now.Before(at.Add(window)):
			delete(b.done, other)
		case first.IsZero() || at.Before(first):
			first = at
		}
	}
	if _, again := b.done[subject]; again || len(b.done) < limit {
		return true, time.Time{}
	}
	return false, first.Add(window)
}

// Note counts that it was done to the subject.
func (b *Brake) Note(subject string, now time.Time) {
	if b.done == nil {
		b.done = map[string]time.Time{}
	}
	b.done[subject] = now
}

// Done returns what was counted: when it was last done to each subject.
func (b *Brake) Done() map[string]time.Time { return b.done }
