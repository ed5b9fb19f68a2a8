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
	"headstart.dev/internal/room"
	"headstart.dev/readiness"
)

// bind puts a pod of another workload on a node.
func (w *world) bind(name, node, cpu string, priority int32) []types.NamespacedName {
	p := object(name, "x")
	p.Spec.Priority = &priority
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse(cpu)
	return w.bindPod(&boundPod{uid: p.UID, node: node, takes: room.Takes(p)})
}

func outcomesOf(d decision) []gates.Outcome {
	var out []gates.Outcome
	for _, g := range d.lift {
		out = append(out, g.verdict.Outcome)
	}
	return out
}

func TestWhatThePodWouldPreemptDoesNotCount(t *testing.T) {
	never := corev1.PreemptNever
	cases := map[string]struct {
		pod   func(*corev1.Pod)
		other int32
		want  []gates.Outcome
	}{
		"pause pods of a pool":       {func(*corev1.Pod) {}, -1000, []gates.Outcome{gates.Lift}},
		"pods of the same priority":  {func(*corev1.Pod) {}, 0, []gates.Outcome{gates.Overflow}},
		"a pod that preempts nobody": {func(p *corev1.Pod) { p.Spec.PreemptionPolicy = &never }, -1000, []gates.Outcome{gates.Overflow}},
		"pods of a higher priority":  {func(*corev1.Pod) {}, 1000, []gates.Outcome{gates.Overflow}},
		"a pod of a higher priority": {func(p *corev1.Pod) { p.Spec.Priority = new(int32(2000)) }, 1000, []gates.Outcome{gates.Lift}},
		"a pod of a higher one, Never": {
			func(p *corev1.Pod) { p.Spec.Priority, p.Spec.PreemptionPolicy = new(int32(2000)), &never }, 1000, []gates.Outcome{gates.Overflow},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, images()))
			w.warmNode("n1", "4")
			for _, pod := range []string{"a", "b", "c", "d"} {
				w.bind(pod, "n1", "1", tc.other)
			}
			pod := object("web", "x", gateA)
			tc.pod(pod)
			d := w.decideAt(w.put(pod), 0)
			require.Equal(t, tc.want, outcomesOf(d))
			require.Equal(t, tc.want[0] == gates.Lift, d.steer != nil)
		})
	}
}

func TestANominatedPodHasItsRoom(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, images()))
	w.warmNode("n1", "1")
	nominated := object("first", "x")
	nominated.Status.NominatedNodeName = "n1"
	w.put(nominated)
	key := w.put(object("web", "x", gateA))
	require.Equal(t, []gates.Outcome{gates.Overflow}, outcomesOf(w.decideAt(key, 0)))
}

func TestWaitingInVain(t *testing.T) {
	references := v1alpha1.Requirement{References: &v1alpha1.ReferencesRequirement{}}
	condition := v1alpha1.Requirement{Nodes: &v1alpha1.NodesRequirement{Condition: "example.com/Ready"}}
	startup := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "readiness.k8s.io/boot", Effect: corev1.TaintEffectNoSchedule}}
	}
	cordoned := func(n *corev1.Node) { n.Spec.Unschedulable = true }
	cases := map[string]struct {
		nodes    map[string]func(*corev1.Node)
		requires []v1alpha1.Requirement
		overflow v1alpha1.Overflow
		pool     bool
		pods     int
		gates    []string
		after    time.Duration
		want     int // pods that are let go
	}{
		"no node at all":                     {requires: []v1alpha1.Requirement{images()}, pods: 1, want: 1},
		"no node for a condition":            {requires: []v1alpha1.Requirement{condition}, pods: 1, want: 1},
		"a node that will not take the pod":  {nodes: map[string]func(*corev1.Node){"n1": cordoned}, requires: []v1alpha1.Requirement{images()}, pods: 1, want: 1},
		"a node that starts":                 {nodes: map[string]func(*corev1.Node){"n1": startup}, requires: []v1alpha1.Requirement{images()}, pods: 1},
		"a node that may become warm":        {nodes: map[string]func(*corev1.Node){"n1": nil}, requires: []v1alpha1.Requirement{images()}, pods: 1},
		"room is promised once":              {nodes: map[string]func(*corev1.Node){"n1": nil}, requires: []v1alpha1.Requirement{images()}, pods: 5, want: 3},
		"what is missing is no node":         {requires: []v1alpha1.Requirement{references}, pods: 1},
		"nodes and something else":           {requires: []v1alpha1.Requirement{images(), references}, pods: 1},
		"the policy says Hold":               {requires: []v1alpha1.Requirement{images()}, overflow: v1alpha1.OverflowHold, pods: 1},
		"others hold the pod":                {requires: []v1alpha1.Requirement{images()}, pods: 1, gates: []string{gateA, other}},
		"a pool brings nodes":                {requires: []v1alpha1.Requirement{images()}, pool: true, pods: 1},
		"a pool that brought none":           {requires: []v1alpha1.Requirement{images()}, pool: true, pods: 1, after: 2 * time.Minute, want: 1},
		"nobody there makes an image warm":   {nodes: map[string]func(*corev1.Node){"n1": agentless}, requires: []v1alpha1.Requirement{images()}, pods: 1, after: time.Minute, want: 1},
		"its agent may not have come up yet": {nodes: map[string]func(*corev1.Node){"n1": agentless}, requires: []v1alpha1.Requirement{images()}, pods: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			spec := v1alpha1.GatePolicySpec{GateName: gateA, Requires: tc.requires, Overflow: tc.overflow}
			if tc.pool {
				spec.WarmPool = &v1alpha1.WarmPoolReference{Namespace: "shop", Name: "web"}
			}
			policy, err := gates.Compile(&v1alpha1.GatePolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: spec})
			require.NoError(t, err)
			w := newWorld(t, policy)
			for name, change := range tc.nodes {
				n := coldNode(name, "2")
				if change != nil {
					change(n)
				}
				w.setNode(gates.ReadNode(n))
			}
			if tc.gates == nil {
				tc.gates = []string{gateA}
			}
			gone := 0
			for i := range tc.pods {
				gone += len(lifts(w.decideAt(w.put(object(string(rune('a'+i)), "x", tc.gates...)), tc.after)))
			}
			require.Equal(t, tc.want, gone)
		})
	}
}

// coldNode is one whose agent publishes that nothing is warm.
func coldNode(name, cpu string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{corev1.LabelHostname: name}, Annotations: map[string]string{readiness.AnnotationImages: "{}"},
		},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
}

func agentless(n *corev1.Node) { n.Annotations = nil }

func TestAPodWhoseNodeGoesLooksAgain(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, images()))
	w.setNode(gates.ReadNode(coldNode("n1", "1")))
	key := w.put(object("web", "x", gateA))
	require.Empty(t, lifts(w.decideAt(key, 0)))
	require.Equal(t, []types.NamespacedName{key}, w.bind("other", "n1", "1", 0), "its place is taken")
	require.Equal(t, []gates.Outcome{gates.Overflow}, outcomesOf(w.decideAt(key, 0)))

	w.setNode(gates.ReadNode(coldNode("n2", "1")))
	second := w.put(object("second", "x", gateA))
	require.Empty(t, lifts(w.decideAt(second, 0)))
	require.Equal(t, []types.NamespacedName{second}, w.deleteNode("n2"))
	require.Equal(t, []gates.Outcome{gates.Overflow}, outcomesOf(w.decideAt(second, 0)))
}

func TestOurClockRunsWhileOnlyWeHold(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, references()))
	key := w.put(object("web", "x", gateA, other))
	require.Zero(t, w.decideAt(key, 0).again)
	require.Empty(t, lifts(w.decideAt(key, time.Hour)), "the time is the queue's")
	w.put(object("web", "x", gateA))
	require.Equal(t, begin().Add(time.Hour+gates.DefaultDeadline), w.decideAt(key, time.Hour).again)
	require.Equal(t, []gates.Outcome{gates.Release}, outcomesOf(w.decideAt(key, time.Hour+gates.DefaultDeadline)))

	later := object("later", "x", gateA) // what a controller sees that was away while the queue let the pod go
	later.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "queue", Time: &metav1.Time{Time: begin().Add(time.Hour)}}}
	require.Equal(t, begin().Add(time.Hour+gates.DefaultDeadline), w.decideAt(w.put(later), time.Hour).again.UTC())
}

func TestAPodThatOthersHoldIsLedToWhatIsWarm(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, images()))
	w.warmNode("n1", "1")
	w.warmNode("n2", "1")
	for _, name := range []string{"a", "b", "c"} {
		d := w.decideAt(w.put(object(name, "x", gateA, other)), 0)
		require.Equal(t, []string{gateA}, lifts(d))
		require.Equal(t, []string{"n1", "n2"}, d.steer.Preference.MatchExpressions[0].Values, "no room is held for who may be gated for hours")
	}
}

func TestDeadlinesComeBeforeInputs(t *testing.T) {
	gang := v1alpha1.Requirement{Gang: &v1alpha1.GangRequirement{Label: "job", Size: 2}}
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, images()), compile(t, gateB, v1alpha1.PlacementNone, gang))
	key, member := w.put(object("web", "x", gateA)), w.put(object("member", "x", gateB))
	require.Equal(t, []gates.Outcome{gates.Release}, outcomesOf(w.decideAt(member, gates.DefaultDeadline)), "nobody knows of its gang")
	w.problem = "bound pods cannot be listed: too many requests"
	d := w.decideAt(key, 0)
	require.Equal(t, begin().Add(gates.DefaultDeadline), d.again)
	require.Contains(t, gates.Describe(d.wait[0].verdict.Unmet), "too many requests")
	require.Equal(t, []gates.Outcome{gates.Release}, outcomesOf(w.decideAt(key, gates.DefaultDeadline)))
}

func TestAGangWantsRoomForItsSize(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementNone, v1alpha1.Requirement{Gang: &v1alpha1.GangRequirement{Label: "job", Size: 2}}))
	w.warmNode("n1", "2")
	var keys []types.NamespacedName
	member := func(name string) *corev1.Pod {
		p := object(name, "x", gateA)
		p.Labels = map[string]string{"job": "train"}
		return p
	}
	for _, name := range []string{"a", "b", "c"} {
		keys = append(keys, w.put(member(name)))
	}
	w.gangPast(w.decideAt(keys[0], 0).unknown[0].gang, false)
	require.Equal(t, []string{gateA}, lifts(w.decideAt(keys[0], 0)))

	going := member("b")
	going.DeletionTimestamp = &metav1.Time{Time: begin()}
	require.Contains(t, w.setPod(w.read(going), begin()), keys[2], "that a member goes is an event")
}

func TestAGangOfWhichSomeCouldRunWaitsForTheRest(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementNone, v1alpha1.Requirement{Gang: &v1alpha1.GangRequirement{Label: "job", Size: 2}}))
	var keys []types.NamespacedName
	for _, name := range []string{"a", "b"} {
		p := object(name, "x", gateA)
		p.Labels = map[string]string{"job": "train"}
		keys = append(keys, w.put(p))
	}
	w.warmNode("n1", "1")
	w.gangPast(w.decideAt(keys[0], 0).unknown[0].gang, false)
	require.Empty(t, lifts(w.decideAt(keys[0], 0)))
	w.bind("other", "n1", "1", 0)
	require.Equal(t, []gates.Outcome{gates.Overflow}, outcomesOf(w.decideAt(keys[0], 0)), "none can: whoever brings nodes must see it")
	require.Equal(t, []string{gateA}, lifts(w.decideAt(keys[1], 0)), "all or nothing")
}
