package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"headstart.dev/readiness"
)

// options are the flags.
type options struct {
	kubeconfig      string
	rules           []string
	controllers     []string
	leaderElect     bool
	leaderNamespace string
	metricsAddress  string
	probeAddress    string
	pprofAddress    string
	logLevel        string

	upstream upstreamOptions
}

// upstreamOptions are the flags of the Kubernetes SIG's node-readiness-controller, so that its manifests work as they
// are. Those whose meaning has no counterpart here are accepted and reported in the log.
// Source: kubernetes-sigs/node-readiness-controller cmd/main.go@v0.5.0.
type upstreamOptions struct {
	metricsSecure  bool
	metricsCertDir string
	qps            float32
	burst          int
	nodeWorkers    int
	ruleWorkers    int
	webhook        bool
	nodeMetrics    bool
	zap            [5]string
}

func (o *options) bind(f *pflag.FlagSet) {
	f.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "kubeconfig file; empty: the pod's service account")
	f.StringSliceVar(&o.rules, "rules", []string{string(readiness.FormNative)}, "forms of readiness rules that are read: any of native, guide, upstream")
	f.StringSliceVar(&o.controllers, "controllers", controllerNames(), "controllers that run; one that does not needs no rights")
	f.BoolVar(&o.leaderElect, "leader-elect", true, "write only while holding the lease, so that two replicas can run")
	f.StringVar(&o.leaderNamespace, "leader-elect-namespace", "headstart-system", "namespace of the lease; made if it is missing and allowed")
	f.StringVar(&o.leaderNamespace, "leader-election-namespace", "headstart-system", "upstream's name of --leader-elect-namespace")
	f.StringVar(&o.metricsAddress, "metrics-bind-address", ":8080", "address of /metrics; 0 switches it off")
	f.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 switches them off")
	f.StringVar(&o.pprofAddress, "pprof-bind-address", "", "address of /debug/pprof; empty: off")
	f.StringVar(&o.logLevel, "log-level", "info", "info, or debug for one line an attempt, or trace for one line a decision")

	u := &o.upstream
	f.BoolVar(&u.metricsSecure, "metrics-secure", false, "serve /metrics over HTTPS, and to those only whose token may get /metrics")
	f.StringVar(&u.metricsCertDir, "metrics-cert-dir", "", "upstream's: folder of tls.crt and tls.key for --metrics-secure; empty: self-signed")
	f.Float32Var(&u.qps, "kube-api-qps", -1, "upstream's: limit of requests a second to the API server; -1: none")
	f.IntVar(&u.burst, "kube-api-burst", -1, "upstream's: burst over --kube-api-qps; -1: none")
	f.IntVar(&u.nodeWorkers, "node-concurrent-reconciles", 0, "upstream's: how many nodes are written at once; 0 or 1: as many as the API server answers well to")
	f.IntVar(&u.ruleWorkers, "rule-concurrent-reconciles", 1, "upstream's: without effect, a rule is one step here")
	f.BoolVar(&u.webhook, "enable-webhook", false, "upstream's: without effect, the CRD validates by itself")
	f.BoolVar(&u.nodeMetrics, "enable-node-state-metrics", false, "upstream's: with --rules=upstream, serve node_readiness_nodes_by_state too")
	for i, name := range zapFlags {
		f.StringVar(&u.zap[i], name, "", "upstream's: without effect, see --log-level")
		f.Lookup(name).NoOptDefVal = "true"
	}
}

var zapFlags = [5]string{"zap-devel", "zap-encoder", "zap-log-level", "zap-stacktrace-level", "zap-time-encoding"}

func (o *options) validate() error {
	for _, r := range o.rules {
		known := []readiness.Form{readiness.FormNative, readiness.FormGuide, readiness.FormUpstream}
		if !slices.Contains(known, readiness.Form(r)) {
			return fmt.Errorf("--rules: %q is no form of rule: write any of native, guide, upstream, separated by commas", r)
		}
	}
	if len(o.rules) == 0 {
		return fmt.Errorf("--rules: empty: write any of native, guide, upstream, separated by commas")
	}
	for _, c := range o.controllers {
		if !slices.Contains(controllerNames(), c) {
			return fmt.Errorf("--controllers: %q is no controller: write any of %s, separated by commas", c, strings.Join(controllerNames(), ", "))
		}
	}
	if len(o.controllers) == 0 {
		return fmt.Errorf("--controllers: empty: write any of %s, separated by commas", strings.Join(controllerNames(), ", "))
	}
	if _, ok := logLevels[o.logLevel]; !ok {
		return fmt.Errorf("--log-level: %q is none of info, debug, trace", o.logLevel)
	}
	if o.leaderElect && strings.TrimSpace(o.leaderNamespace) == "" {
		return fmt.Errorf("--leader-elect-namespace: empty: name a namespace, or write --leader-elect=false")
	}
	return nil
}

// ignored are the flags that were set and have no effect.
func (u *upstreamOptions) ignored() []string {
	var out []string
	if u.webhook {
		out = append(out, "enable-webhook")
	}
	if u.ruleWorkers > 1 {
		out = append(out, "rule-concurrent-reconciles")
	}
	for i, name := range zapFlags {
		if u.zap[i] != "" {
			out = append(out, name)
		}
	}
	return out
}

// logLevels map to logr: V(1) is slog's -1, V(2) its -2.
var logLevels = map[string]slog.Level{"info": slog.LevelInfo, "debug": slog.Level(-1), "trace": slog.Level(-2)}
