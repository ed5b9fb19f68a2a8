package controller

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/gates"
)

// gateMetrics are the gate controller's metrics.
type gateMetrics struct{ wait *prometheus.HistogramVec }

func newMetrics(registerer prometheus.Registerer) (*gateMetrics, error) {
	m := &gateMetrics{wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "headstart_gate_wait_seconds",
		Help: "Time from a pod's creation to the lift of its gate, by policy and by what lifted it.",
		// From a gate that is lifted at once (tens of milliseconds) to a deadline of half an hour.
		Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800},
	}, []string{"policy", "outcome"})}
	if registerer == nil {
		return m, nil
	}
	if err := registerer.Register(m.wait); err != nil {
		return nil, fmt.Errorf("register gate metrics: %w", err)
	}
	return m, nil
}

// outcomes are the values of the label outcome.
func outcomes() []gates.Outcome { return []gates.Outcome{gates.Lift, gates.Release, gates.Overflow} }

// begin makes a policy's series, so that they are there before the first gate is lifted.
func (m *gateMetrics) begin(policy string) {
	for _, outcome := range outcomes() {
		m.wait.WithLabelValues(policy, string(outcome))
	}
}

// end removes the series of a policy that is gone.
func (m *gateMetrics) end(policy string) {
	m.wait.DeletePartialMatch(prometheus.Labels{"policy": policy})
}

func (m *gateMetrics) lifted(policy string, outcome gates.Outcome, waited time.Duration) {
	m.wait.WithLabelValues(policy, string(outcome)).Observe(waited.Seconds())
}
