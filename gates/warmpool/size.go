package warmpool

import (
	"fmt"
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// Limit says what kept a pool smaller than was wanted.
type Limit string

// The limits.
const (
	LimitNone   Limit = ""
	LimitMax    Limit = "Max"
	LimitBudget Limit = "Budget"
)

// Decision is a size with what led to it. The inputs are what each asked for before max and budget.
type Decision struct {
	// Replicas is the size.
	Replicas int32
	// Wanted is the largest input; above Replicas where Limit cut it.
	Wanted int32
	// Floor is the largest floor of the schedules that hold, or will within one lead time.
	Floor int32
	// Adaptive is what demand asks for, held for the stabilisation time.
	Adaptive int32
	// Gated is what gated pods wait for.
	Gated int32
	// Share is what a share of the workload's replicas asks for.
	Share int32
	Limit Limit

	schedule string
	min, max int32
	percent  int32
}

// Change is a size that the pool will have at a later time if demand does not change.
type Change struct {
	At       time.Time
	Decision Decision
}

// Held is an adaptive size that counts until its time is over.
type Held struct {
	Replicas int32     `json:"replicas"`
	Until    time.Time `json:"until"`
}

// Sizer decides the size of one pool. It keeps what a size depends on: the window of demand and the sizes that still
// count while the pool waits before it shrinks. Not safe for concurrent use.
type Sizer struct {
	cfg    Config
	window *Window
	held   []Held               // descending replicas, ascending until
	begun  map[string]time.Time // schedule -> the start that capacity was already ordered for
	floor  floor
	scale  int32 // of the workload
}

// floor is what the schedules ask for in [from, until), as seen with one lead time.
type floor struct {
	from, until time.Time
	lead        time.Duration
	replicas    int32
	schedule    string
}

// NewSizer returns a sizer that has seen nothing yet.
func NewSizer(cfg Config) *Sizer {
	span := DefaultWindow
	if cfg.Adaptive != nil {
		span = cfg.Adaptive.Window
	}
	return &Sizer{cfg: cfg, window: NewWindow(span), begun: map[string]time.Time{}}
}

// Window is what the sizer has seen.
func (s *Sizer) Window() *Window { return s.window }

// Config is what the sizer was made with.
func (s *Sizer) Config() Config { return s.cfg }

// SetScale tells how many replicas the workload is to have, for a size that is a share of them.
func (s *Sizer) SetScale(replicas int32) { s.scale = max(replicas, 0) }

// Observe records demand in replicas; see Window.Observe.
func (s *Sizer) Observe(now time.Time, demand float64, lead time.Duration) {
	s.window.Observe(now, demand, lead)
}

// Decide returns the size at now. gated is how many replicas' worth of pods wait behind gates for this pool: capacity
// that no autoscaler would otherwise hear of. It counts at once and never longer than the pods wait, because the
// capacity is theirs as soon as their gate is lifted.
func (s *Sizer) Decide(now time.Time, lead time.Duration, gated float64) Decision {
	s.window.Advance(now, lead)
	s.begin(now, lead)
	if a := s.cfg.Adaptive; a != nil {
		s.hold(now, s.adaptive(now, lead))
	}
	return s.at(now, lead, gated)
}

// at is the size at a time without changing anything.
func (s *Sizer) at(now time.Time, lead time.Duration, gated float64) Decision {
	return s.with(s.floorAt(now, lead), now, lead, gated)
}

// with is the size at a time beside a floor.
func (s *Sizer) with(floor floor, now time.Time, lead time.Duration, gated float64) Decision {
	d := Decision{Gated: ceil(gated), Floor: floor.replicas, schedule: floor.schedule, min: s.cfg.Min, max: s.cfg.Max}
	if s.cfg.Adaptive != nil {
		d.Adaptive = s.adaptive(now, lead)
		for _, h := range s.held {
			if now.Before(h.Until) {
				d.Adaptive = max(d.Adaptive, h.Replicas)
			}
		}
	}
	d.Share = ceil(float64(s.scale) * float64(s.cfg.Percent) / 100)
	d.percent = s.cfg.Percent
	d.Wanted = max(s.cfg.Min, d.Floor, d.Adaptive, d.Gated, d.Share)
	d.Replicas, d.Limit = s.cap(d.Wanted)
	return d
}

// begin remembers which starts capacity is ordered for. The first nodes that come measure the lead time anew; without
// this memory a shorter one would send the rest away again, minutes before they are due.
func (s *Sizer) begin(now time.Time, lead time.Duration) {
	if s.floor.covers(now, lead) {
		return
	}
	for _, schedule := range s.cfg.Schedules {
		if start := schedule.start.next(now); !start.After(now.Add(lead)) {
			s.begun[schedule.name] = start
		}
	}
	s.floor = s.floorAt(now, lead)
}

func (f floor) covers(now time.Time, lead time.Duration) bool {
	return f.lead == lead && !now.Before(f.from) && now.Before(f.until)
}

// floorAt is the largest floor at a time. Cron arithmetic is slow next to all else here, so the answer of the last
// Decide is used for as long as no schedule can have changed it.
func (s *Sizer) floorAt(now time.Time, lead time.Duration) floor {
	if s.floor.covers(now, lead) {
		return s.floor
	}
	f := floor{from: now, until: now.Add(lookAhead), lead: lead}
	for _, schedule := range s.cfg.Schedules {
		start, end := schedule.start.next(now), schedule.end.next(now)
		active := schedule.Active(now) || !start.After(now.Add(lead)) || now.Before(s.begun[schedule.name])
		if active && schedule.min > f.replicas {
			f.replicas, f.schedule = schedule.min, schedule.name
		}
		for _, change := range []time.Time{start.Add(-lead), start, end} {
			if change.After(now) && change.Before(f.until) {
				f.until = change
			}
		}
	}
	return f
}

func (s *Sizer) cap(wanted int32) (int32, Limit) {
	replicas, limit := wanted, LimitNone
	if replicas > s.cfg.Max {
		replicas, limit = s.cfg.Max, LimitMax
	}
	if affordable, ok := s.cfg.Affordable(); ok && replicas > affordable {
		replicas, limit = affordable, LimitBudget
	}
	return replicas, limit
}

// Reason says in one line, for a person, what decided the size.
func (d Decision) Reason() string {
	why := ""
	switch d.Wanted {
	case 0:
		why = "nothing asks for more"
	case d.Gated:
		why = fmt.Sprintf("gated pods wait for %d", d.Gated)
	case d.Floor:
		why = fmt.Sprintf("schedule %s asks for %d", d.schedule, d.Floor)
	case d.Share:
		why = fmt.Sprintf("%d%% of the workload's replicas are %d", d.percent, d.Share)
	case d.min:
		why = fmt.Sprintf("min is %d", d.min)
	default:
		why = fmt.Sprintf("demand asks for %d", d.Adaptive)
	}
	switch d.Limit {
	case LimitMax:
		why += fmt.Sprintf(", max is %d", d.max)
	case LimitBudget:
		why += fmt.Sprintf(", the budget pays for %d", d.Replicas)
	case LimitNone:
	}
	return why
}

// drift is by how much a rise may come earlier or later than it did: demand that grows passes a threshold some minutes
// sooner every week. Without it a rise that moves over the edge of an hour meets a pool of nothing, and headroom, a share
// of nothing, does not help. On a trace with two peaks a day and 3% growth a week a quarter of an hour covers all of them
// and costs 16% more replica hours; half an hour covers no more and costs twice as much.
const drift = 15 * time.Minute

// adaptive is what demand asks for now: the quantile of the rises, and headroom.
func (s *Sizer) adaptive(now time.Time, lead time.Duration) int32 {
	a := s.cfg.Adaptive
	rise := s.window.Quantile(now.Add(-drift), lead+2*drift, a.Quantile)
	if a.Headroom.Type == intstr.Int {
		return ceil(rise + float64(a.Headroom.IntVal))
	}
	if percent, err := percentOf(a.Headroom.StrVal); err == nil {
		rise += rise * float64(percent) / 100
	}
	return ceil(rise)
}

// hold keeps a size for the stabilisation time. Growth is at once because a larger size overtakes what is held.
func (s *Sizer) hold(now time.Time, replicas int32) {
	s.held = slices.DeleteFunc(s.held, func(h Held) bool { return !now.Before(h.Until) || h.Replicas <= replicas })
	if replicas > 0 {
		s.held = append(s.held, Held{Replicas: replicas, Until: now.Add(s.cfg.Adaptive.ScaleDownAfter)})
	}
}

// Held returns the adaptive sizes that still count, for keeping.
func (s *Sizer) Held() []Held { return slices.Clone(s.held) }

// RestoreHeld replaces them by those of an earlier Held. What would hold longer than a fresh size is cut to that: the
// entries come from an object that others can write.
func (s *Sizer) RestoreHeld(held []Held, now time.Time) {
	s.held = nil
	if s.cfg.Adaptive == nil {
		return
	}
	longest := now.Add(s.cfg.Adaptive.ScaleDownAfter)
	for _, h := range held {
		if h.Until.After(longest) {
			h.Until = longest
		}
		if now.Before(h.Until) && h.Replicas > 0 {
			s.held = append(s.held, h)
		}
	}
}

// Wake returns when to Decide again at the latest: the next instant after now at which the size can change by itself.
func (s *Sizer) Wake(now time.Time, lead time.Duration) time.Time {
	wake := s.floorAt(now, lead).until
	earlier := func(t time.Time) {
		if t.After(now) && t.Before(wake) {
			wake = t
		}
	}
	if s.cfg.Adaptive == nil {
		return wake
	}
	earlier(now.Truncate(time.Hour).Add(time.Hour))
	// The pool grows for an hour when that hour is one lead time away, and drift, and shrinks when it has been over for as long.
	ahead := lead + drift
	earlier(now.Add(ahead).Truncate(time.Hour).Add(time.Hour).Add(-ahead))
	earlier(now.Add(-drift).Truncate(time.Hour).Add(time.Hour).Add(drift))
	for _, h := range s.held {
		earlier(h.Until)
	}
	return wake
}

// lookAhead bounds NextChange; every weekly schedule changes within it.
const lookAhead = 8 * 24 * time.Hour

// NextChange returns the first known change of size after now, and whether there is one within eight days. It looks
// at schedules, at sizes whose time runs out, and at the next day of hourly quantiles; where a schedule fires more often
// than any floor would, not so far.
func (s *Sizer) NextChange(now time.Time, lead time.Duration, gated float64) (Change, bool) {
	current := s.at(now, lead, gated)
	foretold := s.forecast(now, lead)
	for _, at := range s.instants(now, lead, foretold) {
		if d := s.with(foretold.floorAt(at), at, lead, gated); d.Replicas != current.Replicas {
			return Change{At: at, Decision: d}, true
		}
	}
	return Change{}, false
}

func percentOf(text string) (int, error) {
	var percent int
	if _, err := fmt.Sscanf(text, "%d%%", &percent); err != nil || percent < 0 {
		return 0, fmt.Errorf("parse percentage %q", text)
	}
	return percent, nil
}

// ceil rounds replicas up, except for what a float adds by itself.
func ceil(replicas float64) int32 {
	if !(replicas > 0) {
		return 0
	}
	return int32(min(math.Ceil(replicas-1e-9), math.MaxInt32))
}
