// Package warmpool_test runs the warm pool controller against a real kube-apiserver, kube-scheduler and
// kube-controller-manager, and with Karpenter's KWOK provider behind them.
package warmpool_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/gates/warmpool/controller"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
	"headstart.dev/test/testenv"
)

const (
	// patience is how long a test waits for what must happen; on a loaded machine everything is slow once.
	patience = 60 * time.Second
	// quiet is how long a test looks on while nothing may happen.
	quiet = 3 * time.Second
	tick  = 50 * time.Millisecond
)

// plane is shared by the tests of the package without Karpenter; each works in a namespace and on nodes of its own.
var plane *testenv.ControlPlane

// planeConfig starts what a pool needs to live: the scheduler preempts, the controller manager makes the pause pods. The
// node lifecycle controller is off because no kubelet renews leases here.
func planeConfig() testenv.ControlPlaneConfig {
	return testenv.ControlPlaneConfig{
		Scheduler: true, ControllerManager: true, CRDDirs: []string{"deploy/crd"},
		ControllerManagerArgs: []string{"--controllers=*,-node-lifecycle-controller"},
	}
}

func TestMain(m *testing.M) {
	flag.Parse() // testing.Verbose wants it
	os.Exit(run(m))
}

func run(m *testing.M) int {
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cp, err := testenv.NewControlPlane(ctx, planeConfig())
	if err != nil {
		fmt.Fprintln(os.Stderr, "start control plane:", err)
		return 1
	}
	plane = cp
	code := m.Run()
	if err := cp.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop control plane:", err)
		return 1
	}
	return code
}

func scheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(s))
	require.NoError(t, v1alpha1.AddToScheme(s))
	require.NoError(t, prepullv1alpha1.AddToScheme(s))
	return s
}

func newClient(t testing.TB, cp *testenv.ControlPlane) client.WithWatch {
	t.Helper()
	c, err := client.NewWithWatch(cp.Config(), client.Options{Scheme: scheme(t)})
	require.NoError(t, err)
	return c
}

// clock is real until a test moves it.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

// set makes it at now, and lets it run on from there.
func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = time.Until(at)
}

// running is a controller in this process.
type running struct {
	stop     func()
	registry *prometheus.Registry
}

// startController runs the controller until its stop is called or the test ends.
func startController(t testing.TB, cfg *rest.Config, now func() time.Time) running {
	t.Helper()
	skip := true
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme(t), Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip},
	})
	require.NoError(t, err)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, controller.SetupWithManager(mgr, controller.Config{Registerer: registry, Now: now}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return running{stop: stop, registry: registry}
}

// namespace makes one that is the test's own. It is deleted with the test: a pool that lives on asks for what another test
// counts.
func namespace(t testing.TB, c client.Client) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "warmpool-"}}
	require.NoError(t, c.Create(t.Context(), ns))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		require.NoError(t, c.DeleteAllOf(ctx, &v1alpha1.WarmPool{}, client.InNamespace(ns.Name)))
		require.NoError(t, c.Delete(ctx, ns))
	})
	return ns.Name
}
