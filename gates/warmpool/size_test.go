package warmpool

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"headstart.dev/gates/v1alpha1"
)

const lead = 90 * time.Second

// anyConfig is a random pool that NewConfig would accept.
func anyConfig(t *testing.T, rng *rand.Rand) Config {
	t.Helper()
	cfg := Config{Min: int32(rng.IntN(10)), Max: int32(10 + rng.IntN(40))}
	for i := range rng.IntN(4) {
		s := schedule(t, []string{"0 8 * * *", "30 2 * * 1-5", "0 */3 * * *"}[rng.IntN(3)], []string{"0 19 * * *", "45 4 * * *"}[rng.IntN(2)], newYork, int32(rng.IntN(60)))
		s.name = string(rune('a' + i))
		cfg.Schedules = append(cfg.Schedules, s)
	}
	if rng.IntN(3) > 0 {
		cfg.Adaptive = &Adaptive{Window: 48 * time.Hour, Quantile: rng.Float64(), Headroom: intstr.FromString("10%"), ScaleDownAfter: 10 * time.Minute}
	}
	if rng.IntN(2) > 0 {
		lid := rng.Float64() * 8
		cfg.CostPerReplicaHour, cfg.MaxPerHour = 0.17, &lid
	}
	return cfg
}

// Two sizers see the same world, one of them with more demand at every rise. Neither is ever over max or budget, nor
// under a floor that these allow, and more demand never makes a smaller pool.
func TestSizeProperties(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		cfg := anyConfig(t, rng)
		less, more := NewSizer(cfg), NewSizer(cfg)
		now := at(t, "UTC", "2026-03-06 00:00").Add(time.Duration(rng.IntN(100000)) * time.Second)
		factor := 1 + rng.Float64()
		for range 100 {
			now = now.Add(time.Duration(rng.IntN(1800)) * time.Second)
			demand, gated := rng.Float64()*30, rng.Float64()*10
			less.Observe(now, demand, lead)
			more.Observe(now, demand*factor, lead)
			d, m := less.Decide(now, lead, gated), more.Decide(now, lead, gated)
			require.GreaterOrEqual(t, m.Replicas, d.Replicas, "seed %d: monotone in demand", seed)
			require.LessOrEqual(t, d.Replicas, cfg.Max, "seed %d", seed)
			affordable, capped := cfg.Affordable()
			if capped {
				require.LessOrEqual(t, float64(d.Replicas)*cfg.CostPerReplicaHour, *cfg.MaxPerHour+1e-9, "seed %d", seed)
			}
			for _, s := range cfg.Schedules {
				if s.Active(now) {
					floor := min(s.min, cfg.Max)
					if capped {
						floor = min(floor, affordable)
					}
					require.GreaterOrEqual(t, d.Replicas, floor, "seed %d: under the floor at %s", seed, now)
				}
			}
			require.Equal(t, d.Limit != LimitNone, d.Replicas < d.Wanted, "seed %d: a cut is owned up to", seed)
			require.NotEmpty(t, d.Reason())
			require.True(t, less.Wake(now, lead).After(now))
		}
	}
}

// What NextChange foretells happens, and nothing happens before it; Wake never sleeps through it.
func TestNextChangeComesTrue(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		cfg := anyConfig(t, rng)
		s := NewSizer(cfg)
		now := at(t, "UTC", "2026-03-06 00:00").Add(time.Duration(rng.IntN(100000)) * time.Second)
		for range 40 {
			now = now.Add(time.Duration(rng.IntN(1800)) * time.Second)
			s.Observe(now, rng.Float64()*30, lead)
		}
		current := s.Decide(now, lead, 0)
		change, ok := s.NextChange(now, lead, 0)
		if !ok || change.At.Sub(now) > 12*time.Hour {
			continue
		}
		require.NotEqual(t, current.Replicas, change.Decision.Replicas)
		require.Equal(t, current.Replicas, s.at(change.At.Add(-time.Second), lead, 0).Replicas, "seed %d", seed)
		require.False(t, s.Wake(now, lead).After(change.At), "seed %d: asleep at %s", seed, change.At)
	}
}

func TestScheduleStartsEarlyAndStaysWhenTheLeadShrinks(t *testing.T) {
	s := NewSizer(Config{Min: 2, Max: 50, Schedules: []Schedule{
		schedule(t, "30 8 * * 1-5", "0 19 * * 1-5", newYork, 30),
	}})
	start := at(t, newYork, "2026-03-09 08:30")
	require.EqualValues(t, 2, s.Decide(start.Add(-lead-time.Second), lead, 0).Replicas)
	require.EqualValues(t, 30, s.Decide(start.Add(-lead), lead, 0).Replicas)
	require.EqualValues(t, 30, s.Decide(start.Add(-time.Minute), 20*time.Second, 0).Replicas, "nodes came sooner than thought")
	require.EqualValues(t, 30, s.Decide(start.Add(time.Hour), 20*time.Second, 0).Replicas)
	require.EqualValues(t, 2, s.Decide(at(t, newYork, "2026-03-09 19:00"), 20*time.Second, 0).Replicas)
}

func TestOverlappingSchedulesTakeTheLargest(t *testing.T) {
	day, noon := schedule(t, "0 8 * * *", "0 20 * * *", "UTC", 10), schedule(t, "0 12 * * *", "0 13 * * *", "UTC", 25)
	noon.name = "noon"
	s := NewSizer(Config{Max: 50, Schedules: []Schedule{day, noon}})
	for hour, want := range map[string]int32{"11:00": 10, "12:30": 25, "13:00": 10, "20:00": 0} {
		require.Equal(t, want, NewSizer(s.Config()).Decide(at(t, "UTC", "2026-06-02 "+hour), lead, 0).Replicas, hour)
	}
	require.Equal(t, "schedule noon asks for 25", s.Decide(at(t, "UTC", "2026-06-02 12:30"), lead, 0).Reason())
}

func TestAdaptiveGrowsAtOnceAndShrinksLate(t *testing.T) {
	s := NewSizer(Config{Max: 50, Adaptive: &Adaptive{Window: time.Hour, Quantile: 1, ScaleDownAfter: 10 * time.Minute}})
	s.Observe(monday, 5, lead)
	require.EqualValues(t, 0, s.Decide(monday, lead, 0).Replicas)
	now := monday.Add(50 * time.Minute)
	s.Observe(now, 17, lead)
	require.EqualValues(t, 12, s.Decide(now, lead, 0).Replicas, "at once")
	later := monday.Add(2 * time.Hour) // the hour of the rise has left the window
	s.Decide(later.Add(-time.Second), lead, 0)
	require.EqualValues(t, 12, s.Decide(later.Add(9*time.Minute), lead, 0).Replicas, "held")
	require.EqualValues(t, 0, s.Decide(later.Add(11*time.Minute), lead, 0).Replicas, "and let go")

	restarted := NewSizer(s.Config())
	restarted.RestoreHeld([]Held{{12, later.Add(5 * time.Minute)}, {40, later.Add(99 * time.Hour)}, {-3, later.Add(time.Minute)}}, later)
	require.EqualValues(t, 40, restarted.Decide(later, lead, 0).Replicas)
	require.EqualValues(t, 0, restarted.Decide(later.Add(11*time.Minute), lead, 0).Replicas, "what claims to hold for ever is cut to one stabilisation time")
}

func TestGatedPodsCountAtOnceAndNoLonger(t *testing.T) {
	s := NewSizer(Config{Min: 1, Max: 8, Adaptive: &Adaptive{Window: time.Hour, Quantile: 1, ScaleDownAfter: time.Hour}})
	d := s.Decide(monday, lead, 5.2)
	require.EqualValues(t, 6, d.Replicas)
	require.Equal(t, "gated pods wait for 6", d.Reason())
	d = s.Decide(monday, lead, 20)
	require.EqualValues(t, 8, d.Replicas)
	require.Equal(t, LimitMax, d.Limit)
	require.Equal(t, "gated pods wait for 20, max is 8", d.Reason())
	require.EqualValues(t, 1, s.Decide(monday, lead, 0).Replicas)
}

func TestNewConfig(t *testing.T) {
	percent := intstr.FromString("10%")
	spec := v1alpha1.WarmPoolSpec{
		Min: 2, Max: 50,
		Schedules: []v1alpha1.WarmPoolSchedule{{Name: "morning", Start: "30 8 * * 1-5", End: "0 19 * * 1-5", TimeZone: newYork, Min: 30}},
		Adaptive:  &v1alpha1.WarmPoolAdaptive{CostPerMiss: "3.23", Headroom: &percent, Window: &metav1.Duration{Duration: 24 * time.Hour}},
		Budget:    &v1alpha1.WarmPoolBudget{CostPerReplicaHour: "0.17", MaxPerHour: "20"},
	}
	cfg, err := NewConfig(spec)
	require.NoError(t, err)
	require.InDelta(t, 0.95, cfg.Adaptive.Quantile, 1e-9, "3.23 / (3.23 + 0.17)")
	require.Equal(t, 24*time.Hour, cfg.Adaptive.Window)
	require.Equal(t, DefaultScaleDownAfter, cfg.Adaptive.ScaleDownAfter)
	affordable, ok := cfg.Affordable()
	require.True(t, ok)
	require.EqualValues(t, 117, affordable)

	spec.Budget.MaxPerHour = "0"
	cfg, err = NewConfig(spec)
	require.NoError(t, err)
	require.Zero(t, NewSizer(cfg).Decide(at(t, newYork, "2026-03-06 09:00"), lead, 0).Replicas, "a budget of nothing pays for nothing")
	spec.Budget.MaxPerHour = "20"

	cases := map[string]struct {
		change func(*v1alpha1.WarmPoolSpec)
		says   string
	}{
		"min above max":              {func(s *v1alpha1.WarmPoolSpec) { s.Min = 60 }, "min <= max"},
		"a quantile above one":       {func(s *v1alpha1.WarmPoolSpec) { s.Adaptive = &v1alpha1.WarmPoolAdaptive{Quantile: "1.2"} }, "from 0 to 1"},
		"a quantile that is none":    {func(s *v1alpha1.WarmPoolSpec) { s.Adaptive = &v1alpha1.WarmPoolAdaptive{Quantile: "NaN"} }, "from 0 to 1"},
		"quantile and cost per miss": {func(s *v1alpha1.WarmPoolSpec) { s.Adaptive.Quantile = "0.9" }, "set one"},
		"no cost to hold":            {func(s *v1alpha1.WarmPoolSpec) { s.Budget = nil }, "costPerReplicaHour"},
		"headroom that is no number": {func(s *v1alpha1.WarmPoolSpec) { h := intstr.FromString("much"); s.Adaptive.Headroom = &h }, "headroom"},
		"a bad cron expression":      {func(s *v1alpha1.WarmPoolSpec) { s.Schedules[0].Start = "soon" }, "parse start"},
		"a negative budget":          {func(s *v1alpha1.WarmPoolSpec) { s.Budget.MaxPerHour = "-1" }, "not negative"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			broken := *spec.DeepCopy()
			tc.change(&broken)
			_, err := NewConfig(broken)
			require.ErrorContains(t, err, tc.says)
		})
	}
}

func TestCriticalFractile(t *testing.T) {
	require.Zero(t, CriticalFractile(0, 1))
	require.InDelta(t, 0.5, CriticalFractile(1, 1), 1e-9)
	require.InDelta(t, 1, CriticalFractile(1, 0), 1e-9)
}

// A spec that the schema lets through must not stop the controller: the next change is looked for under its lock.
func TestNextChangeIsCheapWhateverTheSchedules(t *testing.T) {
	for _, expr := range []string{"30 8 * * 1-5", "0 * * * *", "* * * * *"} {
		cfg := Config{Min: 5, Max: 9}
		for i := range 32 {
			s := schedule(t, expr, expr, newYork, 1)
			s.name = fmt.Sprint(i)
			cfg.Schedules = append(cfg.Schedules, s)
		}
		s, now := NewSizer(cfg), at(t, newYork, "2026-03-06 09:00")
		s.Decide(now, lead, 0)
		begun := time.Now()
		_, found := s.NextChange(now, lead, 0)
		require.False(t, found, "min is above every floor")
		require.Less(t, time.Since(begun), 5*time.Second, expr)
	}
}
