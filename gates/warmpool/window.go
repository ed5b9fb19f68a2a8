package warmpool

import (
	"math"
	"slices"
	"time"
)

const (
	// hoursPerWeek is the number of buckets.
	hoursPerWeek = 7 * 24
	// minHourOfWeek is how many weeks must have shown an hour of the week before it is judged by itself. Fewer, and one
	// odd Tuesday would be the rule for every Tuesday.
	minHourOfWeek = 4
	// minHourOfDay is how many weekdays (or days of the weekend) must have shown an hour of the day before it is judged
	// by itself: two, so that a window of one week, the default, has a weekend.
	minHourOfDay = 2
)

// Hour is the largest rise of demand within one lead time that ended in one hour of UTC.
type Hour struct {
	// Index is the hour since the epoch.
	Index int64 `json:"h"`
	// Rise is in replicas.
	Rise float64 `json:"r"`
	// Partial says that the window began to observe within the hour, or anew: what rose at its beginning was not seen.
	Partial bool `json:"p,omitempty"`
}

// Window is the demand of the last days, kept as one number an hour: cheap enough to write into an object, and all that
// the size needs. Not safe for concurrent use.
type Window struct {
	span   time.Duration
	hours  []Hour  // ascending, only hours that were observed
	points []point // the demand of the last lead time, ascending in time and in demand
	last   time.Time
	cache  map[int]float64 // bucket -> quantile cached
	cached float64
}

type point struct {
	at     time.Time
	demand float64
}

// NewWindow returns an empty window over the last span.
func NewWindow(span time.Duration) *Window { return &Window{span: span, cache: map[int]float64{}} }

// Observe records the demand at an instant. Between two calls demand is what the former said: call it on every change,
// in order of time; an instant before the last one counts as the last one.
func (w *Window) Observe(at time.Time, demand float64, lead time.Duration) {
	if demand < 0 || math.IsNaN(demand) || math.IsInf(demand, 0) {
		demand = 0
	}
	if at.Before(w.last) {
		at = w.last
	}
	w.fill(at)
	w.last = at
	// A point that was overtaken a lead time ago can begin no rise any more.
	expired := 0
	for expired+1 < len(w.points) && !w.points[expired+1].at.After(at.Add(-lead)) {
		expired++
	}
	w.points = slices.Delete(w.points, 0, expired)
	if len(w.points) > 0 {
		w.record(demand - w.points[0].demand)
	}
	// Points ascend in demand, so the first is the lowest. One that is no lower than the newcomer gives it its time:
	// whatever rise begins there begins lower at the newcomer, which lies in every window that it lies in.
	since := at
	for n := len(w.points); n > 0 && w.points[n-1].demand >= demand; n-- {
		since = w.points[n-1].at
		w.points = w.points[:n-1]
	}
	w.points = append(w.points, point{at: since, demand: demand})
}

func (w *Window) record(rise float64) {
	if last := &w.hours[len(w.hours)-1]; rise > last.Rise {
		last.Rise = rise
		clear(w.cache)
	}
}

// fill adds the hours up to at. While the window observes, an hour in which nothing changed is an hour without a rise.
func (w *Window) fill(at time.Time) {
	hour := hourIndex(at)
	next := hour
	if n := len(w.hours); n > 0 && len(w.points) > 0 {
		next = w.hours[n-1].Index + 1
	} else if n > 0 && w.hours[n-1].Index >= hour {
		return // restored: this hour is known already
	}
	for first := len(w.points) == 0; next <= hour; next++ {
		w.hours = append(w.hours, Hour{Index: next, Partial: first})
		first = false
		clear(w.cache)
	}
	oldest := hourIndex(at.Add(-w.span))
	if keep, _ := slices.BinarySearchFunc(w.hours, oldest, func(h Hour, i int64) int { return int(h.Index - i) }); keep > 0 {
		w.hours = slices.Delete(w.hours, 0, keep)
		clear(w.cache)
	}
}

// Advance brings the window to at without new demand: hours pass.
func (w *Window) Advance(at time.Time, lead time.Duration) {
	if n := len(w.points); n > 0 {
		w.Observe(at, w.points[n-1].demand, lead)
	}
}

// Rebase forgets the demand of the last lead time: what is observed next is measured anew, and is no rise.
func (w *Window) Rebase() { w.points = nil }

// Hours returns what was observed, oldest first.
func (w *Window) Hours() []Hour { return slices.Clone(w.hours) }

// Restore replaces the observations by those of an earlier Hours. Foreign or damaged entries are dropped: they come
// from an object that others can write.
func (w *Window) Restore(hours []Hour, now time.Time) {
	oldest, newest := hourIndex(now.Add(-w.span)), hourIndex(now)
	w.hours, w.points, w.last = nil, nil, time.Time{}
	clear(w.cache)
	last := oldest - 1
	for _, h := range hours {
		if h.Index <= last || h.Index > newest || !(h.Rise >= 0) || math.IsInf(h.Rise, 0) {
			continue
		}
		w.hours = append(w.hours, h)
		last = h.Index
	}
}

// Quantile returns the rise that a share q of comparable hours did not exceed, for the hours that [from, from+lead]
// touches, the largest of them. Comparable are the same hour of the week where enough weeks were seen, else the same
// hour of other weekdays or days of the weekend, else the whole window. Nothing observed is 0.
func (w *Window) Quantile(from time.Time, lead time.Duration, q float64) float64 {
	highest := 0.0
	last := hourIndex(from.Add(lead))
	for i, hour := 0, hourIndex(from); hour <= last && i < hoursPerWeek; i, hour = i+1, hour+1 {
		highest = max(highest, w.bucket(int(hour%hoursPerWeek), q))
	}
	return highest
}

func (w *Window) bucket(ofWeek int, q float64) float64 {
	if q != w.cached {
		clear(w.cache)
		w.cached = q
	}
	if cached, ok := w.cache[ofWeek]; ok {
		return cached
	}
	var sameWeek, sameDay, all []float64
	partial, whole := false, false // samples of this very hour of the week
	for _, h := range w.hours {
		other := int(h.Index % hoursPerWeek)
		all = append(all, h.Rise)
		if other%24 == ofWeek%24 && weekend(other) == weekend(ofWeek) {
			sameDay = append(sameDay, h.Rise)
		}
		if other == ofWeek {
			sameWeek = append(sameWeek, h.Rise)
			partial, whole = partial || h.Partial, whole || !h.Partial
		}
	}
	samples := all
	switch {
	case len(sameWeek) >= minHourOfWeek:
		samples = sameWeek
	case len(sameDay) >= minHourOfDay:
		samples = sameDay
	}
	value := quantile(samples, q)
	if partial && !whole {
		// An hour that was never seen from its beginning, a Monday's first, may be unlike the other days': no headroom makes up for
		// a rise that counts as none.
		value = max(value, quantile(all, q))
	}
	w.cache[ofWeek] = value
	return value
}

// weekend reports whether an hour of the epoch's week is of a Saturday or Sunday: 1970-01-01 was a Thursday.
func weekend(ofWeek int) bool { return ofWeek/24 == 2 || ofWeek/24 == 3 }

func hourIndex(t time.Time) int64 {
	return int64(math.Floor(float64(t.Unix()) / 3600))
}

// quantile is the smallest sample that at least a share q of the samples do not exceed; 0 without samples. It sorts.
func quantile[T ~float64 | ~int64](samples []T, q float64) T {
	if len(samples) == 0 {
		return 0
	}
	slices.Sort(samples)
	rank := int(math.Ceil(q*float64(len(samples))-1e-9)) - 1
	return samples[min(max(rank, 0), len(samples)-1)]
}
