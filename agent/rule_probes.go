package agent

import (
	"context"
	"fmt"
	"net"
	"strconv"
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
// of every rule that binds it. A probe that the config has already under that condition is the config's.
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
		for _, ds := range rules[i].Spec.RequiredDaemonSets {
			if ds.ReadinessProbe == nil || len(out) >= maxRuleProbes {
				continue
			}
			condition := string(readiness.ProbeCondition(ds.Name))
			if taken[condition] {
				continue
			}
			taken[condition] = true
			out = append(out, Prober{
				Name: ds.Name, Condition: condition, Checker: ruleChecker(ds.ReadinessProbe, cfg.AllowExec),
				Settings: ruleSettings(ds.ReadinessProbe), source: ds.ReadinessProbe.String(),
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
func ruleChecker(p *corev1.Probe, allowExec bool) probe.Checker {
	switch {
	case p.Exec != nil:
		if len(p.Exec.Command) == 0 || p.Exec.Command[0] == "" {
			return refused("exec.command is empty: write the program and its arguments")
		}
		return &probe.Exec{Command: p.Exec.Command, Allowed: allowExec}
	case p.HTTPGet != nil:
		address, err := localAddress(p.HTTPGet.Host, p.HTTPGet.Port)
		if err != nil {
			return refused("httpGet." + err.Error())
		}
		if len(p.HTTPGet.HTTPHeaders) > 0 {
			return refused("httpGet.httpHeaders are not sent by the agent: leave them out")
		}
		scheme := "http"
		if p.HTTPGet.Scheme == corev1.URISchemeHTTPS {
			scheme = "https"
		}
		path := p.HTTPGet.Path
		if path == "" || path[0] != '/' {
			path = "/" + path
		}
		return &probe.HTTP{URL: scheme + "://" + address + path}
	case p.TCPSocket != nil:
		address, err := localAddress(p.TCPSocket.Host, p.TCPSocket.Port)
		if err != nil {
			return refused("tcpSocket." + err.Error())
		}
		return &probe.TCP{Address: address}
	case p.GRPC != nil:
		service := ""
		if p.GRPC.Service != nil {
			service = *p.GRPC.Service
		}
		address, err := localAddress("", intstr.FromInt32(p.GRPC.Port))
		if err != nil {
			return refused("grpc." + err.Error())
		}
		return &probe.GRPC{Address: address, Service: service}
	}
	return refused("it has none of exec, httpGet, tcpSocket and grpc")
}

// localAddress is host:port of this node's loopback, which is where a probe of hostNetwork pods answers.
func localAddress(host string, port intstr.IntOrString) (string, error) {
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", fmt.Errorf("host %q is not this node: leave it out", host)
	}
	if port.Type != intstr.Int || port.IntVal < 1 || port.IntVal > 65535 {
		return "", fmt.Errorf("port %q: write a number from 1 to 65535, the agent knows no container's port names", port.String())
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port.IntVal))), nil
}

// ReasonProbeRefused means that a rule asks for a probe that the agent does not run.
const ReasonProbeRefused = "ProbeRefused"

// refused is a probe that is not run, and says why.
type refused string

// Check implements probe.Checker.
func (r refused) Check(context.Context) probe.Result {
	return probe.Result{Status: probe.False, Reason: ReasonProbeRefused, Message: oneMessage("the rule's readinessProbe is not run: " + string(r))}
}
