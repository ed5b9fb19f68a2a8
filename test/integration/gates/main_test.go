// Package gates_test runs the gate controller against a real kube-apiserver and kube-scheduler.
package gates_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
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

	"headstart.dev/gates/controller"
	"headstart.dev/gates/v1alpha1"
	"headstart.dev/prepull"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness"
	"headstart.dev/test/testenv"
)

// patience is how long a test waits for what must happen; on a loaded machine everything is slow once.
const patience = 30 * time.Second

// quiet is how long a test looks on while nothing may happen.
const quiet = 500 * time.Millisecond

// plane is shared by all tests of the package; each works in a namespace and on gates of its own.
var plane *testenv.ControlPlane

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	level := slog.LevelWarn
	flag.Parse() //nolint:revive // testing.Verbose wants it, and this is what TestMain calls
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cp, err := testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{Scheduler: true, CRDDirs: []string{"deploy/crd"}})
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

// fastConfig is a cluster admin's, without a client-side rate limit.
func fastConfig() *rest.Config {
	cfg := rest.CopyConfig(plane.Config())
	cfg.QPS = -1
	return cfg
}

func newClient(t testing.TB) client.Client {
	t.Helper()
	c, err := client.New(fastConfig(), client.Options{Scheme: scheme(t)})
	require.NoError(t, err)
	return c
}

// startController runs the gate controller in this process until the returned function is called or the test ends.
func startController(t testing.TB, cfg *rest.Config) (stop func()) {
	t.Helper()
	skip := true
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:     scheme(t),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &skip},
	})
	require.NoError(t, err)
	require.NoError(t, controller.SetupWithManager(mgr, controller.Config{}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

// namespace makes one that is the test's own. Its pods go with the test: one that waits for a node would take the room on
// another test's.
func namespace(t testing.TB, c client.Client) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "gates-"}}
	require.NoError(t, c.Create(t.Context(), ns))
	t.Cleanup(func() {
		require.NoError(t, c.DeleteAllOf(afterwards(t), &corev1.Pod{}, client.InNamespace(ns.Name), client.GracePeriodSeconds(0)))
	})
	return ns.Name
}

// policy makes a GatePolicy for a gate of the namespace's name and removes it after the test.
func policy(t testing.TB, c client.Client, name string, spec v1alpha1.GatePolicySpec) *v1alpha1.GatePolicy {
	t.Helper()
	p := &v1alpha1.GatePolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	require.NoError(t, c.Create(t.Context(), p))
	t.Cleanup(func() { require.NoError(t, client.IgnoreNotFound(c.Delete(afterwards(t), p))) })
	return p
}

// node makes a node that the scheduler can use, with images warm on it.
func node(t testing.TB, c client.Client, name string, allocatable corev1.ResourceList, warm ...prepull.InventoryImage) *corev1.Node {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	require.NoError(t, c.Create(t.Context(), n))
	t.Cleanup(func() { require.NoError(t, client.IgnoreNotFound(c.Delete(afterwards(t), n))) })
	n.Status.Allocatable, n.Status.Capacity = allocatable, allocatable
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}
	require.NoError(t, c.Status().Update(t.Context(), n))
	// The API server taints a new node as not ready; the controller manager that would remove the taint does not run here.
	n.Spec.Taints = nil
	require.NoError(t, c.Update(t.Context(), n))
	if len(warm) > 0 {
		setWarm(t, c, name, warm...)
	}
	return n
}

// setWarm writes a node's inventory as its agent would.
func setWarm(t testing.TB, c client.Client, name string, warm ...prepull.InventoryImage) {
	t.Helper()
	text, err := prepull.Inventory{Snapshotter: "overlayfs", Warm: warm}.Encode()
	require.NoError(t, err)
	n := &corev1.Node{}
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: name}, n))
	before := n.DeepCopy()
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	n.Annotations[readiness.AnnotationImages] = text
	require.NoError(t, c.Status().Patch(t.Context(), n, client.MergeFrom(before)))
}

// afterwards is a context for cleaning up: the test's own has ended by then.
func afterwards(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	return ctx
}
