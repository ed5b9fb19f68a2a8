package warmpool

import (
	"slices"
	"time"
)

// maxOccurrences bounds how many starts or ends of one schedule a forecast looks at: more than twice an hour's worth in a
// week is no floor but a mistake, and a forecast ends where it has no more of them.
const maxOccurrences = 2 * 24 * 8

// forecast is the floors of the schedules as they come and go after an instant. Cron arithmetic is done once for each start
// and end, and not again for every instant that is asked about: a pool's 32 schedules may each fire every minute.
type forecast struct {
	lead    time.Duration
	courses []course
	// known is how far the forecast goes.
	known time.Time
}

// course is one schedule's starts and ends, ascending, each from the last one that is past on.
type course struct {
	schedule     Schedule
	begun        time.Time
	starts, ends []occurrence
	start, end   int // how many of them are past
}

// forecast looks ahead from now.
func (s *Sizer) forecast(now time.Time, lead time.Duration) *forecast {
	f := &forecast{lead: lead, known: now.Add(lookAhead)}
	for _, schedule := range s.cfg.Schedules {
		c := course{schedule: schedule, begun: s.begun[schedule.name]}
		var last time.Time
		c.starts, last = schedule.start.around(now, now.Add(lookAhead+lead))
		f.known = earliest(f.known, last.Add(-lead))
		c.ends, last = schedule.end.around(now, now.Add(lookAhead))
		f.known = earliest(f.known, last)
		f.courses = append(f.courses, c)
	}
	return f
}

// around lists the last occurrence that is not after now and those after it, and says up to when the list is complete.
func (w wallClock) around(now, until time.Time) ([]occurrence, time.Time) {
	var out []occurrence
	if past, ok := w.upTo(now); ok {
		out = append(out, past)
	}
	next, ok := w.after(now)
	for ok && next.at.Before(until) {
		out = append(out, next)
		if len(out) == maxOccurrences {
			return out, next.at
		}
		naive := w.spec.Next(next.naive)
		next, ok = occurrence{naive, w.place(naive)}, !naive.IsZero()
	}
	return out, until
}

// instants lists when a floor can change, as far as the forecast goes.
func (f *forecast) instants() []time.Time {
	var out []time.Time
	for _, c := range f.courses {
		for _, end := range c.ends {
			out = append(out, end.at)
		}
		for _, start := range c.starts {
			out = append(out, start.at, start.at.Add(-f.lead))
		}
	}
	return out
}

// floorAt is the largest floor at a time. Calls go forward in time.
func (f *forecast) floorAt(now time.Time) floor {
	var out floor
	for i := range f.courses {
		c := &f.courses[i]
		if c.active(now, f.lead) && c.schedule.min > out.replicas {
			out.replicas, out.schedule = c.schedule.min, c.schedule.name
		}
	}
	return out
}

func (c *course) active(now time.Time, lead time.Duration) bool {
	c.start, c.end = pass(c.starts, c.start, now), pass(c.ends, c.end, now)
	if now.Before(c.begun) || c.start < len(c.starts) && !c.starts[c.start].at.After(now.Add(lead)) {
		return true
	}
	if c.start == 0 {
		return false
	}
	return c.end == 0 || c.starts[c.start-1].holdsAgainst(c.ends[c.end-1])
}

// pass counts the occurrences that are past, from those that were already.
func pass(list []occurrence, passed int, now time.Time) int {
	for passed < len(list) && !list[passed].at.After(now) {
		passed++
	}
	return passed
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// instants lists when a size can change within what f foretells, ascending, each once.
func (s *Sizer) instants(now time.Time, lead time.Duration, f *forecast) []time.Time {
	out := f.instants()
	if s.cfg.Adaptive != nil {
		for _, h := range s.held {
			out = append(out, h.Until)
		}
		hour := now.Truncate(time.Hour)
		for range 25 {
			out = append(out, hour, hour.Add(drift), hour.Add(-lead-drift))
			hour = hour.Add(time.Hour)
		}
	}
	out = slices.DeleteFunc(out, func(t time.Time) bool { return !t.After(now) || t.After(f.known) })
	slices.SortFunc(out, time.Time.Compare)
	return slices.CompactFunc(out, time.Time.Equal)
}
