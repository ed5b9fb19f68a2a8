package warmpool

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"headstart.dev/gates/v1alpha1"
)

const (
	// DefaultWindow is one week: the shortest span that has every hour of the week.
	DefaultWindow = 7 * 24 * time.Hour
	// DefaultQuantile leaves the largest twentieth of the hours uncovered.
	DefaultQuantile = 0.95
	// DefaultScaleDownAfter is longer than a node takes to come, so that a pool never drops what it will order again at once.
	DefaultScaleDownAfter = 10 * time.Minute
	// DefaultLead is assumed until a new node was measured. Source: the guide's 60 to 90 s from scale-up to running on a
	// new node.
	DefaultLead = 90 * time.Second
)

// Config is what a pool's size depends on besides demand and time.
type Config struct {
	Min, Max int32
	// Percent is a share of the workload's replicas; 0 where the user gave none.
	Percent   int32
	Schedules []Schedule
	// Adaptive is nil where the size does not follow demand.
	Adaptive *Adaptive
	// CostPerReplicaHour is 0 where the user gave none.
	CostPerReplicaHour float64
	// MaxPerHour is nil where the user gave none; 0 pays for nothing.
	MaxPerHour *float64
}

// Adaptive is how the size follows demand.
type Adaptive struct {
	Window         time.Duration
	Quantile       float64
	Headroom       intstr.IntOrString
	ScaleDownAfter time.Duration
}

// NewConfig reads a spec. It joins every mistake it finds: the schema lets through what only a parser can judge, cron
// expressions and zones, and a spec from a file has passed no schema at all.
func NewConfig(spec v1alpha1.WarmPoolSpec) (Config, error) {
	cfg := Config{Min: spec.Min, Max: spec.Max}
	var errs []error
	if spec.Min < 0 || spec.Max < spec.Min {
		errs = append(errs, fmt.Errorf("min %d, max %d: want 0 <= min <= max", spec.Min, spec.Max))
	}
	if spec.Percent != nil {
		cfg.Percent = *spec.Percent
		if cfg.Percent < 0 || spec.Shape.ScalableRef == nil {
			errs = append(errs, fmt.Errorf("percent %d: want a share of the replicas of shape.scalableRef, which must be set", cfg.Percent))
		}
	}
	for _, s := range spec.Schedules {
		schedule, err := NewSchedule(s.Name, s.Start, s.End, s.TimeZone, s.Min)
		errs = append(errs, err)
		cfg.Schedules = append(cfg.Schedules, schedule)
	}
	if spec.Budget != nil {
		var err error
		cfg.CostPerReplicaHour, err = amount("budget.costPerReplicaHour", spec.Budget.CostPerReplicaHour)
		errs = append(errs, err)
		if spec.Budget.MaxPerHour != "" {
			lid, err := amount("budget.maxPerHour", spec.Budget.MaxPerHour)
			errs = append(errs, err)
			cfg.MaxPerHour = &lid
		}
		if cfg.MaxPerHour != nil && cfg.CostPerReplicaHour <= 0 {
			errs = append(errs, errors.New("budget.maxPerHour needs budget.costPerReplicaHour above 0"))
		}
	}
	if spec.Adaptive != nil {
		adaptive, err := newAdaptive(*spec.Adaptive, cfg.CostPerReplicaHour)
		errs = append(errs, err)
		cfg.Adaptive = &adaptive
	}
	return cfg, errors.Join(errs...)
}

func newAdaptive(spec v1alpha1.WarmPoolAdaptive, costPerReplicaHour float64) (Adaptive, error) {
	a := Adaptive{Window: DefaultWindow, ScaleDownAfter: DefaultScaleDownAfter}
	if spec.Window != nil {
		a.Window = spec.Window.Duration
	}
	if spec.ScaleDownAfter != nil {
		a.ScaleDownAfter = spec.ScaleDownAfter.Duration
	}
	if spec.Headroom != nil {
		a.Headroom = *spec.Headroom
	}
	if a.Window < time.Hour {
		return a, fmt.Errorf("adaptive.window %v: want at least 1h", a.Window)
	}
	if _, err := intstr.GetScaledValueFromIntOrPercent(&a.Headroom, 100, true); err != nil {
		return a, fmt.Errorf("adaptive.headroom %q: %w", a.Headroom.String(), err)
	}
	var err error
	a.Quantile, err = newQuantile(spec, costPerReplicaHour)
	return a, err
}

// newQuantile is the quantile that is given, or the one that costs make the right one.
func newQuantile(spec v1alpha1.WarmPoolAdaptive, costPerReplicaHour float64) (float64, error) {
	switch {
	case spec.Quantile != "" && spec.CostPerMiss != "":
		return 0, errors.New("adaptive.quantile and adaptive.costPerMiss: set one, the other follows from it")
	case spec.Quantile != "":
		q, err := strconv.ParseFloat(spec.Quantile, 64)
		if err != nil || q < 0 || q > 1 || math.IsNaN(q) {
			return 0, fmt.Errorf("adaptive.quantile %q: want a number from 0 to 1, such as \"0.95\"", spec.Quantile)
		}
		return q, nil
	case spec.CostPerMiss != "":
		miss, err := amount("adaptive.costPerMiss", spec.CostPerMiss)
		if err == nil && costPerReplicaHour <= 0 {
			err = errors.New("adaptive.costPerMiss needs budget.costPerReplicaHour above 0")
		}
		return CriticalFractile(miss, costPerReplicaHour), err
	}
	return DefaultQuantile, nil
}

// CriticalFractile is the share of hours that are worth covering when a miss costs miss and holding a replica for an
// hour costs hold: the newsvendor's answer. One more replica pays while the chance that it is needed, times miss,
// exceeds the chance that it is not, times hold.
func CriticalFractile(miss, hold float64) float64 {
	if !(miss > 0) {
		return 0
	}
	return miss / (miss + hold)
}

// Affordable is how many replicas the budget pays for, and whether there is one.
func (c Config) Affordable() (int32, bool) {
	if c.MaxPerHour == nil || c.CostPerReplicaHour <= 0 {
		return 0, false
	}
	// The small term keeps 0.3/0.1 from being 2.
	return int32(min(math.Floor(*c.MaxPerHour/c.CostPerReplicaHour+1e-9), math.MaxInt32)), true
}

func amount(field, text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%s %q: want a decimal number that is not negative, such as \"0.17\"", field, text)
	}
	return v, nil
}
