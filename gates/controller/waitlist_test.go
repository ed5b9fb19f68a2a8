package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
	"headstart.dev/readiness"
)

const (
	gateA = "example.com/a"
	gateB = "example.com/b"
	other = "other.example/gate"
)

func begin() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

// world is a waitlist with facts that the test sets.
type world struct {
	*waitlist
	t      *testing.T
	shapes *gates.Shapes
	there  map[string]bool // ConfigMaps
	needed map[gates.Dependency]bool
	// problem is why nodes are not known.
	problem string
}

func newWorld(t *testing.T, policies ...*gates.Policy) *world {
	t.Helper()
	w := &world{waitlist: newWaitlist(), t: t, shapes: gates.NewShapes(), there: map[string]bool{}, needed: map[gates.Dependency]bool{}}
	w.sources = factSources{
		exists:       func(d gates.Dependency) gates.Existence { return gates.There(w.there[d.Name]) },
		fleetProblem: func() string { return w.problem },
		need:         func(d gates.Dependency) { w.needed[d] = true },
		drop:         func(d gates.Dependency) { delete(w.needed, d) },
	}
	w.open()
	w.enforce(policies...)
	return w
}

func (w *world) enforce(policies ...*gates.Policy) []types.NamespacedName {
	inForce := map[string]*gates.Policy{}
	for _, p := range policies {
		inForce[p.GateName] = p
	}
	return w.setPolicies(inForce)
}

func compile(t *testing.T, gate string, placement v1alpha1.Placement, requires ...v1alpha1.Requirement) *gates.Policy {
	t.Helper()
	p, err := gates.Compile(&v1alpha1.GatePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "policy-of-" + gate[len("example.com/"):], UID: types.UID("uid-" + gate), Generation: 1},
		Spec:       v1alpha1.GatePolicySpec{GateName: gate, Placement: placement, Requires: requires},
	})
	require.NoError(t, err)
	return p
}

func references() v1alpha1.Requirement {
	return v1alpha1.Requirement{References: &v1alpha1.ReferencesRequirement{}}
}

func images() v1alpha1.Requirement {
	return v1alpha1.Requirement{Images: &v1alpha1.ImagesRequirement{MinNodes: 1}}
}

// object is a pod of the test's shop that names a ConfigMap.
func object(name, configMap string, gateNames ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name), ResourceVersion: "1", CreationTimestamp: metav1.NewTime(begin()),
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Image:     "registry.example/app:v1",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
			EnvFrom: []corev1.EnvFromSource{{
				ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}},
			}},
		}}},
	}
	for _, gate := range gateNames {
		p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: gate})
	}
	return p
}

func (w *world) read(p *corev1.Pod) *gates.Pod {
	w.t.Helper()
	out, err := w.shapes.Pod(p)
	require.NoError(w.t, err)
	return out
}

func (w *world) put(p *corev1.Pod) types.NamespacedName {
	w.t.Helper()
	w.setPod(w.read(p), begin())
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

func (w *world) warmNode(name, cpu string, labels ...string) {
	w.t.Helper()
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{corev1.LabelHostname: name},
			Annotations: map[string]string{readiness.AnnotationImages: `{"warm":["0123456789abcdef=registry.example/app:v1"]}`},
		},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
	for _, label := range labels {
		n.Labels[label] = "true"
	}
	w.setNode(gates.ReadNode(n))
}

func (w *world) decideAt(key types.NamespacedName, after time.Duration) decision {
	w.t.Helper()
	d, ok := w.decide(key, begin().Add(after))
	require.True(w.t, ok)
	return d
}

func lifts(d decision) []string {
	out := []string{}
	for _, g := range d.lift {
		out = append(out, g.policy.GateName)
	}
	return out
}

func TestOnlyPodsThatWaitForAThingLookAgain(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementNone, references()))
	first, second := w.put(object("first", "flags", gateA)), w.put(object("second", "else", gateA))
	w.put(object("stranger", "flags", other))
	flags := gates.Dependency{Kind: gates.KindConfigMap, Namespace: "shop", Name: "flags"}
	require.True(t, w.needed[flags])
	require.Equal(t, []types.NamespacedName{first}, w.arrived(flags))
	require.Empty(t, w.arrived(flags), "it has been told and has not looked yet")
	require.Empty(t, lifts(w.decideAt(first, 0)))
	w.there["flags"] = true
	require.Equal(t, []string{gateA}, lifts(w.decideAt(first, 0)))
	require.Empty(t, lifts(w.decideAt(first, 0)), "what was decided is not decided again")
	require.Empty(t, lifts(w.decideAt(second, 0)))
	w.deletePod(w.read(object("first", "flags", gateA)))
	require.False(t, w.needed[flags], "a watch ends with the last pod that waits")
}

func TestNobodyIsToldBeforeTheFirstViewIsComplete(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, images()))
	w.awake = false
	key := w.put(object("web", "x", gateA))
	image := gates.Dependency{Kind: gates.KindImage, Name: "registry.example/app:v1"}
	w.warmNode("n1", "4")
	require.Empty(t, w.arrived(image))
	require.Equal(t, []types.NamespacedName{key}, w.open(), "then everybody looks")
	require.Equal(t, []types.NamespacedName{key}, w.arrived(image))
}

func TestASuccessorIsAnotherPod(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementNone, references()))
	old := object("web", "old", gateA)
	key := w.put(old)
	w.there["old"] = true
	d := w.decideAt(key, 0)
	require.Equal(t, []string{gateA}, lifts(d))
	fresh := object("web", "fresh", gateA)
	fresh.UID = "another"
	w.put(fresh)
	w.undo(d) // the late answer to its predecessor's patch
	require.Empty(t, w.deletePod(w.read(old)), "nor does its predecessor's deletion concern it")
	d = w.decideAt(key, 0)
	require.Empty(t, lifts(d))
	require.Equal(t, types.UID("another"), d.pod.UID)
}

func TestAFailedPatchIsDecidedAnew(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, images()))
	w.warmNode("n1", "1")
	key, rival := w.put(object("web", "x", gateA)), w.put(object("rival", "x", gateA))
	d := w.decideAt(key, 0)
	require.NotNil(t, d.steer)
	late := w.decideAt(rival, 0)
	require.Nil(t, late.steer, "its room is taken")
	w.undo(late)
	w.undo(d)
	require.NotNil(t, w.decideAt(rival, 0).steer, "and given back")
}

func TestSteeringGoesWithTheLastGate(t *testing.T) {
	cases := map[string]struct {
		a, b  v1alpha1.Placement // of a gate that waits for images, and of one that waits for a ConfigMap
		early []string           // lifted before the ConfigMap is there
		late  []string
		steer bool
	}{
		"preferred goes early and is remembered": {v1alpha1.PlacementPreferred, v1alpha1.PlacementNone, []string{gateA}, []string{gateB}, true},
		"none steers nobody":                     {v1alpha1.PlacementNone, v1alpha1.PlacementNone, []string{gateA}, []string{gateB}, false},
		"required waits to be the last":          {v1alpha1.PlacementRequired, v1alpha1.PlacementNone, []string{}, []string{gateA, gateB}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, compile(t, gateA, tc.a, images()), compile(t, gateB, tc.b, references()))
			pod := object("web", "flags", gateA, gateB)
			w.warmNode("n1", "4", w.read(pod).WarmLabel())
			key := w.put(pod)
			d := w.decideAt(key, 0)
			require.Equal(t, tc.early, lifts(d))
			require.Nil(t, d.steer)
			w.there["flags"] = true
			d = w.decideAt(key, 0)
			require.Equal(t, tc.late, lifts(d))
			require.Equal(t, tc.steer, d.steer != nil)
			require.Equal(t, tc.a == v1alpha1.PlacementRequired, d.require != "")
		})
	}
}

func TestRequiredDoesNotWaitForOthersForEver(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementRequired, images()))
	pod := object("web", "x", gateA, other)
	w.warmNode("n1", "4", w.read(pod).WarmLabel())
	key := w.put(pod)
	d := w.decideAt(key, 0)
	require.Empty(t, lifts(d))
	require.Equal(t, begin().Add(gates.DefaultDeadline), d.again)
	d = w.decideAt(key, gates.DefaultDeadline)
	require.Equal(t, []string{gateA}, lifts(d), "the other may wait for that")
	require.NotNil(t, d.steer, "while a gate is left")
	require.NotEmpty(t, d.require)
}

func TestGatesThatNoPolicyNamesAreLeftAlone(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementNone, references()))
	key := w.put(object("web", "flags", other, gateA))
	w.there["flags"] = true
	d := w.decideAt(key, time.Hour)
	require.Equal(t, []string{gateA}, lifts(d))
	require.Equal(t, []types.NamespacedName{key}, w.enforce(), "who loses the policy of its gate looks again")
	w.put(object("web", "flags", other, gateA))
	require.Empty(t, lifts(w.decideAt(key, time.Hour)))
}

func TestAGangIsDecidedOnceForAll(t *testing.T) {
	policy := compile(t, gateA, v1alpha1.PlacementNone, references(), v1alpha1.Requirement{Gang: &v1alpha1.GangRequirement{Label: "job", Size: 2}})
	w := newWorld(t, policy)
	w.warmNode("n1", "4")
	member := func(name, configMap string) types.NamespacedName {
		p := object(name, configMap, gateA)
		p.Labels = map[string]string{"job": "train"}
		return w.put(p)
	}
	a, b := member("a", "flags"), member("b", "late")
	d := w.decideAt(a, 0)
	require.Len(t, d.unknown, 1, "whether a member is past the gate is asked once")
	w.gangPast(d.unknown[0].gang, false)
	w.there["flags"] = true
	require.Empty(t, lifts(w.decideAt(a, 0)), "the other lacks something")
	w.there["late"] = true
	d = w.decideAt(a, 0)
	require.Equal(t, []string{gateA}, lifts(d))
	require.Equal(t, []types.NamespacedName{b}, d.wake)
	w.there["late"] = false
	require.Equal(t, []string{gateA}, lifts(w.decideAt(b, 0)), "all or nothing: what was decided for one holds for the other")
}

func TestAMemberPastTheGateTakesTheOthersAlong(t *testing.T) {
	policy := compile(t, gateA, v1alpha1.PlacementNone, references(), v1alpha1.Requirement{Gang: &v1alpha1.GangRequirement{Label: "job", Size: 9}})
	w := newWorld(t, policy)
	member := func(name string, gateNames ...string) *corev1.Pod {
		p := object(name, "never", gateNames...)
		p.Labels = map[string]string{"job": "train"}
		return p
	}
	w.put(member("a", gateA, other))
	b := w.put(member("b", gateA))
	w.gangPast(w.decideAt(b, 0).unknown[0].gang, false)
	require.Empty(t, lifts(w.decideAt(b, 0)))
	require.Contains(t, w.setPod(w.read(member("a", other)), begin()), b, "somebody lifted the gate of a")
	require.Equal(t, []string{gateA}, lifts(w.decideAt(b, 0)))
}

func TestAGangOfTwoGatesLosesEachForItsOwnReasons(t *testing.T) {
	gang := v1alpha1.Requirement{Gang: &v1alpha1.GangRequirement{Label: "job", Size: 2}}
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementNone, gang), compile(t, gateB, v1alpha1.PlacementNone, gang, references()))
	w.warmNode("n1", "4")
	keys := make([]types.NamespacedName, 0, 2)
	for _, name := range []string{"m1", "m2"} {
		p := object(name, "flags", gateA, gateB)
		p.Labels = map[string]string{"job": "j1"}
		keys = append(keys, w.put(p))
	}
	first := w.decideAt(keys[0], 0)
	require.Len(t, first.unknown, 2, "the API server is asked for each gate")
	for _, q := range first.unknown {
		w.gangPast(q.gang, false)
	}
	require.Equal(t, []string{gateA}, lifts(w.decideAt(keys[0], 0)), "flags are missing for the other")
	require.Equal(t, []string{gateA}, lifts(w.decideAt(keys[1], 0)))
	seen := object("m1", "flags", gateB)
	seen.Labels = map[string]string{"job": "j1"}
	w.put(seen)
	require.Empty(t, lifts(w.decideAt(keys[0], 0)), "that a member is past one gate says nothing of the other")
	require.Empty(t, lifts(w.decideAt(keys[1], 0)))
	w.there["flags"] = true
	require.Equal(t, []string{gateB}, lifts(w.decideAt(keys[1], 0)))
}

func TestCountsAreOfThisVeryPod(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementNone, references()))
	older := object("older", "x", gateA)
	older.CreationTimestamp = metav1.NewTime(begin().Add(-time.Minute))
	key := w.put(older)
	w.put(object("web", "x", gateA))
	waiting, oldest := w.count(gateA)
	require.EqualValues(t, 2, waiting)
	require.Equal(t, begin().Add(-time.Minute), oldest.UTC())
	require.True(t, w.stillWaiting(key, older.UID, gateA))
	require.False(t, w.stillWaiting(key, "another", gateA))
}
