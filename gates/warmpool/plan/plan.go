package plan

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"time"

	"headstart.dev/gates/warmpool"
	"headstart.dev/gates/warmpool/trace"
)

// Input is what a plan is made from.
type Input struct {
	// Pool names the WarmPool in the report.
	Pool   string
	Config warmpool.Config
	// Source names the demand in the report; Shows is what a generated trace is for.
	Source, Shows string
	Demand        trace.Trace
	Model         Model
	// CostPerReplicaHour is used where Config has none.
	CostPerReplicaHour float64
	Incidents          Incidents
}

// Incidents are the figures of the guide's ROI formula: what a month without a warm pool is said to cost.
type Incidents struct {
	PerMonth float64 `json:"perMonth"`
	Cost     float64 `json:"cost"`
}

// Report is the outcome of a plan.
type Report struct {
	Pool      string    `json:"pool"`
	Source    string    `json:"demand"`
	Shows     string    `json:"shows,omitempty"`
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	Peak      float64   `json:"peakReplicas"`
	Asked     int       `json:"podsAsked"`
	Cost      float64   `json:"costPerReplicaHour"`
	Incidents Incidents `json:"incidents"`
	Lead      float64   `json:"leadSeconds"`
	WarmUp    float64   `json:"warmUpHours"`
	// Rows: no pool, the WarmPool, the guide's fixed 15%, the guide's CronJobs.
	Rows []Row `json:"strategies"`
	// EqualMisses sets the WarmPool against the fixed pool with neither allowed more misses than the other.
	EqualMisses EqualMisses `json:"equalMisses"`
	// Notes are what a reader must know to judge the figures.
	Notes []string `json:"notes"`
}

// Row is one strategy.
type Row struct {
	Name string `json:"name"`
	// Size is the setting, for a person.
	Size         string  `json:"size"`
	Misses       int     `json:"misses"`
	MissRate     float64 `json:"missRate"`
	BadHours     int     `json:"hoursWithMisses"`
	WaitP50      float64 `json:"waitP50Seconds"`
	WaitP95      float64 `json:"waitP95Seconds"`
	WaitP99      float64 `json:"waitP99Seconds"`
	ReplicaHours float64 `json:"replicaHours"`
	Cost         float64 `json:"cost"`
	MonthlyCost  float64 `json:"costPerMonth"`
	// GuideROI is the guide's formula: every incident counts as prevented.
	GuideROI float64 `json:"roiGuidePerMonth"`
	// ROI counts as prevented only the share of bad hours that the replay shows prevented.
	ROI float64 `json:"roiPerMonth"`
	// SecondsSaved is the waiting that the pool spared, CostPerSecond its price.
	SecondsSaved  float64  `json:"secondsSaved"`
	CostPerSecond float64  `json:"costPerSecondSaved"`
	Columns       []Column `json:"-"`
}

// EqualMisses is the comparison at equal service.
type EqualMisses struct {
	// Allowed is how many misses the guide's fixed pool has, so how many the WarmPool may have.
	Allowed int `json:"allowed"`
	// Reached says whether any quantile keeps within that. If none does, the other figures are of the best there is.
	Reached  bool    `json:"reached"`
	Quantile float64 `json:"quantile"`
	Headroom string  `json:"headroom"`
	// AsWritten says that the setting is the WarmPool's own, and not one that was found by trying.
	AsWritten bool    `json:"asWritten,omitempty"`
	Misses    int     `json:"misses"`
	Cost      float64 `json:"cost"`
	// FixedCost is the guide's fixed pool's.
	FixedCost float64 `json:"fixedCost"`
	// Saving is 1 - Cost/FixedCost; negative when the WarmPool costs more.
	Saving float64 `json:"saving"`
	// SameAsPool is the smallest fixed size that misses no more than the WarmPool as written, and its cost: hindsight.
	FixedSize      int32   `json:"fixedSizeAtPoolMisses"`
	FixedSizeCost  float64 `json:"fixedSizeCost"`
	FixedSizeFound bool    `json:"fixedSizeFound"`
}

// Names of the strategies.
const (
	NameNone  = "no pool"
	NamePool  = "WarmPool"
	NameFixed = "fixed 15%"
	NameCron  = "guide's cron"
)

const hoursPerMonth = 730

// Run replays the demand. It fails where the input makes no sense, with what to change.
func Run(in Input) (Report, error) {
	if err := in.check(); err != nil {
		return Report{}, err
	}
	if in.Config.CostPerReplicaHour > 0 {
		in.CostPerReplicaHour = in.Config.CostPerReplicaHour
	}
	cron, err := newGuideCron()
	if err != nil {
		return Report{}, err
	}
	peak := in.Demand.Peak()
	in.Model.draw = true
	none := in.Model.replay(in.Demand, fixed(0))
	share := guideFixed(peak)
	pool := in.pool(in.Config)
	guide := in.Model.replay(in.Demand, share)
	report := Report{
		Pool: in.Pool, Source: in.Source, Shows: in.Shows, Peak: peak, Asked: none.asked, Cost: in.CostPerReplicaHour,
		From: in.Demand[0].At.Add(in.Model.WarmUp), To: in.Demand[len(in.Demand)-1].At, Incidents: in.Incidents,
		Lead: in.Model.Lead.Seconds(), WarmUp: in.Model.WarmUp.Hours(),
		Rows: []Row{
			in.row(NameNone, "0", none, none),
			in.row(NamePool, in.size(), pool, none),
			in.row(NameFixed, fmt.Sprintf("%d", share), guide, none),
			in.row(NameCron, fmt.Sprintf("%d / %d", guideUp, guideDown), in.Model.replay(in.Demand, cron), none),
		},
	}
	in.Model.draw = false
	report.EqualMisses = in.equalMisses(guide, pool)
	report.Notes = in.notes(report)
	return report, nil
}

// maxAsked bounds how many pods a replay tells of, each with its wait: a cluster of ten thousand pods for a year asks for
// a few million.
const maxAsked = 10_000_000

// maxWait bounds the times of the model: a node that takes longer than a day is not waited for.
const maxWait = 24 * time.Hour

func (m Model) check() error {
	if m.Lead <= 0 || m.Step <= 0 || m.WarmStart < 0 || m.Linger < 0 {
		return errors.New("plan: lead and step must be above 0, warm start and linger not negative")
	}
	if longest := max(m.Lead, m.WarmStart, m.Linger); longest > maxWait {
		return fmt.Errorf("plan: lead, warm start and linger of up to %v: want at most %v each", longest, maxWait)
	}
	return nil
}

func (in Input) check() error {
	if err := in.Model.check(); err != nil {
		return err
	}
	for name, value := range map[string]float64{
		"cost per replica-hour": in.CostPerReplicaHour, "incidents a month": in.Incidents.PerMonth, "cost of an incident": in.Incidents.Cost,
	} {
		if !(value >= 0 && value <= math.MaxInt32) {
			return fmt.Errorf("plan: %s %v: want a number of at least 0", name, value)
		}
	}
	if in.Model.WarmUp < 0 || in.Model.WarmUp >= in.Demand.Span() {
		return fmt.Errorf("plan: a warm-up of %v leaves nothing of %v of demand: give a shorter one", in.Model.WarmUp, in.Demand.Span())
	}
	if in.Demand.Span() > 400*24*time.Hour || in.Demand.Span()/in.Model.Step > 4e6 {
		return fmt.Errorf("plan: %v of demand in steps of %v is too much: cut it, or take larger steps", in.Demand.Span(), in.Model.Step)
	}
	asked := 0.0
	for i := 1; i < len(in.Demand); i++ {
		asked += max(0, in.Demand[i].Replicas-in.Demand[i-1].Replicas)
	}
	if asked > maxAsked || in.Demand.Peak() > maxAsked {
		return fmt.Errorf("plan: a demand of up to %.3g replicas, whose rises come to %.3g, is too much: is it in cores or bytes? Then say with --per-replica how much one replica is", in.Demand.Peak(), asked)
	}
	return nil
}

func (in Input) pool(cfg warmpool.Config) outcome {
	return in.Model.replay(in.Demand, &adaptive{sizer: warmpool.NewSizer(cfg), lead: in.Model.Lead})
}

func (in Input) size() string {
	if a := in.Config.Adaptive; a != nil {
		return fmt.Sprintf("%d..%d, q %.3g", in.Config.Min, in.Config.Max, a.Quantile)
	}
	return fmt.Sprintf("%d..%d", in.Config.Min, in.Config.Max)
}

func (in Input) row(name, size string, o, none outcome) Row {
	hours := in.Demand.Span().Hours() - in.Model.WarmUp.Hours()
	monthly := o.replicaHours * in.CostPerReplicaHour / hours * hoursPerMonth
	penalty := in.Incidents.PerMonth * in.Incidents.Cost
	row := Row{
		Name: name, Size: size, Misses: o.missed, BadHours: o.incidents,
		WaitP50: o.wait(0.50, in.Model.WarmStart).Seconds(), WaitP95: o.wait(0.95, in.Model.WarmStart).Seconds(),
		WaitP99: o.wait(0.99, in.Model.WarmStart).Seconds(), ReplicaHours: o.replicaHours,
		Cost: o.replicaHours * in.CostPerReplicaHour, MonthlyCost: monthly,
		SecondsSaved: max(0, none.waited()-o.waited()-float64(none.missed-o.missed)*in.Model.WarmStart.Seconds()), Columns: o.columns,
	}
	if o.asked > 0 {
		row.MissRate = float64(o.missed) / float64(o.asked)
	}
	if row.SecondsSaved > 0 {
		row.CostPerSecond = row.Cost / row.SecondsSaved
	}
	if name != NameNone {
		row.GuideROI = penalty - monthly
		if none.incidents > 0 {
			row.ROI = penalty*(1-float64(o.incidents)/float64(none.incidents)) - monthly
		}
	}
	return row
}

func (o outcome) waited() float64 {
	total := 0.0
	for _, wait := range slices.Sorted(maps.Keys(o.waits)) { // in order: floats add up to the same at every run
		total += wait.Seconds() * float64(o.waits[wait])
	}
	return total
}

// grid is tried for the cheapest setting that misses no more than the fixed pool.
var (
	quantiles = []float64{0.5, 0.75, 0.85, 0.9, 0.95, 0.99, 1}
	headrooms = []int32{0, 1, 2, 4}
)

// equalMisses looks for the cheapest quantile and headroom with at most the fixed pool's misses. min, max, schedules and
// budget stay as written.
func (in Input) equalMisses(guide, pool outcome) EqualMisses {
	e := EqualMisses{Allowed: guide.missed, FixedCost: guide.replicaHours * in.CostPerReplicaHour, Cost: math.Inf(1), Misses: math.MaxInt}
	consider := func(o outcome, quantile float64, headroom string) {
		cost, reached := o.replicaHours*in.CostPerReplicaHour, o.missed <= guide.missed
		better := cost < e.Cost
		if !reached {
			better = o.missed < e.Misses
		}
		if (reached && !e.Reached) || (reached == e.Reached && better) {
			e.Reached, e.Quantile, e.Headroom, e.Misses, e.Cost = reached, quantile, headroom, o.missed, cost
		}
	}
	if in.Config.Adaptive == nil {
		consider(pool, 0, "")
	} else {
		consider(pool, in.Config.Adaptive.Quantile, in.Config.Adaptive.Headroom.String())
		for _, quantile := range quantiles {
			for _, headroom := range headrooms {
				cfg, tuned := in.Config, *in.Config.Adaptive
				tuned.Quantile, tuned.Headroom = quantile, replicas(headroom)
				cfg.Adaptive = &tuned
				consider(in.pool(cfg), quantile, tuned.Headroom.String())
			}
		}
	}
	if a := in.Config.Adaptive; a == nil || e.Quantile == a.Quantile && e.Headroom == a.Headroom.String() {
		e.AsWritten = true
	}
	if e.FixedCost > 0 {
		e.Saving = 1 - e.Cost/e.FixedCost
	}
	e.FixedSize, e.FixedSizeCost, e.FixedSizeFound = in.smallestFixed(pool.missed)
	return e
}

// smallestFixed is the smallest pool of one size with at most so many misses: with more replicas never more miss.
func (in Input) smallestFixed(misses int) (size int32, cost float64, found bool) {
	largest := int(math.Ceil(in.Demand.Peak()))
	size = int32(sort.Search(largest+1, func(n int) bool { return in.Model.replay(in.Demand, fixed(n)).missed <= misses }))
	if int(size) > largest {
		return 0, 0, false
	}
	return size, in.Model.replay(in.Demand, fixed(size)).replicaHours * in.CostPerReplicaHour, true
}
