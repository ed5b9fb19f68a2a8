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
// no zone. Unlike a floor it is an event: it sets the size when it fires, and it starts to grow the pool at that time.
type guideCron struct {
	floor    warmpool.Schedule
	up, down int32
}

func newGuideCron() (*guideCron, error) {
	floor, err := warmpool.NewSchedule("guide", "30 8 * * 1-5", "0 19 * * 1-5", "UTC", 30)
	if err != nil {
		return nil, fmt.Errorf("build the guide's cron pool: %w", err)
	}
	return &guideCron{floor: floor, up: 30, down: 5}, nil
}

func (g *guideCron) target(now time.Time, _ float64) int32 {
	if g.floor.Active(now) {
		return g.up
	}
	return g.down
}

// wake is never earlier than the next step: both CronJobs fire on whole minutes.
func (g *guideCron) wake(now time.Time) time.Time { return now.AddDate(1, 0, 0) }

// adaptive is a WarmPool, decided by the code that the controller runs.
type adaptive struct {
	sizer *warmpool.Sizer
	lead  time.Duration
}

func (a *adaptive) target(now time.Time, demand float64) int32 {
	a.sizer.Observe(now, demand, a.lead)
	return a.sizer.Decide(now, a.lead, 0).Replicas
}

func (a *adaptive) wake(now time.Time) time.Time { return a.sizer.Wake(now, a.lead) }
