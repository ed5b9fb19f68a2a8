package readiness_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/upstream"
	"headstart.dev/readiness/controller"
	"headstart.dev/readiness/v1alpha1"
	"headstart.dev/test/testenv"
)

// env is one test's view: an admin client, and names that no other test uses.
type env struct {
	client.Client

	t     *testing.T
	plane *testenv.ControlPlane
	pool  string
	seq   atomic.Int32
}

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(s))
	require.NoError(t, v1alpha1.AddToScheme(s))
	require.NoError(t, upstream.AddToScheme(s))
	return s
}

func newEnv(t *testing.T) *env {
	t.Helper()
	return newEnvOn(t, plane)
}

// newEnvOn is for a test that has a control plane of its own.
func newEnvOn(t *testing.T, plane *testenv.ControlPlane) *env {
	t.Helper()
	c, err := client.New(plane.Config(), client.Options{Scheme: scheme(t)})
	require.NoError(t, err)
	pool := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	if len(pool) > 40 {
		pool = pool[:30] + fmt.Sprintf("%x", hash(pool))
	}
	return &env{Client: c, t: t, plane: plane, pool: pool}
}

func hash(s string) uint32 {
	h := uint32(2166136261)
	for _, c := range []byte(s) {
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}

// running is a controller in this process.
type running struct {
	stop func()
	done chan struct{}
}

// Stop ends the controller and waits for it.
func (r *running) Stop() {
	r.stop()
	<-r.done
}

// option changes how a controller is started.
type option func(*ctrl.Options, *controller.Config, *rest.Config)

// startController runs the controller as its service account until the test ends, or Stop.
func (e *env) startController(options ...option) *running {
	e.t.Helper()
	rc := e.plane.ConfigFor("system:serviceaccount:"+namespace+":"+serviceAccount, "system:serviceaccounts", "system:serviceaccounts:"+namespace, "system:authenticated")
	rc.QPS = -1
	skip := true
	opts := ctrl.Options{
		Scheme: scheme(e.t), Logger: quiet(e.t), Metrics: server.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Controller: config.Controller{SkipNameValidation: &skip},
	}
	cfg := controller.Config{Registerer: prometheus.NewRegistry(), Namespace: namespace, Forms: []readiness.Form{readiness.FormNative}}
	for _, o := range options {
		o(&opts, &cfg, rc)
	}
	mgr, err := ctrl.NewManager(rc, opts)
	require.NoError(e.t, err)
	require.NoError(e.t, controller.SetupWithManager(mgr, cfg))
	ctx, cancel := context.WithCancel(e.t.Context())
	r := &running{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := mgr.Start(ctx); err != nil {
			e.t.Errorf("controller ended: %v", err)
		}
	}()
	e.t.Cleanup(r.Stop)
	return r
}

// quiet logs errors only: they fail nothing, but explain a failure.
func quiet(t *testing.T) logr.Logger {
	t.Helper()
	return funcr.New(func(_, args string) {
		if strings.Contains(args, `"error"`) && t.Context().Err() == nil {
			t.Log(args)
		}
	}, funcr.Options{})
}

// node is a Node of the test's own pool.
func (e *env) node(change ...func(*corev1.Node)) *corev1.Node {
	e.t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:   fmt.Sprintf("%s-%d", e.pool, e.seq.Add(1)),
		Labels: map[string]string{"pool": e.pool},
	}}
	for _, c := range change {
		c(n)
	}
	require.NoError(e.t, e.Create(e.t.Context(), n))
	e.t.Cleanup(func() { e.drop(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}) })
	return n
}

// rule is a rule for the test's own pool that requires condition Ready-For-Test.
func (e *env) rule(change ...func(*v1alpha1.NodeReadinessRule)) *v1alpha1.NodeReadinessRule {
	e.t.Helper()
	r := &v1alpha1.NodeReadinessRule{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-r%d", e.pool, e.seq.Add(1))},
		Spec: v1alpha1.NodeReadinessRuleSpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": e.pool}},
			Conditions:   []v1alpha1.RequiredCondition{{Type: testCondition}},
		},
	}
	for _, c := range change {
		c(r)
	}
	require.NoError(e.t, e.Create(e.t.Context(), r))
	e.t.Cleanup(func() { e.drop(&v1alpha1.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: r.Name}}) })
	return r
}

const testCondition = "example.com/TestReady"

// afterTest is for clean-ups, when the test's own context is over.
func (e *env) afterTest() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(e.t.Context()), settleTime)
}

// drop deletes an object after the test.
func (e *env) drop(o client.Object) {
	ctx, cancel := e.afterTest()
	defer cancel()
	if err := client.IgnoreNotFound(e.Delete(ctx, o)); err != nil {
		e.t.Errorf("clean up: %v", err)
	}
}

// tainted is for env.node: the Node registers with the taint.
func tainted(key string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Value: readiness.DefaultTaintValue, Effect: corev1.TaintEffectNoSchedule})
	}
}

// report patches a condition of the Node, as its agent would.
func (e *env) report(node, condition string, status corev1.ConditionStatus) {
	e.t.Helper()
	e.reportAt(node, condition, status, time.Now())
}

// reportAt reports with the node's own idea of the time.
func (e *env) reportAt(node, condition string, status corev1.ConditionStatus, at time.Time) {
	e.t.Helper()
	now := at.UTC().Format(time.RFC3339)
	patch := fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":%q,"reason":"Test","message":"","lastHeartbeatTime":%q,"lastTransitionTime":%q}]}}`, condition, status, now, now)
	target := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	require.NoError(e.t, e.Status().Patch(e.t.Context(), target, client.RawPatch(types.StrategicMergePatchType, []byte(patch))))
}

func (e *env) get(node string) *corev1.Node {
	e.t.Helper()
	n := &corev1.Node{}
	require.NoError(e.t, e.Get(e.t.Context(), client.ObjectKey{Name: node}, n))
	return n
}

func hasTaint(n *corev1.Node, key string) bool {
	for i := range n.Spec.Taints {
		if n.Spec.Taints[i].Key == key {
			return true
		}
	}
	return false
}

// eventually waits until the Node is as it should be.
func (e *env) eventually(node, what string, is func(*corev1.Node) bool) *corev1.Node {
	e.t.Helper()
	deadline := time.After(settleTime)
	for {
		if last := e.get(node); is(last) {
			return last
		}
		select {
		case <-deadline:
			require.FailNow(e.t, "not in time: "+what)
		case <-time.After(pollTime):
		}
	}
}

func (e *env) eventuallyTainted(node, key string, want bool) *corev1.Node {
	e.t.Helper()
	return e.eventually(node, fmt.Sprintf("taint %s on %s: %t", key, node, want), func(n *corev1.Node) bool { return hasTaint(n, key) == want })
}

// stays holds when the Node remains as it is for a while in which anything would have happened.
func (e *env) stays(node, what string, is func(*corev1.Node) bool) {
	e.t.Helper()
	deadline := time.After(quietTime)
	for {
		require.True(e.t, is(e.get(node)), what)
		select {
		case <-deadline:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// quietTime is some hundred times what the controller takes.
const quietTime = 700 * time.Millisecond

func taintKey(r *v1alpha1.NodeReadinessRule) string { return readiness.TaintPrefix + r.Name }

// mergePatch changes a Node without a lock, as Karpenter does.
func (e *env) mergePatch(node string, change map[string]any) {
	e.t.Helper()
	patch, err := json.Marshal(change)
	require.NoError(e.t, err)
	target := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	require.NoError(e.t, e.Patch(e.t.Context(), target, client.RawPatch(types.MergePatchType, patch)))
}

// setTaints replaces the whole array.
func (e *env) setTaints(node string, taints ...corev1.Taint) {
	e.t.Helper()
	e.mergePatch(node, map[string]any{"spec": map[string]any{"taints": taints}})
}

func (e *env) changeRule(rule *v1alpha1.NodeReadinessRule, spec map[string]any) {
	e.t.Helper()
	patch, err := json.Marshal(map[string]any{"spec": spec})
	require.NoError(e.t, err)
	target := &v1alpha1.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: rule.Name}}
	require.NoError(e.t, e.Patch(e.t.Context(), target, client.RawPatch(types.MergePatchType, patch)))
}

func objectMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func containsName(claims, rule string) bool { return strings.Contains(claims, `"name":"`+rule+`"`) }
