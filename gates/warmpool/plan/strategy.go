package plan

import (
	"fmt"
	"math"
	"time"

	"headstart.dev/gates/warmpool"
)

// strategy decides the size of a pool from what has happened so far.
type strategy interface {
	// target is told the demand at now and returns the size wanted from now on. Calls go forward in time.
	target(now time.Time, demand float64) int32
	// wake returns when target is to be asked again even if no step is due.
	wake(now time.Time) time.Time
}

// fixed is a pool of one size.
type fixed int32

func (f fixed) target(time.Time, float64) int32 { return int32(f) }
func (f fixed) wake(now time.Time) time.Time    { return now.AddDate(1, 0, 0) }

// guideShare is the guide's size of a pool: 15% of the expected peak.
const guideShare = 0.15

func guideFixed(peak float64) fixed { return fixed(math.Ceil(guideShare*peak - 1e-9)) }

// guideCron is the guide's pair of CronJobs: 30 replicas from 08:30 and 5 from 19:00 on weekdays, UTC because they name
// no zone. It starts to grow the pool at that time and not before.
type guideCron struct{ floors *warmpool.Sizer }

// The sizes that the guide's CronJobs set.
const guideUp, guideDown = 30, 5

func newGuideCron() (*guideCron, error) {
	day, err := warmpool.NewSchedule("guide", "30 8 * * 1-5", "0 19 * * 1-5", "UTC", guideUp)
	if err != nil {
		return nil, fmt.Errorf("build the guide's cron pool: %w", err)
	}
	return &guideCron{warmpool.NewSizer(warmpool.Config{Min: guideDown, Max: guideUp, Schedules: []warmpool.Schedule{day}})}, nil
}

func (g *guideCron) target(now time.Time, _ float64) int32 {
	return g.floors.Decide(now, 0, 0).Replicas
}

func (g *guideCron) wake(now time.Time) time.Time { return g.floors.Wake(now, 0) }

// adaptive is a WarmPool, decided by the code that the controller runs.
type adaptive struct {
	sizer *warmpool.Sizer
	lead  time.Duration
}

func (a *adaptive) target(now time.Time, demand float64) int32 {
	a.sizer.Observe(now, demand, a.lead)
	a.sizer.SetScale(int32(min(ceil(demand), math.MaxInt32)))
	return a.sizer.Decide(now, a.lead, 0).Replicas
}

func (a *adaptive) wake(now time.Time) time.Time { return a.sizer.Wake(now, a.lead) }
