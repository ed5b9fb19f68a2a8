package prepull

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// result is the label of headstart_pull_seconds.
type result string

// The results of a pull.
const (
	resultWarm   result = "warm"   // fetched and unpacked
	resultThere  result = "there"  // was on the node already
	resultLazy   result = "lazy"   // can start, content still comes over the network
	resultFailed result = "failed" // given up
)

type metrics struct {
	seconds *prometheus.HistogramVec
	bytes   prometheus.Counter
}

// newMetrics registers the metrics of pulls; with a nil Registerer they count for nobody.
func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headstart_pull_seconds",
			Help: "Time from the first attempt to pull an image until it was there or given up.",
			// 20 ms is an image that was there; a web app takes seconds, a machine-learning image minutes.
			Buckets: []float64{.02, .05, .1, .25, .5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600},
		}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headstart_pull_bytes_total",
			Help: "Compressed bytes that came over the network for images, retries included.",
		}),
	}
	for _, r := range []result{resultWarm, resultThere, resultLazy, resultFailed} {
		m.seconds.WithLabelValues(string(r))
	}
	if reg == nil {
		return m, nil
	}
	if err := errors.Join(reg.Register(m.seconds), reg.Register(m.bytes)); err != nil {
		return metrics{}, fmt.Errorf("register pull metrics: %w", err)
	}
	return m, nil
}

// outcome is the result of a pull that went well.
func outcome(s ImageStatus) result {
	switch {
	case s.State == StateLazy:
		return resultLazy
	case s.Engine == "":
		return resultThere
	default:
		return resultWarm
	}
}
