package warmpool

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"
	_ "time/tzdata" // images hold no zones; whoever can read a schedule knows them

	"github.com/robfig/cron/v3"
)

// Schedule is a floor between two times of the wall clock. Build it with NewSchedule.
//
// It is a level and not an event: whether it is active follows from the last start and the last end before an instant,
// so that a start which nobody was there to see is caught up by itself.
type Schedule struct {
	name       string
	start, end wallClock
	min        int32
}

// NewSchedule parses two five-field cron expressions in an IANA time zone ("" is UTC).
func NewSchedule(name, start, end, timeZone string, floor int32) (Schedule, error) {
	if timeZone == "Local" {
		return Schedule{}, fmt.Errorf("schedule %q: time zone Local is the controller's own: name a zone such as Europe/Berlin", name)
	}
	loc, err := time.LoadLocation(timeZone)
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: load time zone %q: %w", name, timeZone, err)
	}
	s := Schedule{name: name, min: floor}
	if s.start, err = newWallClock(start, loc); err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: parse start %q: %w", name, start, err)
	}
	if s.end, err = newWallClock(end, loc); err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: parse end %q: %w", name, end, err)
	}
	return s, nil
}

// Active reports whether the floor holds at now: the last start is not older than the last end. At one and the same
// instant the start wins, so that a schedule which ends when it starts again never ends.
func (s Schedule) Active(now time.Time) bool {
	start, ok := s.start.upTo(now)
	if !ok {
		return false
	}
	end, ok := s.end.upTo(now)
	return !ok || start.holdsAgainst(end)
}

// occurrence is a time of the wall clock and the instant that it is.
type occurrence struct{ naive, at time.Time }

// holdsAgainst reports whether a last start outlasts a last end. It is the wall clock that tells: a window that daylight
// saving leaps over has its start and its end at one instant, and is over.
func (start occurrence) holdsAgainst(end occurrence) bool { return !start.naive.Before(end.naive) }

// wallClock is a cron expression over the wall clock of a zone.
//
// cron.Schedule skips a time that daylight saving leaps over and repeats one that it falls back over. A floor that is
// missing for a day because its start was leapt over is wrong, so the expression is evaluated on a clock without zones
// and its times are then placed: in the gap at its end, in the repeated hour at the first of the two.
type wallClock struct {
	spec cron.Schedule
	loc  *time.Location
}

var errNever = errors.New("it names no date that exists")

func newWallClock(expr string, loc *time.Location) (wallClock, error) {
	if strings.Contains(expr, "TZ=") {
		return wallClock{}, errors.New("write the zone in timeZone")
	}
	if strings.HasPrefix(expr, "@every") {
		return wallClock{}, errors.New("@every has no start: write times")
	}
	expr, err := plainCron(expr)
	if err != nil {
		return wallClock{}, err
	}
	spec, err := cron.ParseStandard(expr)
	if err != nil {
		return wallClock{}, err
	}
	if parsed, ok := spec.(*cron.SpecSchedule); ok {
		parsed.Location = time.UTC // the zone-less clock
	}
	if spec.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return wallClock{}, errNever
	}
	return wallClock{spec: spec, loc: loc}, nil
}

// slack covers every jump of a zone's offset, so that a search on the zone-less clock neither starts too late nor ends too
// early.
const slack = 27 * time.Hour

// next returns the first time after now.
func (w wallClock) next(now time.Time) time.Time {
	if next, ok := w.after(now); ok {
		return next.at
	}
	return now.AddDate(100, 0, 0)
}

// after returns the first occurrence after now, and whether there is one.
func (w wallClock) after(now time.Time) (occurrence, bool) {
	from := zoneless(now.In(w.loc)).Add(-slack)
	naive := w.spec.Next(from.Add(w.boundary(now, from, 2*slack)))
	if naive.IsZero() {
		return occurrence{}, false
	}
	return occurrence{naive, w.place(naive)}, true
}

// lookBack bounds upTo: a schedule that has not started for this long is not active.
const lookBack = 5 * 366 * 24 * time.Hour

// upTo returns the last occurrence that is not after now. Several can be at the end of one gap: it is the last of them.
func (w wallClock) upTo(now time.Time) (occurrence, bool) {
	from := zoneless(now.In(w.loc)).Add(-lookBack)
	boundary := w.boundary(now, from, lookBack+slack)
	if boundary == 0 {
		return occurrence{}, false
	}
	naive := w.spec.Next(from.Add(boundary - time.Minute))
	return occurrence{naive, w.place(naive)}, true
}

// boundary is how long after from, on the zone-less clock, the next occurrence begins to be one after now. Going back is
// not in cron.Schedule; but "the next time after t is not after now" holds up to one t and not beyond it, so that t is
// found by bisection, to the minute, in as many steps for an expression of every minute as for one of every year.
func (w wallClock) boundary(now, from time.Time, span time.Duration) time.Duration {
	minutes := sort.Search(int(span/time.Minute), func(i int) bool {
		next := w.spec.Next(from.Add(time.Duration(i) * time.Minute))
		return next.IsZero() || w.place(next).After(now)
	})
	return time.Duration(minutes) * time.Minute
}

// zoneless reads the wall clock and forgets the zone.
func zoneless(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// place turns a time of the zone-less clock into an instant. It never goes backwards: a later naive time is never an
// earlier instant.
func (w wallClock) place(naive time.Time) time.Time {
	// The offsets on either side of any change nearby: a zone changes at most once in two days.
	_, before := naive.Add(-slack).In(w.loc).Zone()
	_, after := naive.Add(slack).In(w.loc).Zone()
	early := naive.Add(-time.Duration(before) * time.Second)
	if zoneless(early.In(w.loc)).Equal(naive) {
		return early.In(w.loc) // ordinary, or the first of two
	}
	late := naive.Add(-time.Duration(after) * time.Second)
	if zoneless(late.In(w.loc)).Equal(naive) {
		return late.In(w.loc)
	}
	// In the gap: its end is where the offset changes, between the two readings.
	lo, hi := late, early
	if hi.Before(lo) {
		lo, hi = hi, lo
	}
	seconds := int(hi.Sub(lo) / time.Second)
	i := sort.Search(seconds, func(i int) bool {
		_, offset := lo.Add(time.Duration(i) * time.Second).In(w.loc).Zone()
		return offset == after
	})
	return lo.Add(time.Duration(i) * time.Second).In(w.loc)
}
