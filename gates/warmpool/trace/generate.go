package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// The generated traces: three weeks from a Monday, a value a minute, in UTC, the same at every run. Demand goes through
// a model of a HorizontalPodAutoscaler, which is what turns load into pods: it syncs every minute, grows at once, and
// shrinks to the highest of the last five minutes.
const (
	step  = time.Minute
	weeks = 3
	// guidePeak is the peak for which the guide's ten pause pods are 15%.
	guidePeak = 67
)

var start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// kinds name the generators in the order in which they are listed.
var kinds = []struct {
	name, shows string
	load        func(*rand.Rand) []float64
}{
	{
		"daily", "office hours: a steep morning, a dip at noon, quiet nights and weekends. Rises are small and come at " +
			"known hours; a pool of one size pays all night for the morning.", daily,
	},
	{
		"flash-crowd", "a quiet service and, a few times a week at no particular hour, thirty to sixty pods within " +
			"two minutes. Nothing that learns hours can know when; the trace shows what being ready at any time costs.", flashCrowd,
	},
	{
		"batch", "forty pods at once at one in the morning and eight at five past every working hour. Demand is exactly as " +
			"regular as a clock; the trace shows what knowing the hour is worth.", batch,
	},
}

// Kinds lists the names that Generate knows.
func Kinds() []string {
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Shows says what a generated trace is for, "" for a name that Generate does not know.
func Shows(kind string) string {
	for _, k := range kinds {
		if k.name == kind {
			return k.shows
		}
	}
	return ""
}

// Generate makes one of the Kinds.
func Generate(kind string) (Trace, error) {
	for i, k := range kinds {
		if k.name == kind {
			return autoscaled(k.load(rand.New(rand.NewPCG(9, uint64(i))))), nil //nolint:gosec // a trace is to be the same at every run, not secret
		}
	}
	return nil, fmt.Errorf("generate demand %q: want one of %s", kind, strings.Join(Kinds(), ", "))
}

const minutes = weeks * 7 * 24 * 60

// daily: two humps on a weekday, a fifth of them on the weekend, and noise that lasts some minutes.
func daily(rng *rand.Rand) []float64 {
	load := make([]float64, minutes)
	noise := 0.0
	for i := range load {
		at := start.Add(time.Duration(i) * step)
		hour := float64(at.Hour()) + float64(at.Minute())/60
		office := 0.93*hump(hour, 8.9, 12.4, 0.18) + 1.0*hump(hour, 13.2, 18.0, 0.25) + 0.25*hump(hour, 18.5, 22, 0.8)
		if at.Weekday() == time.Saturday || at.Weekday() == time.Sunday {
			office *= 0.2
		}
		noise = 0.9*noise + 0.1*rng.NormFloat64()
		load[i] = max(2, (6+(guidePeak-10)*office)*(1+0.22*noise))
	}
	return load
}

// hump rises around from and falls around to; width in hours is how steep.
func hump(hour, from, to, width float64) float64 {
	logistic := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	return logistic((hour-from)/width) * logistic((to-hour)/width)
}

// flashCrowd: a low plain with about four crowds a week; each climbs in two minutes and is gone after an hour.
func flashCrowd(rng *rand.Rand) []float64 {
	load := make([]float64, minutes)
	for i := range load {
		load[i] = 6 + 0.5*rng.NormFloat64()
	}
	for range 4 * weeks {
		at, size := rng.IntN(minutes-120), 30+30*rng.Float64()
		for k := range 120 {
			climb := min(1, float64(k+1)/2)
			load[at+k] += size * climb * math.Exp(-float64(max(0, k-10))/25)
		}
	}
	return load
}

// batch: jobs by the clock; each ends by itself after about half an hour.
func batch(rng *rand.Rand) []float64 {
	load := make([]float64, minutes)
	run := func(at, pods int) {
		for range pods {
			for k := range 20 + rng.IntN(25) {
				if at+k < len(load) {
					load[at+k]++
				}
			}
		}
	}
	for i := range load {
		at := start.Add(time.Duration(i) * step)
		weekday := at.Weekday() != time.Saturday && at.Weekday() != time.Sunday
		switch {
		case at.Hour() == 1 && at.Minute() == 0:
			run(i, 36+rng.IntN(9))
		case weekday && at.Hour() >= 8 && at.Hour() < 18 && at.Minute() == 5:
			run(i, 7+rng.IntN(3))
		}
	}
	return load
}

// autoscaled is what a HorizontalPodAutoscaler makes of the load.
func autoscaled(load []float64) Trace {
	const stabilise = 5 // minutes; the autoscaler's default scale-down stabilisation
	t := make(Trace, len(load))
	for i := range load {
		recent := load[max(0, i-stabilise+1) : i+1]
		t[i] = Point{At: start.Add(time.Duration(i) * step), Replicas: math.Ceil(slices.Max(recent))}
	}
	return t
}
