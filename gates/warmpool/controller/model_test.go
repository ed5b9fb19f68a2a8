package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/gates/warmpool"
	"headstart.dev/internal/resources"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

var (
	start   = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	poolKey = types.NamespacedName{Namespace: "kube-system", Name: "web"}
)

// fixture is a model with one pool of one CPU replicas on nodes labelled pool=web, and a clock that a test moves.
type fixture struct {
	*model
	at      time.Time
	changes int
}

func newFixture(change func(*pool)) *fixture {
	f := &fixture{at: start}
	f.model = newModel(func() time.Time { return f.at }, func(types.NamespacedName) { f.changes++ })
	f.adopt(poolKey, func(*pool) *pool {
		p := &pool{
			key: poolKey, backend: v1alpha1.BackendPausePods,
			target: target{shape: resources.List{"cpu": 1000}, nodeSelector: map[string]string{"pool": "web"}},
			sizer:  warmpool.NewSizer(warmpool.Config{Max: 100, Adaptive: &warmpool.Adaptive{Window: 24 * time.Hour, Quantile: 1}}),
			demand: map[types.UID]int64{}, gated: map[types.UID]int64{}, replicas: map[types.UID]*replica{}, waiting: map[types.UID]*nomination{},
		}
		if change != nil {
			change(p)
		}
		return p
	})
	return f
}

func (f *fixture) pool() *pool { return f.pools[poolKey] }

func (f *fixture) node(name string, created time.Time, labels map[string]string) {
	f.setNode(f.readNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: labels, CreationTimestamp: metav1.NewTime(created)},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{"cpu": resource.MustParse("4")},
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}))
}

// pod is a pod of one CPU.
func pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(start)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}},
	}
	if change != nil {
		change(p)
	}
	return p
}

func isReady(p *corev1.Pod) {
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
}

func (f *fixture) see(name string, change func(*corev1.Pod)) { f.setPod(newPodView(pod(name, change))) }

func (f *fixture) demandNow() float64 { return float64(f.pool().demandSum) / micro }

func TestDemandCountsWhoAsks(t *testing.T) {
	web, other := map[string]string{"pool": "web"}, map[string]string{"pool": "other"}
	cases := map[string]struct {
		change func(*corev1.Pod)
		want   float64
	}{
		"bound to one of the pool's nodes":    {func(p *corev1.Pod) { p.Spec.NodeName = "mine" }, 1},
		"bound elsewhere":                     {func(p *corev1.Pod) { p.Spec.NodeName = "theirs" }, 0},
		"bound to a node nobody knows":        {func(p *corev1.Pod) { p.Spec.NodeName = "gone" }, 0},
		"waiting for such a node":             {func(p *corev1.Pod) { p.Spec.NodeSelector = web }, 1},
		"waiting for another":                 {func(p *corev1.Pod) { p.Spec.NodeSelector = other }, 0},
		"waiting for any":                     {nil, 0},
		"finished":                            {func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = "mine", corev1.PodSucceeded }, 0},
		"being deleted":                       {func(p *corev1.Pod) { p.Spec.NodeName, p.DeletionTimestamp = "mine", &metav1.Time{} }, 0},
		"a DaemonSet's":                       {func(p *corev1.Pod) { p.Spec.NodeName = "mine"; own(p, "DaemonSet") }, 0},
		"a static pod":                        {func(p *corev1.Pod) { p.Spec.NodeName = "mine"; own(p, "Node") }, 0},
		"another pool's replica":              {func(p *corev1.Pod) { p.Spec.NodeName = "mine"; p.Labels = map[string]string{LabelPool: "x"} }, 0},
		"twice the size of a replica":         {func(p *corev1.Pod) { p.Spec.NodeName = "mine"; ask(p, "2") }, 2},
		"a third of it":                       {func(p *corev1.Pod) { p.Spec.NodeName = "mine"; ask(p, "333m") }, 0.333},
		"a size that no node has, from a lie": {func(p *corev1.Pod) { p.Spec.NodeName = "mine"; ask(p, "9000000000") }, 1e6},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(nil)
			f.node("mine", start, web)
			f.node("theirs", start, other)
			f.see("p", tc.change)
			require.InDelta(t, tc.want, f.demandNow(), 1e-6)
			f.deletePod("p", false)
			require.Zero(t, f.demandNow(), "nothing is left of a pod that is gone")
			require.Empty(t, f.used)
		})
	}
}

func own(p *corev1.Pod, kind string) {
	yes := true
	p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: "o", Controller: &yes}}
}

func ask(p *corev1.Pod, cpu string) {
	p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse(cpu)
}

func TestDemandRisesWhenANodeTurnsOutToBeThePools(t *testing.T) {
	f := newFixture(nil)
	f.see("early", func(p *corev1.Pod) { p.Spec.NodeName = "late" })
	require.Zero(t, f.demandNow())
	f.at = f.at.Add(time.Second)
	f.node("late", start, map[string]string{"pool": "web"})
	require.InDelta(t, 1, f.demandNow(), 1e-6)
	require.EqualValues(t, 1, f.pool().sizer.Decide(f.at, time.Minute, 0).Replicas)
}

func TestReplicaLife(t *testing.T) {
	f := newFixture(nil)
	replicaPod := func(p *corev1.Pod) {
		p.Namespace, p.Labels = poolKey.Namespace, map[string]string{LabelPool: poolKey.Name}
	}
	f.see("r", replicaPod)
	require.Equal(t, counts{pending: 1}, f.pool().counts(f.model))
	f.node("new", start.Add(20*time.Second), map[string]string{"pool": "web"})
	f.at = start.Add(50 * time.Second)
	f.see("r", func(p *corev1.Pod) { replicaPod(p); p.Spec.NodeName = "new"; isReady(p) })
	require.Equal(t, counts{ready: 1, warm: 1}, f.pool().counts(f.model))
	require.Equal(t, 50*time.Second, f.pool().leads.Quantile(0.95, 0), "its node was bought for it")

	f.at = start.Add(60 * time.Second)
	preempted := func(p *corev1.Pod) {
		replicaPod(p)
		p.Spec.NodeName = "new"
		isReady(p)
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reasonPreempted})
	}
	f.see("r", preempted)
	f.see("r", preempted)
	f.deletePod("r", true)
	require.EqualValues(t, 1, f.pool().consumed, "counted once, however often it is seen")

	later := func(p *corev1.Pod) { replicaPod(p); p.CreationTimestamp = metav1.NewTime(start.Add(time.Minute)) }
	f.see("r2", later)
	f.at = start.Add(67 * time.Second)
	f.see("r2", func(p *corev1.Pod) { later(p); p.Spec.NodeName = "new"; isReady(p) })
	require.Equal(t, 7*time.Second, f.pool().refills.Quantile(0.95, 0))
	require.Equal(t, 1, f.pool().leads.Len(), "no node was bought for this one")
	f.deletePod("r2", false)
	require.EqualValues(t, 1, f.pool().consumed, "a replica that was drained was not taken")
}

func TestForgottenPodsAreNoticed(t *testing.T) {
	f := newFixture(nil)
	f.node("n", start, map[string]string{"pool": "web"})
	f.see("stuck", func(p *corev1.Pod) { p.Status.NominatedNodeName = "n" })
	nodes, next := f.pool().forgotten(f.model, f.at)
	require.Empty(t, nodes, "it was nominated this moment")
	require.Equal(t, nudgeAfter, next)
	f.at = f.at.Add(nudgeAfter)
	f.see("big", func(p *corev1.Pod) { p.Spec.NodeName = "n"; ask(p, "3500m") })
	nodes, _ = f.pool().forgotten(f.model, f.at)
	require.Empty(t, nodes, "its room is not free yet")
	f.deletePod("big", false)
	nodes, _ = f.pool().forgotten(f.model, f.at)
	require.Equal(t, []string{"n"}, nodes)
	nodes, _ = f.pool().forgotten(f.model, f.at)
	require.Empty(t, nodes, "once, and again only after a while")
	f.see("stuck", func(p *corev1.Pod) { p.Spec.NodeName = "n" })
	_, next = f.pool().forgotten(f.model, f.at.Add(time.Hour))
	require.Zero(t, next, "it is bound: nothing waits")
}

// A victim that ends gracefully holds its room until it is gone, as the scheduler counts; and a pod that waits for
// something else than room must not have the API server pay for it for ever.
func TestNudgesAreFew(t *testing.T) {
	f := newFixture(nil)
	f.node("n", start, map[string]string{"pool": "web"})
	f.see("stuck", func(p *corev1.Pod) { p.Status.NominatedNodeName = "n" })
	f.see("victim", func(p *corev1.Pod) {
		p.Spec.NodeName, p.DeletionTimestamp = "n", &metav1.Time{Time: start}
		ask(p, "3500m")
	})
	f.at = f.at.Add(time.Minute)
	nodes, _ := f.pool().forgotten(f.model, f.at)
	require.Empty(t, nodes, "the victim is still going")
	f.deletePod("victim", false)

	nudges := 0
	for end := f.at.Add(10 * time.Minute); f.at.Before(end); {
		nodes, next := f.pool().forgotten(f.model, f.at)
		nudges += len(nodes)
		require.Positive(t, next)
		f.at = f.at.Add(next)
	}
	require.Less(t, nudges, 30, "in ten minutes")
	require.GreaterOrEqual(t, nudges, 10)
}

// A controller that is killed between the two calls of a nudge leaves the pod behind: it must end by itself.
func TestWakePodEndsByItself(t *testing.T) {
	deadline := wakePod(&v1alpha1.WarmPool{}, "n").Spec.ActiveDeadlineSeconds
	require.NotNil(t, deadline)
	require.LessOrEqual(t, *deadline, int64(60))
}

// What a shrinking pool no longer owes is not made up for by the replicas of the next morning.
func TestRefillsAreOnlyOfWhatIsMissing(t *testing.T) {
	f := newFixture(nil)
	f.pool().taken = []time.Time{start, start, start.Add(time.Second)}
	f.pool().resize(2)
	require.Len(t, f.pool().taken, 2, "two are missing")
	f.pool().resize(0)
	require.Empty(t, f.pool().taken)
}

// A replica that waited for hours waited for a person, or for capacity that nobody had: no schedule starts hours early.
func TestLeadForgetsWhatWasNoBoot(t *testing.T) {
	f := newFixture(nil)
	replicaPod := func(p *corev1.Pod) {
		p.Namespace, p.Labels = poolKey.Namespace, map[string]string{LabelPool: poolKey.Name}
	}
	f.see("r", replicaPod)
	f.node("new", start.Add(5*time.Hour), map[string]string{"pool": "web"})
	f.at = start.Add(5*time.Hour + time.Minute)
	f.see("r", func(p *corev1.Pod) { replicaPod(p); p.Spec.NodeName = "new"; isReady(p) })
	require.Zero(t, f.pool().leads.Len())
}

// A pod resized in place asks for more without being another pod.
func TestDemandFollowsAResize(t *testing.T) {
	f := newFixture(nil)
	f.node("n", start, map[string]string{"pool": "web"})
	f.see("web", func(p *corev1.Pod) { p.Spec.NodeName = "n" })
	f.see("web", func(p *corev1.Pod) { p.Spec.NodeName = "n"; ask(p, "3") })
	require.InDelta(t, 3, f.demandNow(), 1e-6)
	require.EqualValues(t, 3000, f.used["n"]["cpu"])
}

func TestNodeIsWarm(t *testing.T) {
	image := prepull.InventoryImage{Digest: "0123456789abcdef", Name: "docker.io/library/app:v1"}
	inventory, err := prepull.Inventory{Warm: []prepull.InventoryImage{image}}.Encode()
	require.NoError(t, err)
	record := readiness.Record{Node: "uid", Rules: map[types.UID]readiness.Entry{
		"1": {Name: "done", State: readiness.EntryDone}, "2": {Name: "late", State: readiness.EntryTimedOut}, "3": {Name: "held", State: readiness.EntryHeld},
	}}
	completed, err := record.Encode()
	require.NoError(t, err)
	all := map[string]string{readiness.AnnotationReadiness: completed, readiness.AnnotationImages: inventory}
	moved := prepull.InventoryImage{Digest: "fedcba9876543210", Name: image.Name}
	cases := map[string]struct {
		annotations map[string]string
		imagesReady bool
		w           warmth
		want        bool
	}{
		"nothing is asked":                       {nil, false, warmth{}, true},
		"the rule is done":                       {all, false, warmth{rule: "done"}, true},
		"the rule timed out":                     {all, false, warmth{rule: "late"}, false},
		"the rule still holds":                   {all, false, warmth{rule: "held"}, false},
		"no such rule":                           {all, false, warmth{rule: "none"}, false},
		"the image is there":                     {all, false, warmth{wantImages: true, images: []prepull.InventoryImage{image}}, true},
		"its tag has moved":                      {all, false, warmth{wantImages: true, images: []prepull.InventoryImage{moved}}, false},
		"no digest is asked":                     {all, false, warmth{wantImages: true, images: []prepull.InventoryImage{{Name: image.Name}}}, true},
		"no inventory, but ImagesReady":          {nil, true, warmth{wantImages: true, images: []prepull.InventoryImage{image}}, true},
		"no inventory":                           {nil, false, warmth{wantImages: true, images: []prepull.InventoryImage{image}}, false},
		"an inventory that cannot be read":       {map[string]string{readiness.AnnotationImages: "{"}, true, warmth{wantImages: true, images: []prepull.InventoryImage{image}}, false},
		"an inventory of a hostile size":         {map[string]string{readiness.AnnotationImages: strings.Repeat("x", 1<<20)}, true, warmth{wantImages: true, images: []prepull.InventoryImage{image}}, false},
		"a record that cannot be read":           {map[string]string{readiness.AnnotationReadiness: "{"}, true, warmth{rule: "done"}, false},
		"what is asked is unknown: never":        {all, true, warmth{unknown: true}, false},
		"a policy without images: the condition": {all, true, warmth{wantImages: true}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "uid", Annotations: tc.annotations}}
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
			if tc.imagesReady {
				n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: readiness.ConditionImagesReady, Status: corev1.ConditionTrue})
			}
			v := newNodeView(n, nil)
			require.Equal(t, tc.want, v.warm(tc.w))
			require.Equal(t, tc.want, newNodeView(n, v).warm(tc.w), "and when it is read again")
			n.Spec.Unschedulable = true
			require.False(t, newNodeView(n, v).warm(tc.w), "a cordoned node is no place to start")
		})
	}
}

func TestPauseImage(t *testing.T) {
	cases := map[string]struct {
		names []string
		bytes int64
		want  string
	}{
		"a sandbox image":        {[]string{"registry.k8s.io/pause@sha256:ab", "registry.k8s.io/pause:3.10"}, 300 << 10, "registry.k8s.io/pause:3.10"},
		"of a registry's port":   {[]string{"127.0.0.1:5000/eks/pause:3.10"}, 300 << 10, "127.0.0.1:5000/eks/pause:3.10"},
		"an application's":       {[]string{"registry.example/pause:v2"}, 90 << 20, ""},
		"another that ends like": {[]string{"registry.example/menopause:v2"}, 1 << 10, ""},
		"by digest only":         {[]string{"registry.k8s.io/pause@sha256:ab"}, 300 << 10, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, pauseImage([]corev1.ContainerImage{{Names: tc.names, SizeBytes: tc.bytes}}))
		})
	}
}

func TestStateSurvives(t *testing.T) {
	f := newFixture(func(p *pool) { p.consumed = 3; p.cost.change(start, 2) })
	f.node("n", start, map[string]string{"pool": "web"})
	_, key, err := f.pool().state("uid")
	require.NoError(t, err)
	f.at = start.Add(3 * time.Hour)
	f.pool().sizer.Decide(f.at, time.Minute, 0)
	_, later, err := f.pool().state("uid")
	require.NoError(t, err)
	require.Equal(t, key, later, "time alone is not worth a write")
	f.see("p", func(p *corev1.Pod) { p.Spec.NodeName = "n" })
	s, later, err := f.pool().state("uid")
	require.NoError(t, err)
	require.NotEqual(t, key, later, "a rise is")

	next := newFixture(func(p *pool) { p.restore(s, f.at) })
	require.Equal(t, f.pool().sizer.Window().Hours(), next.pool().sizer.Window().Hours())
	require.EqualValues(t, 3, next.pool().consumed)
	require.InDelta(t, 6, next.pool().cost.total(f.at), 1e-9, "three hours at 2")
	require.EqualValues(t, 1, next.pool().sizer.Decide(f.at, time.Minute, 0).Replicas)
}

func TestMetricsAreWellFormed(t *testing.T) {
	f := newFixture(func(p *pool) { p.desired, p.consumed = 4, 2 })
	reg := prometheus.NewPedanticRegistry()
	_, err := newMetrics(reg, f.model)
	require.NoError(t, err)
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP headstart_warmpool_consumed_total Replicas that pods have taken.
# TYPE headstart_warmpool_consumed_total counter
headstart_warmpool_consumed_total{pool="kube-system/web"} 2
`), "headstart_warmpool_consumed_total"))
	_, err = newMetrics(reg, f.model)
	require.ErrorContains(t, err, "register metrics")
}
