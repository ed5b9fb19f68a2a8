package controller

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// States of replicas, the values of the label state.
const (
	stateDesired  = "desired"
	stateReady    = "ready"
	stateWarm     = "ready_warm"
	statePending  = "pending"
	stateConsumed = "consumed"
)

// metrics reads the model when it is scraped: no series outlives its pool, and cost is exact without a timer.
type metrics struct {
	model                                           *model
	replicas, consumed, cost, waitAvoided, leadTime *prometheus.Desc
	demand, gated, nudges                           *prometheus.Desc
	refill                                          *prometheus.Desc
}

var _ prometheus.Collector = (*metrics)(nil)

// newMetrics registers the metrics of warm pools. The label pool is namespace/name: a handful in a cluster.
func newMetrics(reg prometheus.Registerer, m *model) (*metrics, error) {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("headstart_warmpool_"+name, help, append([]string{"pool"}, labels...), nil)
	}
	out := &metrics{
		model:       m,
		replicas:    describe("replicas", "Replicas of a warm pool by state: desired, ready, ready_warm (ready where rule and images hold), pending, consumed (taken and not yet made up for).", "state"),
		consumed:    describe("consumed_total", "Replicas that pods have taken."),
		cost:        describe("cost_total", "What a warm pool has cost, in the currency of budget.costPerReplicaHour."),
		waitAvoided: describe("wait_avoided_seconds_total", "Waiting that consumed replicas spared pods: consumed, times the difference of measured cold and warm starts."),
		leadTime:    describe("lead_seconds", "95th percentile of the time a replica takes that needs a new node, as schedules use it."),
		demand:      describe("demand_replicas", "What the pool's workload asks for, in replicas."),
		gated:       describe("gated_replicas", "What pods behind scheduling gates wait for, in replicas."),
		nudges:      describe("nudges_total", "Times that the scheduler was made to look again at a pod whose room was free already."),
		refill:      describe("refill_seconds", "Quantiles of the time from a replica taken to the next one ready, over the last 64."),
	}
	if err := reg.Register(out); err != nil {
		return nil, fmt.Errorf("register metrics of warm pools: %w", err)
	}
	return out, nil
}

// Describe lists the metrics.
func (c *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.replicas, c.consumed, c.cost, c.waitAvoided, c.leadTime, c.demand, c.gated, c.nudges, c.refill} {
		out <- desc
	}
}

// Collect reads the model.
func (c *metrics) Collect(out chan<- prometheus.Metric) {
	c.model.mu.Lock()
	defer c.model.mu.Unlock()
	now := c.model.now()
	for key, p := range c.model.pools {
		pool := key.String()
		gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{pool}, labels...)...)
		}
		counter := func(desc *prometheus.Desc, value float64) {
			out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, pool)
		}
		counts := p.counts(c.model)
		for state, count := range map[string]int32{
			stateDesired: p.desired, stateReady: counts.ready, stateWarm: counts.warm, statePending: counts.pending, stateConsumed: int32(len(p.taken)),
		} {
			gauge(c.replicas, float64(count), state)
		}
		counter(c.consumed, float64(p.consumed))
		counter(c.cost, p.cost.total(now))
		counter(c.waitAvoided, p.waitAvoided().Seconds())
		counter(c.nudges, float64(p.nudges))
		gauge(c.leadTime, p.lead().Seconds())
		gauge(c.demand, float64(p.demandSum)/micro)
		gauge(c.gated, float64(p.gatedSum)/micro)
		out <- prometheus.MustNewConstSummary(c.refill, uint64(p.refills.Len()), 0, map[float64]float64{
			0.5: p.refills.Quantile(0.5, 0).Seconds(), 0.95: p.refills.Quantile(0.95, 0).Seconds(),
		}, pool)
	}
}
