package agent

import (
	"context"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/agent/internal/nodestatus"
	"headstart.dev/readiness/v1alpha1"
)

// ruleRunners runs the probes that rules want of this node, and those alone. It is safe for concurrent use.
type ruleRunners struct {
	agent *Agent
	ctx   func() context.Context

	mu      sync.Mutex
	rules   []v1alpha1.NodeReadinessRule
	node    *corev1.Node
	running map[string]*ruleRunner
	wait    sync.WaitGroup
}

type ruleRunner struct {
	prober Prober
	cancel context.CancelFunc
}

func newRuleRunners(a *Agent, ctx context.Context) *ruleRunners { //nolint:revive // ctx is the life of the runners, not of the call
	return &ruleRunners{agent: a, ctx: func() context.Context { return ctx }, running: map[string]*ruleRunner{}}
}

// setRules takes the rules of the cluster.
func (r *ruleRunners) setRules(rules []v1alpha1.NodeReadinessRule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = rules
	r.update()
}

// setNode takes the Node: its labels and annotations say which rules bind it.
func (r *ruleRunners) setNode(node *corev1.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.node != nil && reflect.DeepEqual(r.node.Labels, node.Labels) && reflect.DeepEqual(r.node.Annotations, node.Annotations) {
		return
	}
	r.node = node
	r.update()
}

// update starts what is wanted and does not run, and stops what runs and is not wanted. The caller holds mu.
func (r *ruleRunners) update() {
	if r.node == nil || r.ctx().Err() != nil {
		return
	}
	wanted := map[string]Prober{}
	for _, p := range RuleProbers(r.agent.config, r.rules, r.node) {
		wanted[p.Condition] = p
	}
	for condition, runner := range r.running {
		if p, still := wanted[condition]; still && sameProber(p, runner.prober) {
			delete(wanted, condition)
			continue
		}
		runner.cancel()
		delete(r.running, condition)
		r.agent.state.removeProbe(condition)
	}
	for condition, p := range wanted {
		ctx, cancel := context.WithCancel(r.ctx())
		r.running[condition] = &ruleRunner{prober: p, cancel: cancel}
		r.agent.state.addProbe(p)
		r.wait.Go(func() { r.agent.probe(ctx, p) })
	}
}

// sameProber compares what was configured, not what a check has kept.
func sameProber(a, b Prober) bool {
	return a.Name == b.Name && a.Settings == b.Settings && reflect.DeepEqual(a.Checker, b.Checker)
}

// followRules keeps the rules' probes running for as long as one connection lasts.
func (a *Agent) followRules(ctx context.Context, c nodestatus.Connected, runners *ruleRunners) {
	if err := nodestatus.FollowRules(ctx, c.Credentials, runners.setRules); err != nil {
		a.log.Info("cannot read the readiness rules, runs none of their probes", "cause", err.Error())
	}
}
