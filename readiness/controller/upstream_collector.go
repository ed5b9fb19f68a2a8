package controller

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/readiness"
)

// Names of upstream's labels.
const (
	labelRule      = "rule"
	labelOperation = "operation"
	labelState     = "state"
)

// upstreamCollector serves upstream's gauges over nodes and rules, computed from the model at each scrape.
type upstreamCollector struct {
	engine *Engine
	// nodeStates also serves nodes_by_state, which upstream has on demand only.
	nodeStates bool

	rulesTotal, rules, ruleNodes, matched, blocked, byState *prometheus.Desc
}

func newUpstreamCollector(e *Engine, nodeStates bool) *upstreamCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("node_readiness_"+name, help, labels, nil)
	}
	return &upstreamCollector{
		engine: e, nodeStates: nodeStates,
		rulesTotal: desc("rules_total", "Rules of readiness.node.x-k8s.io."),
		rules:      desc("rules", "Rules by their mode.", "enforcement_mode", "dry_run"),
		ruleNodes:  desc("rule_nodes", "Nodes that the rule holds, and those that it has let go.", labelRule, labelState),
		matched:    desc("rule_matched_nodes", "Nodes that the rule governs.", labelRule),
		blocked:    desc("blocked_nodes", "Held nodes by the condition that is not met.", labelRule, "condition"),
		byState:    desc("nodes_by_state", "Nodes by their state under the rule.", labelRule, labelState),
	}
}

// Describe implements prometheus.Collector.
func (c *upstreamCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.rulesTotal, c.rules, c.ruleNodes, c.matched, c.blocked, c.byState} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *upstreamCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	tallies, invalid := c.engine.upstreamTallies()
	gauge(c.rulesTotal, len(tallies)+invalid)
	type kind struct {
		mode   string
		dryRun bool
	}
	kinds := map[kind]int{}
	for i := range tallies {
		t := &tallies[i]
		name, mode := t.rule.Name, "bootstrap-only"
		if t.rule.Continuous {
			mode = "continuous"
		}
		kinds[kind{mode, t.rule.DryRun}]++
		gauge(c.matched, t.matched, name)
		gauge(c.ruleNodes, t.held, name, "held")
		gauge(c.ruleNodes, t.matched-t.held, name, "released")
		for i, n := range t.blocked {
			gauge(c.blocked, n, name, string(t.rule.Conditions[i].Type))
		}
		if c.nodeStates {
			waiting, other := "bootstrapping", "not_ready"
			if t.rule.Continuous {
				waiting, other = other, waiting
			}
			gauge(c.byState, t.matched-t.held, name, "ready")
			gauge(c.byState, t.held, name, waiting)
			gauge(c.byState, 0, name, other)
		}
	}
	for k, n := range kinds {
		gauge(c.rules, n, k.mode, strconv.FormatBool(k.dryRun))
	}
}

// upstreamTally counts the nodes of an upstream rule; blocked is by the rule's conditions.
type upstreamTally struct {
	rule          *readiness.Rule
	matched, held int
	blocked       []int
}

// upstreamTallies counts the nodes of all upstream rules, and the rules that are not understood.
func (e *Engine) upstreamTallies() (tallies []upstreamTally, invalid int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, entry := range e.byUID {
		if _, ok := entry.source.(*upstreamForm); ok && entry.invalid != "" {
			invalid++
		}
	}
	for _, r := range e.rules {
		if r.Form != readiness.FormUpstream {
			continue
		}
		t := upstreamTally{rule: r, blocked: make([]int, len(r.Conditions))}
		for _, n := range e.nodes {
			s, bound := n.states.get(r.UID)
			if !bound {
				continue
			}
			t.matched++
			if s.state != readiness.StateHeld {
				continue
			}
			t.held++
			view := readiness.View(r, &n.facts)
			for i := range view.Conditions {
				if !view.Conditions[i].Met() {
					t.blocked[i]++
				}
			}
		}
		tallies = append(tallies, t)
	}
	return tallies, invalid
}
