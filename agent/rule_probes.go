package agent

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"headstart.dev/agent/probe"
	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// maxRuleProbes bounds what rules can make a node run.
const maxRuleProbes = 64

// RuleProbers builds the probes that NodeReadinessRules want of a node: the readinessProbe of every required DaemonSet
// of every rule that binds it, but for what the controller answers. A probe that the config has already under that condition
// is the config's.
func RuleProbers(cfg Config, rules []v1alpha1.NodeReadinessRule, node *corev1.Node) []Prober {
	taken := map[string]bool{readiness.ConditionImagesReady: true}
	for _, p := range cfg.Probes {
		taken[p.ConditionType()] = true
	}
	var out []Prober
	for i := range rules {
		rule, err := readiness.FromNative(&rules[i])
		if err != nil || !rule.Binds(node) {
			continue
		}
		for j := range rule.DaemonSets {
			ds, probe := &rule.DaemonSets[j], rules[i].Spec.RequiredDaemonSets[j].ReadinessProbe
			condition := string(ds.ProbeCondition)
			if condition == "" || taken[condition] || len(out) >= maxRuleProbes {
				continue
			}
			taken[condition] = true
			out = append(out, Prober{
				Name: ds.Name, Condition: condition, Checker: ruleChecker(ds, probe, &cfg),
				Settings: ruleSettings(probe), source: probe.String(),
			})
		}
	}
	return out
}

// podGrace is longer than a kubelet takes to start again and to look at its pods.
const podGrace = 10 * time.Second

// podSettings look at what is in memory: on the kubelet's events, and now and then for what time alone changes.
var podSettings = probe.Settings{
	Period: 5 * time.Second, Pending: 5 * time.Second, Timeout: time.Second, SuccessThreshold: 1, FailureThreshold: 1, Dear: true,
}

// PodProbers build the reports of the pods that rules require of a node: one a DaemonSet that is required by name or by
// selector of a rule that binds the node.
func PodProbers(pods *probe.Pods, rules []v1alpha1.NodeReadinessRule, node *corev1.Node) []Prober {
	taken := map[string]bool{}
	var out []Prober
	for i := range rules {
		rule, err := readiness.FromNative(&rules[i])
		if err != nil || !rule.Binds(node) {
			continue
		}
		for _, ds := range rule.DaemonSets {
			condition := string(ds.Report)
			if condition == "" || taken[condition] || len(out) >= maxRuleProbes {
				continue
			}
			taken[condition] = true
			out = append(out, Prober{
				Name: ds.String(), Condition: condition, Checker: &probe.DaemonSet{Want: ds, Pods: pods, Grace: podGrace}, Settings: podSettings,
			})
		}
	}
	return out
}

// ruleSettings are the defaults of corev1.Probe.
func ruleSettings(p *corev1.Probe) probe.Settings {
	seconds := func(value, byDefault int32) time.Duration {
		if value <= 0 {
			value = byDefault
		}
		return time.Duration(value) * time.Second
	}
	times := func(value int32, byDefault int) int {
		if value <= 0 {
			return byDefault
		}
		return int(value)
	}
	return probe.Settings{
		InitialDelay: seconds(p.InitialDelaySeconds, 0), Period: seconds(p.PeriodSeconds, 10), Timeout: seconds(p.TimeoutSeconds, 1),
		SuccessThreshold: times(p.SuccessThreshold, 1), FailureThreshold: times(p.FailureThreshold, 3), Dear: p.Exec != nil,
	}
}

// ruleChecker builds the check of a probe that came from the API. Whoever may write rules may make nodes look at
// themselves, and at nothing else: no other host, and a command only where the node's own config allows commands.
func ruleChecker(ds *readiness.DaemonSet, p *corev1.Probe, cfg *Config) probe.Checker {
	if err := readiness.CheckProbe(p); err != nil {
		return refused(err.Error())
	}
	at := func(host string, port intstr.IntOrString, check func(address string) probe.Checker) probe.Checker {
		if host == "localhost" {
			host = "127.0.0.1"
		}
		runtime := &probe.CRI{Address: strings.TrimPrefix(cfg.Containerd.Address, "unix://")}
		return &probe.At{Address: &probe.PodAddress{Runtime: runtime, Pod: *ds, Host: host, Port: port}, Make: check}
	}
	switch {
	case p.Exec != nil:
		return &probe.Exec{Command: p.Exec.Command, Allowed: cfg.AllowExec}
	case p.HTTPGet != nil:
		return at(p.HTTPGet.Host, p.HTTPGet.Port, func(address string) probe.Checker { return httpChecker(p.HTTPGet, address) })
	case p.TCPSocket != nil:
		return at(p.TCPSocket.Host, p.TCPSocket.Port, func(address string) probe.Checker { return &probe.TCP{Address: address} })
	}
	service := ""
	if p.GRPC.Service != nil {
		service = *p.GRPC.Service
	}
	return at("", intstr.FromInt32(p.GRPC.Port), func(address string) probe.Checker { return &probe.GRPC{Address: address, Service: service} })
}

func httpChecker(in *corev1.HTTPGetAction, address string) probe.Checker {
	out := &probe.HTTP{URL: strings.ToLower(cmp.Or(string(in.Scheme), "http")) + "://" + address + "/" + strings.TrimPrefix(in.Path, "/")}
	for _, header := range in.HTTPHeaders {
		if out.Headers == nil {
			out.Headers = http.Header{}
		}
		out.Headers.Add(header.Name, header.Value)
	}
	return out
}

// ReasonProbeRefused means that a rule asks for a probe that the agent does not run.
const ReasonProbeRefused = "ProbeRefused"

// refused is a probe that is not run, and says why.
type refused string

// Check implements probe.Checker.
func (r refused) Check(context.Context) probe.Result {
	return probe.Result{Status: probe.False, Reason: ReasonProbeRefused, Message: oneMessage("the rule's readinessProbe is not run: " + string(r))}
}
