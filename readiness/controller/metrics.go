package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/readiness"
)

// releaseBuckets resolve a release from the millisecond that a local API server takes to the minute in which a person
// looks for the cause.
var releaseBuckets = []float64{0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// metrics of the readiness engine.
type metrics struct {
	releaseLatency prometheus.Histogram
	writes         *prometheus.CounterVec
	conflicts      prometheus.Counter
	failures       prometheus.Counter
	events         *prometheus.CounterVec
}

// What a write was for, the values of the label kind.
var writeKinds = map[readiness.Urgency]string{
	readiness.UrgencyRelease: "release", readiness.UrgencyHold: "hold", readiness.UrgencyLabel: "label",
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		releaseLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "headstart_release_latency_seconds", Buckets: releaseBuckets,
			Help: "From the controller seeing all facts of a node true to the taint being gone.",
		}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headstart_readiness_node_writes_total", Help: "Patches of nodes that took effect, by what they were for.",
		}, []string{"kind"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headstart_readiness_write_conflicts_total", Help: "Patches refused because the node had changed; each is decided afresh.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headstart_readiness_write_failures_total", Help: "Requests about a node that failed and are tried again.",
		}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headstart_readiness_events_total", Help: "Events by what became of them.",
		}, []string{"result"}),
	}
	for _, kind := range writeKinds {
		m.writes.WithLabelValues(kind)
	}
	for _, result := range []string{eventSent, eventDropped, eventFailed} {
		m.events.WithLabelValues(result)
	}
	for _, c := range []prometheus.Collector{m.releaseLatency, m.writes, m.conflicts, m.failures, m.events} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) conflict() { m.conflicts.Inc() }

func (m *metrics) failure() { m.failures.Inc() }

func (m *metrics) wrote(u readiness.Urgency) { m.writes.WithLabelValues(writeKinds[u]).Inc() }

func (m *metrics) released(d time.Duration) { m.releaseLatency.Observe(d.Seconds()) }
