package agent

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/agent/timeline"
)

// The values of the label result.
const (
	resultOK     = "ok"
	resultFailed = "failed"
)

type metrics struct {
	phase   *prometheus.HistogramVec
	publish *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		phase: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headstart_node_phase_seconds", Help: "Length of each phase of this node's boot; of a moment, such as registered, the time from the start of the boot to it.",
			// From a probe that was ready at once to a boot that took a quarter of an hour.
			Buckets: []float64{0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 900},
		}, []string{"phase"}),
		publish: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headstart_publish_total", Help: "Patches of the node's status, by result.",
		}, []string{"result"}),
	}
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "headstart_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version(), "component": "agent"},
	})
	build.Set(1)
	registerer.MustRegister(m.phase, m.publish, build)
	for _, name := range timeline.Names() {
		m.phase.WithLabelValues(string(name))
	}
	for _, result := range []string{resultOK, resultFailed} {
		m.publish.WithLabelValues(result)
	}
	return m
}

func (m *metrics) published(err error) {
	result := resultOK
	if err != nil {
		result = resultFailed
	}
	m.publish.WithLabelValues(result).Inc()
}
