package warmpool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const newYork = "America/New_York"

func at(t *testing.T, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	require.NoError(t, err)
	parsed, err := time.ParseInLocation("2006-01-02 15:04", text, loc)
	require.NoError(t, err)
	return parsed
}

func schedule(t *testing.T, start, end, zone string, floor int32) Schedule {
	t.Helper()
	s, err := NewSchedule("s", start, end, zone, floor)
	require.NoError(t, err)
	return s
}

func TestScheduleActive(t *testing.T) {
	cases := map[string]struct {
		start, end, zone string
		at               string
		want             bool
	}{
		"at the start":     {"30 8 * * 1-5", "0 19 * * 1-5", newYork, "2026-03-06 08:30", true},
		"before the start": {"30 8 * * 1-5", "0 19 * * 1-5", newYork, "2026-03-06 08:29", false},
		"at the end":       {"30 8 * * 1-5", "0 19 * * 1-5", newYork, "2026-03-06 19:00", false},
		"on a weekend":     {"30 8 * * 1-5", "0 19 * * 1-5", newYork, "2026-03-07 12:00", false},
		"the Monday after the clocks went forward":   {"30 8 * * 1-5", "0 19 * * 1-5", newYork, "2026-03-09 08:30", true},
		"one minute earlier on that Monday":          {"30 8 * * 1-5", "0 19 * * 1-5", newYork, "2026-03-09 08:29", false},
		"across midnight":                            {"0 22 * * *", "0 6 * * *", "Europe/Berlin", "2026-06-02 03:00", true},
		"one that ends when it starts never ends":    {"0 8 * * *", "0 8 * * *", "UTC", "2026-06-02 03:00", true},
		"a start that daylight saving leaps over":    {"30 2 * * *", "0 5 * * *", newYork, "2026-03-08 03:00", true},
		"just before the leap":                       {"30 2 * * *", "0 5 * * *", newYork, "2026-03-08 01:59", false},
		"once a year, eleven months ago, still held": {"0 0 1 1 *", "0 0 31 12 *", "UTC", "2026-11-30 00:00", true},
		"on a leap day only":                         {"0 0 29 2 *", "0 0 1 3 *", "UTC", "2028-02-29 12:00", true},
		"a window that daylight saving leaps over":   {"10 2 * * *", "50 2 * * *", newYork, "2026-03-08 12:00", false},
		"one that ends with the leap":                {"30 2 * * *", "0 3 * * *", newYork, "2026-03-08 12:00", false},
		"the start fired while nobody was there":     {"0 9 * * 1", "0 9 * * 5", "UTC", "2026-06-04 17:13", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := schedule(t, tc.start, tc.end, tc.zone, 30)
			require.Equal(t, tc.want, s.Active(at(t, tc.zone, tc.at)))
		})
	}
}

func TestScheduleFiresOnceInARepeatedHour(t *testing.T) {
	// 2026-11-01 in New York: 01:30 comes twice, 05:30 and 06:30 UTC.
	w, err := newWallClock("30 1 * * *", at(t, newYork, "2026-01-01 00:00").Location())
	require.NoError(t, err)
	first := w.next(at(t, "UTC", "2026-11-01 00:00"))
	require.Equal(t, "2026-11-01 05:30", first.UTC().Format("2006-01-02 15:04"))
	require.Equal(t, "2026-11-02 06:30", w.next(first).UTC().Format("2006-01-02 15:04"))
}

func TestScheduleInAGapFiresAtItsEnd(t *testing.T) {
	cases := map[string]struct{ zone, expr, after, want string }{
		"New York, spring":                 {newYork, "30 2 * * *", "2026-03-08 00:00", "2026-03-08 07:00"},
		"Berlin, spring":                   {"Europe/Berlin", "15 2 * * *", "2026-03-29 00:00", "2026-03-29 01:00"},
		"Lord Howe, half an hour":          {"Australia/Lord_Howe", "15 2 * * *", "2026-10-03 00:00", "2026-10-03 15:30"},
		"Cairo, whose midnight is missing": {"Africa/Cairo", "0 0 * * *", "2026-04-23 00:00", "2026-04-23 22:00"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			loc, err := time.LoadLocation(tc.zone)
			require.NoError(t, err)
			w, err := newWallClock(tc.expr, loc)
			require.NoError(t, err)
			got := w.next(at(t, "UTC", tc.after))
			for got.Before(at(t, "UTC", tc.want).Add(-time.Hour)) {
				got = w.next(got)
			}
			require.Equal(t, tc.want, got.UTC().Format("2006-01-02 15:04"))
		})
	}
}

// The wall clock never runs backwards, and upTo is the inverse of next, across every change of a year in zones whose
// changes differ.
func TestWallClockIsMonotone(t *testing.T) {
	for _, zone := range []string{newYork, "Europe/Berlin", "Australia/Lord_Howe", "Africa/Cairo", "UTC", "Asia/Kolkata"} {
		loc, err := time.LoadLocation(zone)
		require.NoError(t, err)
		for _, expr := range []string{"30 1 * * *", "15 2 * * *", "0 0 * * *", "*/20 * * * *"} {
			w, err := newWallClock(expr, loc)
			require.NoError(t, err)
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			for range 380 { // a year of days
				next := w.next(now)
				require.True(t, next.After(now), "%s %s", zone, expr)
				// The changes are in March, April, October and November; looking back costs a hundred times a look ahead.
				if month := next.Month(); next.Day()%2 == 0 && (month == 3 || month == 4 || month == 10 || month == 11) {
					back, ok := w.upTo(next)
					require.True(t, ok)
					require.True(t, back.at.Equal(next), "%s %s: upTo(%s) is %s", zone, expr, next, back.at)
					back, ok = w.upTo(next.Add(-time.Second))
					require.True(t, ok)
					require.True(t, back.at.Before(next))
				}
				now = next
			}
		}
	}
}

func TestNewScheduleRefuses(t *testing.T) {
	cases := map[string]struct{ start, end, zone, says string }{
		"a date that never comes":    {"0 0 30 2 *", "0 0 1 3 *", "UTC", "no date that exists"},
		"an interval":                {"@every 1h", "0 0 1 3 *", "UTC", "write times"},
		"a zone in the expression":   {"CRON_TZ=UTC 0 0 * * *", "0 0 1 3 *", "UTC", "timeZone"},
		"an unknown zone":            {"0 0 * * *", "0 1 * * *", "Mars/Olympus", "Mars/Olympus"},
		"the controller's own zone":  {"0 0 * * *", "0 1 * * *", "Local", "name a zone"},
		"six fields":                 {"0 0 0 * * *", "0 1 * * *", "UTC", "parse start"},
		"an hour that is none":       {"0 0 * * *", "0 25 * * *", "UTC", "parse end"},
		"the guide's range of hours": {"0 19-7 * * *", "0 8 * * *", "UTC", "parse start"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := NewSchedule("s", tc.start, tc.end, tc.zone, 1)
			require.ErrorContains(t, err, tc.says)
		})
	}
}
