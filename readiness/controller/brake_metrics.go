package controller

import "github.com/prometheus/client_golang/prometheus"

// brakeCollector tells at each scrape which rules' budgets are used up.
type brakeCollector struct{ engine *Engine }

var brakeEngaged = prometheus.NewDesc("headstart_brake_engaged", "1 while the rule's budget keeps it from nodes that it would hold again or have deleted.", []string{"rule"}, nil)

// Describe implements prometheus.Collector.
func (c brakeCollector) Describe(out chan<- *prometheus.Desc) { out <- brakeEngaged }

// Collect implements prometheus.Collector.
func (c brakeCollector) Collect(out chan<- prometheus.Metric) {
	for rule, engaged := range c.engine.braked() {
		value := 0.0
		if engaged {
			value = 1
		}
		out <- prometheus.MustNewConstMetric(brakeEngaged, prometheus.GaugeValue, value, rule)
	}
}

// braked says of each rule whether its budget is used up; rules of two forms may share a name.
func (e *Engine) braked() map[string]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]bool{}
	for _, r := range e.rules {
		out[r.Name] = out[r.Name] || e.byUID[r.UID].counts.Braked > 0
	}
	return out
}
