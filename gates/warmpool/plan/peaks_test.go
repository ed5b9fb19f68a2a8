package plan_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/intstr"

	"headstart.dev/gates/warmpool/plan"
	"headstart.dev/gates/warmpool/trace"
)

// peaks is a demand with two peaks a day, half of it at weekends, that grows by 3% a week.
func peaks(every time.Duration) trace.Trace {
	var t trace.Trace
	for at := monday; at.Before(monday.AddDate(0, 0, 35)); at = at.Add(every) {
		hour := float64(at.Hour()) + float64(at.Minute())/60
		hump := func(center, width, height float64) float64 {
			off := (hour - center) / width
			return height * math.Exp(-off*off/2)
		}
		demand := 10 + hump(9.5, 1, 60) + hump(20, 1.5, 50)
		if day := at.Weekday(); day == time.Saturday || day == time.Sunday {
			demand /= 2
		}
		demand *= math.Pow(1.03, at.Sub(monday).Hours()/168)
		t = append(t, trace.Point{At: at, Replicas: math.Round(demand)})
	}
	return t
}

// A rise that moves over the edge of an hour, and one of the hour in which the window began to observe, counted as none:
// headroom is a share of it, and no setting removed the miss.
func TestHeadroomRemovesEveryMiss(t *testing.T) {
	for _, every := range []time.Duration{time.Minute, 5 * time.Minute} {
		cfg := selfSizing()
		cfg.Min, cfg.Max = 0, 200
		cfg.Adaptive.Quantile, cfg.Adaptive.Headroom = 1, intstr.FromString("100%")
		r := run(t, cfg, peaks(every), 168*time.Hour)
		require.Zero(t, row(t, r, plan.NamePool).Misses, "a point every %v", every)
		require.Greater(t, row(t, r, plan.NameNone).Misses, 1000)
	}
}
