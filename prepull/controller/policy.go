package controller

import (
	"errors"
	"slices"
	"strings"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/prepull/warm"
)

const (
	// writeInterval is the shortest time between two writes of one policy's status.
	writeInterval = time.Second
	// fanOut bounds how many events a second the status of one policy costs the API server: each write is sent to the
	// agent of every node, so counts of a large fleet are written less often.
	fanOut = 200
	// slowest is how long a count may be out of date.
	slowest = 30 * time.Second
	// gather is for how long the first lookups of a changed policy may delay its list.
	gather = 300 * time.Millisecond
	// maxHold is for how long a policy that a former leader evaluated waits until everything is known again.
	maxHold = 2 * time.Minute
	// maxSource is for how long a policy waits for the first list of a source of workloads.
	maxSource = 10 * time.Second
)

// policy is what is known of one PrepullPolicy.
type policy struct {
	obj      *v1alpha1.PrepullPolicy
	selector labels.Selector
	// invalid is why the selector cannot be read.
	invalid error
	// since is when this generation was first seen.
	since time.Time
	// settled says that everything the list depends on has been known once.
	settled bool

	// wanted is what the policy asks for now, of trouble with its sources.
	wanted  []candidate
	trouble error
	sources bool // all sources have listed
	// imageless describes the workloads in which no image is found.
	imageless string

	// due is when the status is to be evaluated; zero when nothing has changed.
	due time.Time
	// written is when the status was last written or tried.
	written time.Time
	// evaluated is when it was last worked out.
	evaluated time.Time
	holding   map[string]time.Time
	list      string // of what holding is about

	// steering is what the label on nodes was last decided by, wants the images that it stands for, and listed when they
	// last changed.
	steering basis
	wants    []warm.Want
	listed   time.Time

	memory
}

func (p *policy) setObject(obj *v1alpha1.PrepullPolicy, now time.Time) {
	if p.obj == nil || p.obj.Generation != obj.Generation {
		p.since = now
		// What a user changes is not kept waiting by the last count.
		p.written = time.Time{}
		p.selector, p.invalid = labels.Everything(), nil
		if obj.Unreadable != "" {
			p.selector, p.invalid = labels.Nothing(), errors.New(obj.Unreadable)
		} else if obj.Spec.NodeSelector != nil {
			if p.selector, p.invalid = metav1.LabelSelectorAsSelector(obj.Spec.NodeSelector); p.invalid != nil {
				p.selector = labels.Nothing()
			}
		}
	}
	if p.obj == nil {
		p.settled = obj.Status.ObservedGeneration != obj.Generation || len(obj.Status.Images) == 0
	}
	p.obj = obj
}

// setSteering takes over what the policy's label depends on, and says whether that has changed.
func (p *policy) setSteering(now time.Time) bool {
	before, first := p.steering, p.steering == basis{}
	if p.steering = p.basis(); p.steering == before {
		return false
	}
	p.wants = wantsOf(pulledOf(p.obj.Status.Images), p.obj.Spec.Mode)
	if p.steering.list != before.list && !first {
		p.listed = now
	}
	return true
}

// soon asks for an evaluation at the given time or earlier, but never before the status may be written again.
func (p *policy) soon(at time.Time) {
	if next := p.written.Add(writeInterval); at.Before(next) {
		at = next
	}
	if p.due.IsZero() || at.Before(p.due) {
		p.due = at
	}
}

// countsDue asks for an evaluation because a node has changed: soon while nodes wait for their turn, else when counts may
// be written.
func (p *policy) countsDue(now time.Time) {
	next := p.countsFrom()
	if p.obj.Status.Turn != nil {
		next = p.evaluated.Add(writeInterval)
	}
	if next.Before(now) {
		next = now
	}
	p.soon(next)
}

// countsFrom is from when on a status may be written in which only counts have changed.
func (p *policy) countsFrom() time.Time {
	gap := time.Duration(p.obj.Status.Nodes.Matched) * time.Second / fanOut
	return p.written.Add(min(max(gap, writeInterval), slowest))
}

// countsOnly says whether two statuses mean the same to the agents, whose every write they are all sent.
func countsOnly(a, b v1alpha1.PrepullPolicyStatus) bool {
	for _, s := range []*v1alpha1.PrepullPolicyStatus{&a, &b} {
		s.Nodes = v1alpha1.NodeCounts{}
		s.Images = slices.Clone(s.Images)
		for i := range s.Images {
			s.Images[i].Nodes = 0
		}
		s.Conditions = slices.DeleteFunc(slices.Clone(s.Conditions), func(c metav1.Condition) bool { return c.Type == v1alpha1.ConditionReady })
	}
	return apiequality.Semantic.DeepEqual(a, b)
}

func (p *policy) interval() time.Duration {
	if p.obj.Spec.ResolveInterval == nil {
		return time.Hour
	}
	return max(p.obj.Spec.ResolveInterval.Duration, 10*time.Second)
}

// retarget works out what the policy wants now.
func (p *policy) retarget(from *workloads) {
	var images []string
	errs := []error{p.invalid}
	p.sources = true
	var imageless []string
	for _, source := range p.obj.Spec.FromWorkloads {
		found, err := from.images(source)
		images = append(images, found.images...)
		imageless = append(imageless, found.imageless...)
		p.sources = p.sources && found.settled
		errs = append(errs, err)
	}
	p.imageless = enumerate(imageless)
	wanted, err := candidates(&p.obj.Spec, images, p.ranking)
	p.wanted, p.trouble = wanted, errors.Join(append(errs, err)...)
}

// hold says until when the list must wait for something that is not known yet; zero when it need not.
func (p *policy) hold(now time.Time, know func(string) lookup) time.Time {
	if p.obj.Spec.Learn != nil && p.window == nil {
		return now.Add(slowest)
	}
	if limit := p.since.Add(maxSource); !p.sources && now.Before(limit) {
		return limit
	}
	if limit := p.since.Add(gather); p.refreshing(know) && now.Before(limit) {
		return limit
	}
	if p.pending(know) == 0 {
		p.settled = true
		return time.Time{}
	}
	if limit := p.since.Add(maxHold); !p.settled && now.Before(limit) {
		return limit
	}
	if limit := p.since.Add(gather); now.Before(limit) {
		return limit
	}
	return time.Time{}
}

// refreshing says whether a tag is being looked up again because of a change of the policy.
func (p *policy) refreshing(know func(string) lookup) bool {
	return slices.ContainsFunc(p.wanted, func(c candidate) bool { return know(c.name).refreshing })
}

func (p *policy) pending(know func(string) lookup) int {
	pending := 0
	for _, c := range p.wanted {
		if !know(c.name).done {
			pending++
		}
	}
	return pending
}

// evaluate makes the status that the policy should have now, and says when it has to be looked at again although nothing
// changes (zero: never).
func (p *policy) evaluate(f *fleet, know func(string) lookup, limits pace, now time.Time) (v1alpha1.PrepullPolicyStatus, time.Time) {
	var maxBytes int64
	if p.obj.Spec.MaxBytes != nil {
		maxBytes = p.obj.Spec.MaxBytes.Value()
	}
	list := plan(p.wanted, maxBytes, know)
	pulled := pulledOf(list)
	if now := fingerprint(pulled); now != p.list || p.holding == nil {
		p.list, p.holding = now, map[string]time.Time{}
	}
	nodes := f.match(p.selector)
	out := measure(string(p.obj.UID), nodes, wantsOf(pulled, p.obj.Spec.Mode), p.obj.Spec.MaxNodes, f.index, limits, p.obj.Status.Turn, p.holding, now)
	for i := range pulled {
		pulled[i].Nodes = out.having[i]
	}
	// The pulled images stand first in the list.
	copy(list, pulled)
	pending := p.pending(know)
	if pending > 0 {
		out.counts.Pulling += out.counts.Ready
		out.counts.Ready = 0
	}
	status := v1alpha1.PrepullPolicyStatus{
		ObservedGeneration: p.obj.Generation, Nodes: out.counts, Images: list, Turn: out.turn,
		Conditions: slices.Clone(p.obj.Status.Conditions),
	}
	p.conditions(&status, len(pulled), pending, know, now)
	return status, out.expires
}

// pinned is the digest that nodes pull; empty where they pull by the tag.
func pinned(img v1alpha1.ImageStatus) string {
	if img.Reported {
		return ""
	}
	return img.Digest
}

// fingerprint identifies what nodes pull.
func fingerprint(pulled []v1alpha1.ImageStatus) string {
	var text strings.Builder
	for _, img := range pulled {
		text.WriteString(img.Image + "=" + pinned(img) + "\n")
	}
	return text.String()
}
