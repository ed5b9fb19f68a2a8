package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/readiness"
	"headstart.dev/readiness/connection"
	"headstart.dev/readiness/nodewatch"
)

// Leader election: a leader that dies is replaced after leaseDuration, one that stops gives the lease back and is
// replaced at the standby's next look.
const (
	leaseName     = "headstart-controller"
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = time.Second
	stopTimeout   = 10 * time.Second
)

// start runs the controllers until ctx ends.
func start(ctx context.Context, o *options, out io.Writer) error {
	paceCollector()
	log := logr.FromSlogHandler(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: logLevels[o.logLevel]}))
	ctrl.SetLogger(log)
	klog.SetLogger(log.WithName("client-go"))
	if ignored := o.upstream.ignored(); len(ignored) > 0 {
		log.Info("flags without effect", "flags", ignored)
	}
	config, err := loadConfig(o)
	if err != nil {
		return err
	}
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	if o.leaderElect {
		if err := ensureNamespace(ctx, config, scheme, o.leaderNamespace); err != nil {
			return err
		}
	}
	if err := awaitCRDs(ctx, config, log, crdPatience); err != nil {
		return err
	}
	opts := managerOptions(o, scheme, log)
	var lock *lease
	if o.leaderElect {
		if lock, err = newLease(config, o.leaderNamespace); err != nil {
			return err
		}
		opts.LeaderElectionResourceLockInterface = lock
	}
	mgr, err := ctrl.NewManager(config, opts)
	if err != nil {
		return fmt.Errorf("make manager: %w", err)
	}
	nodes, err := watchNodes(mgr)
	if err != nil {
		return err
	}
	if lock != nil {
		lock.silence = nodes.Silence
	}
	if err := addControllers(mgr, o, nodes); err != nil {
		return err
	}
	if err := addChecks(mgr, lock); err != nil {
		return err
	}
	log.Info("starting", "version", cli.Current().Version, "rules", o.rules)
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run controllers: %w", err)
	}
	return nil
}

func managerOptions(o *options, scheme *runtime.Scheme, log logr.Logger) ctrl.Options {
	metricsOptions := server.Options{BindAddress: o.metricsAddress, SecureServing: o.upstream.metricsSecure, CertDir: o.upstream.metricsCertDir}
	if o.upstream.metricsSecure {
		metricsOptions.FilterProvider = guardMetrics
	}
	lease, renew, retry, stop := leaseDuration, renewDeadline, retryPeriod, stopTimeout
	return ctrl.Options{
		Scheme: scheme, Logger: log,
		Metrics:                metricsOptions,
		HealthProbeBindAddress: o.probeAddress, PprofBindAddress: o.pprofAddress,
		LeaderElection: o.leaderElect, LeaderElectionID: leaseName, LeaderElectionNamespace: o.leaderNamespace,
		LeaderElectionReleaseOnCancel: true, LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
		GracefulShutdownTimeout: &stop,
		Cache:                   cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: trimmed},
	}
}

func addControllers(mgr ctrl.Manager, o *options, nodes *nodewatch.Watch) error {
	s := shared{namespace: o.leaderNamespace, registerer: metrics.Registry, nodeStates: o.upstream.nodeMetrics, nodes: nodes}
	for _, r := range o.rules {
		s.rules = append(s.rules, readiness.Form(r))
	}
	if o.upstream.nodeWorkers > 1 {
		s.writers = o.upstream.nodeWorkers
	}
	for _, c := range controllers {
		if !slices.Contains(o.controllers, c.name) {
			continue
		}
		if err := c.setUp(mgr, s); err != nil {
			return fmt.Errorf("set up %s: %w", c.name, err)
		}
	}
	return registerBuildInfo(s.registerer)
}

// watchNodes makes the one watch of Nodes that all controllers follow.
func watchNodes(mgr ctrl.Manager) (*nodewatch.Watch, error) {
	nodes, err := nodewatch.New(mgr.GetConfig())
	if err != nil {
		return nil, err
	}
	if err := mgr.Add(nodes); err != nil {
		return nil, fmt.Errorf("add the watch of nodes: %w", err)
	}
	if err := errors.Join(mgr.AddReadyzCheck("nodes", nodes.Ready), mgr.AddHealthzCheck("nodes", nodes.Healthy)); err != nil {
		return nil, fmt.Errorf("add the health of the watch of nodes: %w", err)
	}
	return nodes, nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range append([]func(*runtime.Scheme) error{clientgoscheme.AddToScheme}, schemes...) {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register API types: %w", err)
		}
	}
	return scheme, nil
}

// loadConfig finds the API server. Watches have connections of their own, whichever controller they are of. There is no client-side rate limit: the API server has priority and fairness.
func loadConfig(o *options) (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if o.kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	}
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, errors.New("not in a pod, and no kubeconfig: name one with --kubeconfig")
	}
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig %q: %w", o.kubeconfig, err)
	}
	config.QPS, config.Burst = o.upstream.qps, o.upstream.burst
	config.UserAgent = leaseName + "/" + cli.Current().Version
	return connection.WatchesApart(config)
}

const namespaceTimeout = 10 * time.Second

// ensureNamespace makes the lease's namespace where it is missing. Where that is not allowed, it is there already or the
// lease will say so.
func ensureNamespace(ctx context.Context, config *rest.Config, scheme *runtime.Scheme, name string) error {
	ctx, cancel := context.WithTimeout(ctx, namespaceTimeout)
	defer cancel()
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("reach the API server at %s: %w", config.Host, err)
	}
	err = c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) {
		return nil
	}
	return fmt.Errorf("make namespace %q: %w", name, err)
}
