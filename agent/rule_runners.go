package agent

import (
	"context"
	"reflect"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/agent/internal/nodestatus"
	"headstart.dev/agent/probe"
	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// ruleRunners runs the probes that rules want of this node, and those alone. It is safe for concurrent use.
type ruleRunners struct {
	agent *Agent
	ctx   func() context.Context
	pods  *probe.Pods

	mu      sync.Mutex
	rules   []v1alpha1.NodeReadinessRule
	ruled   bool // rules have come
	node    *corev1.Node
	running map[string]*ruleRunner
	// following says that the kubelet is asked for its pods, answered that it has told them once: an older one never
	// does, and then nothing is published of them and the controller sees for itself.
	following, answered bool
	wait                sync.WaitGroup
}

type ruleRunner struct {
	prober Prober
	cancel context.CancelFunc
}

func newRuleRunners(a *Agent, ctx context.Context) *ruleRunners { //nolint:revive // ctx is the life of the runners, not of the call
	return &ruleRunners{agent: a, ctx: func() context.Context { return ctx }, pods: probe.NewPods(a.config.KubeletDir), running: map[string]*ruleRunner{}}
}

// setRules takes the rules of the cluster.
func (r *ruleRunners) setRules(rules []v1alpha1.NodeReadinessRule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules, r.ruled = rules, true
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
	r.addPodProbers(wanted)
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

// addPodProbers adds the reports of the pods that rules require, once the kubelet tells of pods. The caller holds mu.
func (r *ruleRunners) addPodProbers(wanted map[string]Prober) {
	probers := PodProbers(r.pods, r.rules, r.node)
	switch {
	case len(probers) > 0 && !r.following:
		r.following = true
		r.wait.Go(r.followPods)
		return
	case len(probers) > 0 && !r.answered, !r.ruled:
		return
	}
	for _, p := range probers {
		wanted[p.Condition] = p
	}
	// What an earlier agent reported and nobody asks for any more.
	for _, c := range r.node.Status.Conditions {
		condition := string(c.Type)
		if _, wants := wanted[condition]; !wants && r.running[condition] == nil && strings.HasPrefix(condition, readiness.ReportPrefix) {
			r.agent.state.removeProbe(condition)
		}
	}
}

// followPods asks the kubelet for its pods until the agent ends.
func (r *ruleRunners) followPods() {
	r.wait.Go(func() {
		for {
			_, known, changed := r.pods.List(0)
			if known {
				break
			}
			select {
			case <-r.ctx().Done():
				return
			case <-changed:
			}
		}
		r.agent.log.Info("the kubelet tells of its pods, reports those that rules require")
		r.mu.Lock()
		defer r.mu.Unlock()
		r.answered = true
		r.update()
	})
	if err := r.pods.Run(r.ctx()); err != nil {
		r.agent.log.Info("cannot follow the kubelet's pods, leaves them to the controller", "cause", err.Error())
	}
}

// sameProber compares what was asked for.
func sameProber(a, b Prober) bool {
	return a.Condition == b.Condition && a.Name == b.Name && a.source == b.source
}

// followRules keeps the rules' probes running for as long as one connection lasts.
func (a *Agent) followRules(ctx context.Context, c nodestatus.Connected, rules *nodestatus.RuleFollower, runners *ruleRunners) {
	if err := rules.Follow(ctx, c.Credentials, runners.setRules); err != nil {
		a.log.Info("cannot read the readiness rules, runs none of their probes", "cause", err.Error())
	}
}
