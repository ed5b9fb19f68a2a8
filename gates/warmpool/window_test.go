package warmpool

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// The window's rises are those that looking at every pair of instants finds.
func TestWindowFindsTheLargestRise(t *testing.T) {
	const lead = 90 * time.Second
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := NewWindow(24 * time.Hour)
		var points []point
		now := monday
		want := map[int64]float64{}
		for range 120 {
			now = now.Add(time.Duration(rng.IntN(120)+1) * time.Second)
			demand := float64(rng.IntN(20))
			// Demand at any s in [now-lead, now) is that of the last point not after s.
			for i, p := range points {
				until := now
				if i+1 < len(points) {
					until = points[i+1].at
				}
				if until.After(now.Add(-lead)) {
					want[hourIndex(now)] = max(want[hourIndex(now)], demand-p.demand)
				}
			}
			points = append(points, point{now, demand})
			w.Observe(now, demand, lead)
		}
		for _, h := range w.Hours() {
			require.InDelta(t, want[h.Index], h.Rise, 1e-9, "seed %d hour %d", seed, h.Index)
		}
	}
}

func TestWindowCountsQuietHoursOnlyWhileItLooks(t *testing.T) {
	w := NewWindow(24 * time.Hour)
	w.Observe(monday, 3, time.Minute)
	w.Advance(monday.Add(5*time.Hour), time.Minute)
	require.Len(t, w.Hours(), 6)

	restored := NewWindow(24 * time.Hour)
	restored.Restore(w.Hours(), monday.Add(9*time.Hour))
	restored.Observe(monday.Add(9*time.Hour), 20, time.Minute)
	require.Len(t, restored.Hours(), 7, "hours in which nobody looked are not quiet hours")
	require.Zero(t, restored.Hours()[6].Rise, "what was there before the first look did not rise")

	restored.Advance(monday.Add(40*time.Hour), time.Minute)
	require.Equal(t, hourIndex(monday.Add(16*time.Hour)), restored.Hours()[0].Index, "hours older than the window are forgotten")
}

func TestWindowRestoreDropsWhatCannotBe(t *testing.T) {
	w, now := NewWindow(24*time.Hour), monday.Add(10*time.Hour)
	hour := hourIndex(now)
	w.Restore([]Hour{{Index: hour - 100, Rise: 5}, {Index: hour - 2, Rise: 3}, {Index: hour - 2, Rise: 4}, {Index: hour - 3, Rise: 9}, {Index: hour - 1, Rise: math.NaN()}, {Index: hour - 1, Rise: -1}, {Index: hour - 1, Rise: math.Inf(1)}, {Index: hour + 1, Rise: 7}, {Index: math.MaxInt64, Rise: 1}}, now)
	require.Equal(t, []Hour{{Index: hour - 2, Rise: 3}}, w.Hours())
	require.NotPanics(t, func() { w.Observe(now, math.NaN(), time.Minute); w.Observe(now.Add(-time.Hour), 5, time.Minute) })
}

func TestWindowComparesLikeHours(t *testing.T) {
	hours := func(from, n int, rise func(i int) float64) []Hour {
		out := make([]Hour, n)
		for i := range out {
			out[i] = Hour{Index: hourIndex(monday) + int64(from+i), Rise: rise(i)}
		}
		return out
	}
	nine := 9 * time.Hour
	cases := map[string]struct {
		hours []Hour
		at    time.Duration
		want  float64
	}{
		"nothing seen":                    {nil, nine, 0},
		"one day seen: the whole window":  {hours(0, 24, func(i int) float64 { return float64(i) }), 24*time.Hour + nine, 22},
		"a week seen: the same hour":      {hours(0, 168, func(i int) float64 { return map[bool]float64{true: 30}[i%24 == 9] }), 7*24*time.Hour + nine, 30},
		"and not the hour after":          {hours(0, 168, func(i int) float64 { return map[bool]float64{true: 30}[i%24 == 9] }), 7*24*time.Hour + nine + time.Hour, 0},
		"weekdays do not make a weekend":  {hours(0, 168, func(i int) float64 { return map[bool]float64{true: 30}[i%24 == 9 && i/24 < 5] }), 12*24*time.Hour + nine, 0},
		"five weeks: Mondays are Mondays": {hours(0, 5*168, func(i int) float64 { return map[bool]float64{true: 30}[i%168 == 9] }), 35*24*time.Hour + nine, 30},
		"and Tuesdays are not":            {hours(0, 5*168, func(i int) float64 { return map[bool]float64{true: 30}[i%168 == 9] }), 36*24*time.Hour + nine, 0},
		"one lead time ahead":             {hours(0, 168, func(i int) float64 { return map[bool]float64{true: 30}[i%24 == 9] }), 7*24*time.Hour + nine - time.Minute, 30},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w, now := NewWindow(60*24*time.Hour), monday.Add(tc.at)
			w.Restore(tc.hours, now)
			require.InDelta(t, tc.want, w.Quantile(now, 90*time.Second, 0.95), 1e-9)
		})
	}
}

func TestTimesForgetAndSurvive(t *testing.T) {
	var times Times
	require.Equal(t, time.Minute, times.Quantile(0.95, time.Minute))
	for i := range 2 * maxTimes {
		times.Add(time.Duration(i) * time.Second)
	}
	times.Add(-time.Second)
	require.Equal(t, maxTimes, times.Len())
	require.Equal(t, 124*time.Second, times.Quantile(0.95, 0))

	var restored Times
	restored.Restore(append(times.Seconds(), math.NaN(), -1, 1e12))
	require.Equal(t, times, restored)
}
