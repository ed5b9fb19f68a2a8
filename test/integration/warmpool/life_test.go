package warmpool_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

func desired(n int32) func(*v1alpha1.WarmPool) bool {
	return func(wp *v1alpha1.WarmPool) bool { return wp.Status.Desired == n }
}

// The floor of half past two comes on the day that has no half past two, and the controller is early by the lead time.
func TestScheduleFiresAcrossDaylightSaving(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	zone, err := time.LoadLocation("America/New_York")
	require.NoError(t, err)
	leap := time.Date(2026, 3, 8, 7, 0, 0, 0, time.UTC) // 02:00 EST becomes 03:00 EDT
	var now clock
	now.set(leap.Add(-97 * time.Second)) // the default lead time is 90 s, and one for whole seconds
	startController(t, plane.Config(), now.now)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) {
		s.Min = 1
		s.Schedules = []v1alpha1.WarmPoolSchedule{{Name: "night", Start: "30 2 * * *", End: "0 5 * * *", TimeZone: zone.String(), Min: 9}}
	})
	got := eventually(t, c, wp, "before its time", desired(1))
	require.NotNil(t, got.Status.NextChange)
	require.Equal(t, leap.Add(-91*time.Second), got.Status.NextChange.Time.UTC())
	require.EqualValues(t, 9, got.Status.NextChange.Replicas)
	eventually(t, c, wp, "it wakes by itself, one lead time early", desired(9))
	require.WithinDuration(t, leap.Add(-91*time.Second), now.now(), 20*time.Second)

	now.set(time.Date(2026, 3, 8, 9, 0, 1, 0, time.UTC)) // 05:00 EDT
	poke(t, c, wp)
	eventually(t, c, wp, "the end is a time of the new offset", desired(1))
}

// poke makes the controller look: it cannot know that a test moved its clock.
func poke(t testing.TB, c client.Client, wp *v1alpha1.WarmPool) {
	t.Helper()
	scale(t, c, wp, "max", 21+int(time.Now().UnixNano()%1000))
}

// What a pool has learned outlives the controller: size, window, counters; and a restart at which nothing changed
// writes nothing.
func TestRestartKeepsWindowAndSize(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	kubelets(t, plane, 0)
	first := startController(t, plane.Config(), time.Now)
	node(t, c, ns+"-1", ns, 30)
	burst := workload(t, c, ns, "burst", 2, nil)
	bound(t, c, ns, "burst", 2)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) {
		s.Shape = v1alpha1.WarmPoolShape{ScalableRef: &v1alpha1.ScalableRef{Kind: "Deployment", Name: "burst"}}
		s.Adaptive = &v1alpha1.WarmPoolAdaptive{Quantile: "1"}
	})
	eventually(t, c, wp, "what is there at first is no rise", func(wp *v1alpha1.WarmPool) bool {
		return wp.Status.ObservedGeneration == 1 && wp.Status.Desired == 0
	})
	scale(t, c, burst, "replicas", 8)
	eventually(t, c, wp, "six more at once is what must be ready", ready(6))
	first.stop()
	kept := &corev1.ConfigMap{}
	require.NoError(t, c.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "headstart-warmpool-web"}, kept), "kept at the end at the latest")
	require.Len(t, kept.OwnerReferences, 1)

	scale(t, c, burst, "replicas", 2) // nobody looks
	before := version(t, c, wp)
	startController(t, plane.Config(), time.Now)
	<-time.After(quiet)
	got := eventually(t, c, wp, "as before", ready(6))
	require.Equal(t, before, got.ResourceVersion, "nothing changed, nothing was written")
	require.Equal(t, "demand asks for 6", got.Status.Reason)
}

func version(t testing.TB, c client.Client, wp *v1alpha1.WarmPool) string {
	t.Helper()
	got := &v1alpha1.WarmPool{}
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(wp), got))
	return got.ResourceVersion
}

// Pods behind a gate that names the pool make it grow, and their end makes it shrink.
func TestGatedPodsProvokeCapacity(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	startController(t, plane.Config(), time.Now)
	gate := "example.com/" + ns
	policy := &v1alpha1.GatePolicy{ObjectMeta: metav1.ObjectMeta{Name: ns}, Spec: v1alpha1.GatePolicySpec{
		GateName: gate, Requires: []v1alpha1.Requirement{{References: &v1alpha1.ReferencesRequirement{}}},
		WarmPool: &v1alpha1.WarmPoolReference{Namespace: ns, Name: "web"},
	}}
	require.NoError(t, c.Create(t.Context(), policy))
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) { s.Min = 1 })
	eventually(t, c, wp, "nothing waits", desired(1))
	gated := workload(t, c, ns, "gated", 5, func(spec *corev1.PodSpec) {
		spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: gate}}
	})
	got := eventually(t, c, wp, "five wait", desired(5))
	require.Equal(t, "gated pods wait for 5", got.Status.Reason)
	scale(t, c, gated, "replicas", 0)
	eventually(t, c, wp, "none wait", desired(1))
}

// Two hundred pools at rest cost the API server nothing.
func TestIdlePoolsAreSilent(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	counter := &requestCounter{}
	cfg := rest.CopyConfig(plane.Config())
	cfg.Wrap(counter.wrap)
	run := startController(t, cfg, time.Now)
	const count = 200
	for i := range count {
		wp := &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("pool-%d", i)}, Spec: v1alpha1.WarmPoolSpec{
			Min: int32(i % 2), Max: 5, Shape: v1alpha1.WarmPoolShape{Resources: corev1.ResourceList{"cpu": *resourceOne()}},
			Template:  v1alpha1.WarmPoolTemplate{NodeSelector: map[string]string{"pool": ns}},
			Schedules: []v1alpha1.WarmPoolSchedule{{Name: "s", Start: "0 3 29 2 *", End: "0 4 29 2 *", Min: 3}},
			Adaptive:  &v1alpha1.WarmPoolAdaptive{}, Budget: &v1alpha1.WarmPoolBudget{CostPerReplicaHour: "0.1"},
		}}
		require.NoError(t, c.Create(t.Context(), wp))
	}
	require.Eventually(t, func() bool {
		var list v1alpha1.WarmPoolList
		require.NoError(t, c.List(t.Context(), &list, client.InNamespace(ns)))
		for i := range list.Items {
			if list.Items[i].Status.ObservedGeneration == 0 {
				return false
			}
		}
		return true
	}, 2*patience, tick*4)
	require.Eventually(t, func() bool {
		before := counter.Load()
		<-time.After(quiet)
		return counter.Load() == before
	}, 2*patience, tick, "all is written")
	before := counter.Load()
	<-time.After(3 * quiet)
	require.Equal(t, before, counter.Load(), "requests of 200 idle pools in %v", 3*quiet)

	problems, err := testutil.GatherAndLint(run.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, 5*count, series(t, run, ns), "five states a pool")
	for i := range 2 {
		require.NoError(t, c.Delete(t.Context(), &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("pool-%d", i)}}))
	}
	require.Eventually(t, func() bool {
		return series(t, run, ns) == 5*(count-2)
	}, patience, tick, "a pool's series end with it")
}

// series counts the replicas series of a namespace's pools.
func series(t testing.TB, run running, ns string) int {
	t.Helper()
	families, err := run.registry.Gather()
	require.NoError(t, err)
	count := 0
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if family.GetName() == "headstart_warmpool_replicas" && label.GetName() == "pool" && strings.HasPrefix(label.GetValue(), ns+"/") {
					count++
				}
			}
		}
	}
	return count
}

// requestCounter counts what a client asks of the API server, watches and the leases aside: a watch is one request
// however long it stays.
type requestCounter struct{ atomic.Int64 }

func (r *requestCounter) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.URL.Query().Get("watch") == "" {
			r.Add(1)
		}
		return next.RoundTrip(req)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// The schema refuses what cannot be meant, and says what to write.
func TestSchemaRefuses(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	cases := map[string]struct {
		change func(*v1alpha1.WarmPoolSpec)
		says   string
	}{
		"min above max": {func(s *v1alpha1.WarmPoolSpec) { s.Min = 99 }, "lower min or raise max"},
		"no shape":      {func(s *v1alpha1.WarmPoolSpec) { s.Shape = v1alpha1.WarmPoolShape{} }, "exactly one of shape.resources and shape.scalableRef"},
		"quantile and cost": {func(s *v1alpha1.WarmPoolSpec) {
			s.Adaptive = &v1alpha1.WarmPoolAdaptive{Quantile: "0.9", CostPerMiss: "1"}
		}, "not both"},
		"a miss of no price": {func(s *v1alpha1.WarmPoolSpec) { s.Adaptive = &v1alpha1.WarmPoolAdaptive{CostPerMiss: "1"} }, "costPerReplicaHour"},
		"a lid of no price":  {func(s *v1alpha1.WarmPoolSpec) { s.Budget = &v1alpha1.WarmPoolBudget{MaxPerHour: "1"} }, "maxPerHour needs"},
		"no NodePool":        {func(s *v1alpha1.WarmPoolSpec) { s.Backend = v1alpha1.BackendStaticNodePool }, "karpenter.sh/nodepool"},
		"an unknown backend": {func(s *v1alpha1.WarmPoolSpec) { s.Backend = "Magic" }, "PausePods"},
		"a zone in the cron": {func(s *v1alpha1.WarmPoolSpec) { s.Schedules = schedules("TZ=UTC 0 8 * * *", "UTC") }, "zone in timeZone"},
		"the local zone":     {func(s *v1alpha1.WarmPoolSpec) { s.Schedules = schedules("0 8 * * *", "Local") }, "Europe/Berlin"},
		"a quantile above 1": {func(s *v1alpha1.WarmPoolSpec) { s.Adaptive = &v1alpha1.WarmPoolAdaptive{Quantile: "1.5"} }, "quantile"},
		"a window of minutes": {func(s *v1alpha1.WarmPoolSpec) {
			s.Adaptive = &v1alpha1.WarmPoolAdaptive{Window: &metav1.Duration{Duration: time.Minute}}
		}, "between 1h and 2160h"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			wp := &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "refused"}, Spec: v1alpha1.WarmPoolSpec{
				Max: 5, Shape: v1alpha1.WarmPoolShape{Resources: corev1.ResourceList{"cpu": *resourceOne()}},
			}}
			tc.change(&wp.Spec)
			require.ErrorContains(t, c.Create(t.Context(), wp), tc.says)
		})
	}
}

// What only a parser can judge is refused by the controller, and the size stays as it was.
func TestInvalidSpecIsReported(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	startController(t, plane.Config(), time.Now)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) { s.Schedules = schedules("0 25 * * *", "UTC") })
	eventually(t, c, wp, "reported", conditionIs("Accepted", metav1.ConditionFalse, "Invalid"))
	require.Eventually(t, func() bool {
		var events corev1.EventList
		require.NoError(t, c.List(t.Context(), &events, client.InNamespace(ns)))
		for i := range events.Items {
			if events.Items[i].Reason == "Invalid" && events.Items[i].InvolvedObject.Name == "web" {
				return true
			}
		}
		return false
	}, patience, tick, "an event tells of it")
	missing := warmPoolNamed(t, c, ns, "other", func(s *v1alpha1.WarmPoolSpec) {
		s.Shape = v1alpha1.WarmPoolShape{ScalableRef: &v1alpha1.ScalableRef{Kind: "Deployment", Name: "late"}}
		s.Min = 2
	})
	eventually(t, c, missing, "no such workload", conditionIs("Accepted", metav1.ConditionFalse, "ScalableRefNotFound"))
	workload(t, c, ns, "late", 0, nil)
	eventually(t, c, missing, "found when it comes", desired(2))
}

// Without Karpenter's CRDs its backends say what is missing.
func TestMissingCRDsAreConditions(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	startController(t, plane.Config(), time.Now)
	for _, backend := range []v1alpha1.WarmPoolBackend{v1alpha1.BackendCapacityBuffer, v1alpha1.BackendStaticNodePool} {
		wp := warmPoolNamed(t, c, ns, map[v1alpha1.WarmPoolBackend]string{v1alpha1.BackendCapacityBuffer: "buffer", v1alpha1.BackendStaticNodePool: "static"}[backend], func(s *v1alpha1.WarmPoolSpec) {
			s.Backend, s.Template.NodeSelector = backend, map[string]string{"karpenter.sh/nodepool": ns}
		})
		eventually(t, c, wp, string(backend), conditionIs("Ready", metav1.ConditionFalse, "CRDNotInstalled"))
	}
}

// The rights that deploy/rbac gives are all that it takes.
func TestRunsWithTheDeployedRights(t *testing.T) {
	c := newClient(t, plane)
	ns := namespace(t, c)
	create(t, c, "{apiVersion: v1, kind: Namespace, metadata: {name: headstart-system}}")
	for _, file := range []string{"core", "warmpool"} {
		applyFile(t, c, "../../../deploy/rbac/controller/"+file+".yaml")
	}
	applyFile(t, c, "../../../deploy/admission/controller.yaml")
	kubelets(t, plane, 0)
	startController(t, plane.ConfigFor("system:serviceaccount:headstart-system:headstart-controller", "system:serviceaccounts"), time.Now)
	node(t, c, ns+"-1", ns, 4)
	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) { s.Min, s.Budget = 3, &v1alpha1.WarmPoolBudget{CostPerReplicaHour: "1"} })
	eventually(t, c, wp, "filled", ready(3))
	scale(t, c, wp, "min", 1)
	eventually(t, c, wp, "shrunk, with surplus marked", ready(1))
	require.Eventually(t, func() bool {
		return c.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "headstart-warmpool-web"}, &corev1.ConfigMap{}) == nil
	}, patience, tick, "the state is kept")
	broken := warmPoolNamed(t, c, ns, "broken", func(s *v1alpha1.WarmPoolSpec) { s.Schedules = schedules("0 25 * * *", "UTC") })
	eventually(t, c, broken, "reported", conditionIs("Accepted", metav1.ConditionFalse, "Invalid"))
}
