package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/readiness"
)

// upstreamMetrics are the metrics of upstream's controller under its names, so that its dashboards and alerts go on. They
// tell of rules of its form alone. Source: kubernetes-sigs/node-readiness-controller internal/metrics@v0.5.0, and what was
// merged after it up to September 2026. All methods do nothing on a nil receiver.
type upstreamMetrics struct {
	operations         *prometheus.CounterVec
	failures           *prometheus.CounterVec
	completed          *prometheus.CounterVec
	conditionFailures  *prometheus.CounterVec
	evaluation         *prometheus.HistogramVec
	bootstrap          *prometheus.HistogramVec
	reconcileLatency   *prometheus.HistogramVec
	enforcementLatency *prometheus.HistogramVec
	lastReconcile      *prometheus.GaugeVec
}

// Values of upstream's labels.
const (
	operationAdd         = "add"
	operationRemove      = "remove"
	operationAddTaint    = "add_taint"
	operationRemoveTaint = "remove_taint"
	failureAdd           = "AddTaintError"
	failureRemove        = "RemoveTaintError"
	failureEvaluation    = "EvaluationError"
)

var (
	// upstreamLatencyBuckets are upstream's: 10 ms to 5 min, from timestamps that have whole seconds.
	upstreamLatencyBuckets = []float64{0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300}
	// upstreamBootstrapBuckets are upstream's: a second to 20 min.
	upstreamBootstrapBuckets = []float64{1, 5, 10, 15, 30, 60, 120, 300, 600, 1200}
	// upstreamEvaluationBuckets resolve what takes microseconds here, up to upstream's own.
	upstreamEvaluationBuckets = []float64{0.00001, 0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
)

func newUpstreamMetrics(reg prometheus.Registerer, e *Engine, nodeStates bool, version string) (*upstreamMetrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "node_readiness_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "node_readiness_" + name, Help: help, Buckets: buckets}, labels)
	}
	m := &upstreamMetrics{
		operations:         counter("taint_operations_total", "Taints added and removed.", labelRule, labelOperation),
		failures:           counter("failures_total", "Requests about a node that failed.", labelRule, "reason"),
		completed:          counter("bootstrap_completed_total", "Nodes that have completed their bootstrap.", labelRule),
		conditionFailures:  counter("condition_failures_total", "Conditions that were seen not to be met, once for each change.", labelRule, "condition"),
		evaluation:         histogram("evaluation_duration_seconds", "Evaluation of a rule about a node.", upstreamEvaluationBuckets, labelRule),
		bootstrap:          histogram("bootstrap_duration_seconds", "From a node's creation to its last condition's change, of nodes newer than the rule.", upstreamBootstrapBuckets, labelRule),
		reconcileLatency:   histogram("reconciliation_latency_seconds", "From a condition's change to the taint's.", upstreamLatencyBuckets, labelRule, labelOperation),
		enforcementLatency: histogram("enforcement_latency_seconds", "From a condition's change to the taint's.", upstreamLatencyBuckets, labelRule, labelOperation),
		lastReconcile: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "node_readiness_rule_last_reconciliation_timestamp_seconds", Help: "When the rule was last evaluated about a node.",
		}, []string{labelRule}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "node_readiness_build_info", Help: "1; the version is in the label.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{
		m.operations, m.failures, m.completed, m.conditionFailures, m.evaluation, m.bootstrap, m.reconcileLatency, m.enforcementLatency,
		m.lastReconcile, build, newUpstreamCollector(e, nodeStates),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// transition notes a write that took effect.
func (m *upstreamMetrics) transition(node stripped, t *readiness.Transition, now time.Time) {
	if m == nil || t.Rule.Form != readiness.FormUpstream {
		return
	}
	rule := t.Rule.Name
	changed := lastChange(node.conditions, t.Rule)
	if t.Completed {
		m.completed.WithLabelValues(rule).Inc()
		if created := node.CreationTimestamp.Time; created.After(t.Rule.Created) && changed.After(created) {
			m.bootstrap.WithLabelValues(rule).Observe(changed.Sub(created).Seconds())
		}
	}
	if t.Untainted {
		return
	}
	short, long := operationRemove, operationRemoveTaint
	if t.State == readiness.StateHeld {
		short, long = operationAdd, operationAddTaint
	}
	m.operations.WithLabelValues(rule, short).Inc()
	if !changed.IsZero() {
		latency := max(now.Sub(changed), 0).Seconds()
		m.reconcileLatency.WithLabelValues(rule, long).Observe(latency)
		m.enforcementLatency.WithLabelValues(rule, short).Observe(latency)
	}
}

// lastChange is when the last of the rule's conditions changed on the node; zero where it has none of them.
func lastChange(conditions readiness.Conditions, r *readiness.Rule) time.Time {
	var last time.Time
	for i := range r.Conditions {
		if c := conditions.Find(r.Conditions[i].Type); c != nil && c.LastTransitionTime.After(last) {
			last = c.LastTransitionTime.Time
		}
	}
	return last
}

// failed notes a write that failed.
func (m *upstreamMetrics) failed(change *readiness.Change) {
	if m == nil {
		return
	}
	for i := range change.Transitions {
		t := &change.Transitions[i]
		if t.Rule.Form != readiness.FormUpstream {
			continue
		}
		reason := failureRemove
		switch {
		case t.Untainted:
			reason = failureEvaluation
		case t.State == readiness.StateHeld:
			reason = failureAdd
		}
		m.failures.WithLabelValues(t.Rule.Name, reason).Inc()
	}
}

// evaluated notes an evaluation.
func (m *upstreamMetrics) evaluated(r *readiness.Rule, took time.Duration, now time.Time) {
	if m == nil {
		return
	}
	m.evaluation.WithLabelValues(r.Name).Observe(took.Seconds())
	m.lastReconcile.WithLabelValues(r.Name).Set(float64(now.Unix()))
}

// conditionsSeen notes what a node lacks, when that has changed.
func (m *upstreamMetrics) conditionsSeen(r *readiness.Rule, v *readiness.NodeView) {
	if m == nil {
		return
	}
	for i := range v.Conditions {
		if c := &v.Conditions[i]; !c.Met() {
			m.conditionFailures.WithLabelValues(r.Name, string(c.Type)).Inc()
		}
	}
}

// forget drops the series of a rule that is gone.
func (m *upstreamMetrics) forget(r *readiness.Rule) {
	if m == nil || r.Form != readiness.FormUpstream {
		return
	}
	of := prometheus.Labels{labelRule: r.Name}
	for _, vec := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.operations, m.failures, m.completed, m.conditionFailures, m.evaluation, m.bootstrap, m.reconcileLatency, m.enforcementLatency, m.lastReconcile} {
		vec.DeletePartialMatch(of)
	}
}
