package controller

import (
	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/readiness"
)

// States of the label state of headstart_rule_nodes: the counts of a rule's status.
const (
	stateMatched   = "matched"
	stateHeld      = "held"
	stateReleased  = "released"
	stateTimedOut  = "timedOut"
	stateWouldHold = "wouldHold"
	stateFailing   = "failing"
)

// collector serves gauges over rules and nodes, computed from the model at each scrape.
type collector struct {
	engine *Engine

	ruleNodes, unclaimed, failing *prometheus.Desc
}

func newCollector(e *Engine) *collector {
	return &collector{
		engine: e,
		ruleNodes: prometheus.NewDesc("headstart_rule_nodes",
			"Nodes of a rule by how they are: matched, held, released, timedOut, wouldHold (a dry run), failing (cannot be written).", []string{"rule", "state"}, nil),
		unclaimed: prometheus.NewDesc("headstart_readiness_unclaimed_nodes",
			"Nodes that carry a taint under readiness.k8s.io/ which no rule names: nothing takes it off.", nil, nil),
		failing: prometheus.NewDesc("headstart_readiness_failing_watches",
			"Watches that cannot be opened, so that rules which need them are undecided.", []string{"resource"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.ruleNodes, c.unclaimed, c.failing} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	for rule, n := range c.engine.ruleCounts() {
		for state, count := range map[string]int32{
			stateMatched: n.Matched, stateHeld: n.Held, stateReleased: n.Released, stateTimedOut: n.TimedOut, stateWouldHold: n.WouldHold, stateFailing: n.Failing,
		} {
			gauge(c.ruleNodes, int(count), rule, state)
		}
	}
	gauge(c.unclaimed, c.engine.unclaimedNodes())
	for resource, count := range c.engine.failingWatches() {
		gauge(c.failing, count, resource)
	}
}

// ruleCounts are the counts by the name of the rule; rules of two forms may share one.
func (e *Engine) ruleCounts() map[string]Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]Counts{}
	for _, entry := range e.byUID {
		if entry.rule.Form == readiness.FormUpstream {
			continue // upstream's own metrics tell of them
		}
		sum, n := out[entry.rule.Name], &entry.counts
		sum.Matched += n.Matched
		sum.Held += n.Held
		sum.Released += n.Released
		sum.TimedOut += n.TimedOut
		sum.WouldHold += n.WouldHold
		sum.Failing += n.Failing
		out[entry.rule.Name] = sum
	}
	return out
}

// resourceRules stands for the rules themselves.
const resourceRules = "rules"

// failingWatches counts watches by what they are of; a resource of which all can be opened is there with 0.
func (e *Engine) failingWatches() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]int{resourceRules: 0, watchDaemonSets.String(): 0, watchCSINodes.String(): 0, watchPods.String(): 0}
	for key := range e.failing {
		out[key.kind.String()]++
	}
	for _, why := range e.unseen {
		if why != "" {
			out[resourceRules]++
		}
	}
	return out
}
