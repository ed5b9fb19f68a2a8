package gates

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/resources"
	"headstart.dev/internal/room"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

const app = "registry.example/app:v1"

// start is the moment at which all pods of these tests were created.
func start() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

func makeNode(t *testing.T, name, cpu string, warm ...string) *corev1.Node {
	t.Helper()
	inv := prepull.Inventory{}
	for _, image := range warm {
		inv.Warm = append(inv.Warm, prepull.InventoryImage{Digest: "0123456789abcdef", Name: image})
	}
	text, err := inv.Encode()
	require.NoError(t, err)
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{corev1.LabelHostname: name}, Annotations: map[string]string{readiness.AnnotationImages: text},
		},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
}

func makePod(t *testing.T, shapes *Shapes, name, cpu string, change ...func(*corev1.Pod)) *Pod {
	t.Helper()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(start()),
		},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/gate"}},
			Containers: []corev1.Container{{Image: app, Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)},
			}}},
		},
	}
	for _, f := range change {
		f(object)
	}
	pod, err := shapes.Pod(object)
	require.NoError(t, err)
	return pod
}

func TestPodsOfOneTemplateShareAShape(t *testing.T) {
	shapes := NewShapes()
	a, b := makePod(t, shapes, "a", "1"), makePod(t, shapes, "b", "1")
	require.Same(t, a.Shape, b.Shape)
	require.NotSame(t, a.Shape, makePod(t, shapes, "c", "2").Shape)
}

func TestNodesThatCount(t *testing.T) {
	taint := func(effect corev1.TaintEffect) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "readiness.k8s.io/boot", Value: "pending", Effect: effect}}
		}
	}
	cases := map[string]struct {
		node func(*corev1.Node)
		pod  func(*corev1.Pod)
		want bool
	}{
		"a warm node with room":             {want: true},
		"a node without the image":          {node: func(n *corev1.Node) { n.Annotations = nil }},
		"an inventory that is nonsense":     {node: func(n *corev1.Node) { n.Annotations[readiness.AnnotationImages] = "]" }},
		"a startup taint":                   {node: taint(corev1.TaintEffectNoSchedule)},
		"a taint that is only a preference": {node: taint(corev1.TaintEffectPreferNoSchedule), want: true},
		"a cordoned node":                   {node: func(n *corev1.Node) { n.Spec.Unschedulable = true }},
		"a node that is too small": {pod: func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("5")
		}},
		"a resource that the node does not have": {pod: func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["nvidia.com/gpu"] = resource.MustParse("1")
		}},
		"a selector that does not match": {pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "b"} }},
		"a taint that the pod tolerates": {
			node: taint(corev1.TaintEffectNoSchedule),
			pod:  func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} },
			want: true,
		},
		"a second image that is cold": {pod: func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Image: "registry.example/init:v1"}}
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			fleet, object := NewFleet(), makeNode(t, "n1", "4", app)
			if tc.node != nil {
				tc.node(object)
			}
			fleet.SetNode(ReadNode(object))
			change := tc.pod
			if change == nil {
				change = func(*corev1.Pod) {}
			}
			require.Equal(t, tc.want, fleet.HasRoom(makePod(t, NewShapes(), "p", "1", change).Shape))
		})
	}
}

func TestABurstIsSpreadAndStopsWhereTheRoomEnds(t *testing.T) {
	fleet, shapes := NewFleet(), NewShapes()
	for i := range 5 {
		fleet.SetNode(ReadNode(makeNode(t, fmt.Sprintf("n%d", i), "4", app)))
	}
	steered := map[string]int{}
	for i := range 500 {
		if term, ok := fleet.Reserve(makePod(t, shapes, fmt.Sprintf("p%d", i), "1"), start()); ok {
			steered[term.Preference.MatchExpressions[0].Values[0]]++
		}
	}
	require.Equal(t, map[string]int{"n0": 4, "n1": 4, "n2": 4, "n3": 4, "n4": 4}, steered)
}

func TestReservationsEnd(t *testing.T) {
	fleet, shapes := NewFleet(), NewShapes()
	fleet.SetNode(ReadNode(makeNode(t, "n1", "1", app)))
	first, second := makePod(t, shapes, "first", "1"), makePod(t, shapes, "second", "1")
	reserve := func(pod *Pod, at time.Time) bool {
		_, ok := fleet.Reserve(pod, at)
		return ok
	}
	require.True(t, reserve(first, start()))
	require.True(t, reserve(first, start()), "who asks again gets the same place")
	require.False(t, reserve(second, start()))

	freed, next := fleet.Expire(start().Add(ReservationTTL - time.Second))
	require.Empty(t, freed)
	require.Equal(t, start().Add(ReservationTTL), next)
	freed, next = fleet.Expire(start().Add(ReservationTTL))
	require.Contains(t, freed, Dependency{Kind: KindImage, Name: app}, "who waits for the image wants another look")
	require.Zero(t, next)
	require.True(t, reserve(second, start()))

	require.Empty(t, fleet.Bind(second.UID, "n1", second.Takes()), "a reservation that is used frees nothing")
	fleet.Expire(start().Add(time.Hour))
	require.False(t, reserve(first, start()), "a bound pod stays")
	require.NotEmpty(t, fleet.Forget(second.UID))
	require.True(t, reserve(first, start()))
	require.NotEmpty(t, fleet.Bind(first.UID, "elsewhere", first.Takes()), "a pod that went elsewhere frees its place")
	require.True(t, reserve(second, start()))
}

func TestSteeredPodsAreAdoptedAfterARestart(t *testing.T) {
	shapes := NewShapes()
	before := NewFleet()
	before.SetNode(ReadNode(makeNode(t, "n1", "1", app)))
	term, ok := before.Reserve(makePod(t, shapes, "first", "1"), start())
	require.True(t, ok)

	after := NewFleet()
	after.SetNode(ReadNode(makeNode(t, "n1", "1", app)))
	after.Adopt(makePod(t, shapes, "first", "1", func(p *corev1.Pod) {
		p.Spec.SchedulingGates = nil
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{term},
		}}
	}), start())
	require.False(t, after.HasRoom(makePod(t, shapes, "second", "1").Shape))
}

func TestNoPodIsLedToANodeThatClaimsAnothersHostname(t *testing.T) {
	fleet := NewFleet()
	fleet.SetNode(ReadNode(makeNode(t, "honest", "4", app)))
	liar := makeNode(t, "liar", "4", app)
	liar.Labels[corev1.LabelHostname] = "honest"
	fleet.SetNode(ReadNode(liar))
	_, ok := fleet.Reserve(makePod(t, NewShapes(), "p", "1"), start())
	require.False(t, ok)
	fleet.DeleteNode("liar")
	_, ok = fleet.Reserve(makePod(t, NewShapes(), "p", "1"), start())
	require.True(t, ok)
}

func TestNodesThatAreGoneAreForgotten(t *testing.T) {
	f := NewFleet()
	requests := room.Pod{Requests: resources.List{corev1.ResourceCPU: 1000}}
	for i := range 100 {
		name := fmt.Sprintf("n%d", i)
		f.SetNode(ReadNode(makeNode(t, name, "4", app)))
		f.Bind(types.UID(name), name, requests)
		f.DeleteNode(name)
		f.Forget(types.UID(name))
		f.Bind("stray", "never-was-"+name, requests) // anybody may name any node
	}
	f.Forget("stray")
	require.Empty(t, f.nodes)
	f.Bind("early", "n1", requests)
	f.SetNode(ReadNode(makeNode(t, "n1", "4", app)))
	shapes := NewShapes()
	require.True(t, f.HasRoom(makePod(t, shapes, "three", "3").Shape))
	require.False(t, f.HasRoom(makePod(t, shapes, "four", "4").Shape), "the pod may be seen before its node")
}

func TestRequestsOfAnySizeAddUp(t *testing.T) {
	f, shapes := NewFleet(), NewShapes()
	f.SetNode(ReadNode(makeNode(t, "n1", "4", app)))
	for i := range 100 {
		huge := makePod(t, shapes, fmt.Sprintf("huge%d", i), "9000000000000000000")
		require.Positive(t, huge.Requests[corev1.ResourceCPU])
		f.Bind(huge.UID, "n1", huge.Takes()) // the kubelet refuses it, the API server does not
	}
	require.False(t, f.HasRoom(makePod(t, shapes, "p", "1").Shape))
}

func TestAHeartbeatWakesNobody(t *testing.T) {
	fleet, object := NewFleet(), makeNode(t, "n1", "4", app)
	require.NotEmpty(t, fleet.SetNode(ReadNode(object)))
	object.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.Now()}}
	object.ResourceVersion = "2"
	require.Empty(t, fleet.SetNode(ReadNode(object)))
}

func TestEvaluate(t *testing.T) {
	policy := func(change ...func(*v1alpha1.GatePolicySpec)) *Policy {
		spec := v1alpha1.GatePolicySpec{
			GateName: "example.com/gate", Requires: []v1alpha1.Requirement{{Images: &v1alpha1.ImagesRequirement{MinNodes: 2}}},
			Deadline: &metav1.Duration{Duration: time.Minute},
		}
		for _, f := range change {
			f(&spec)
		}
		compiled, err := Compile(&v1alpha1.GatePolicy{Spec: spec})
		require.NoError(t, err)
		return compiled
	}
	hold := func(s *v1alpha1.GatePolicySpec) { s.OnDeadline = v1alpha1.OnDeadlineHold }
	cases := map[string]struct {
		policy *Policy
		nodes  int
		after  time.Duration
		want   Outcome
		why    string
	}{
		"enough warm nodes":             {policy(), 2, 0, Lift, ""},
		"no warm node":                  {policy(), 0, 0, Wait, "image registry.example/app:v1 is warm on no node"},
		"too few":                       {policy(), 1, 0, Wait, "image registry.example/app:v1 is warm on 1 nodes, the pod could run now with all of its images warm on 1, want 2"},
		"too few and the deadline came": {policy(), 1, time.Minute, Release, "image registry.example/app:v1 is warm on 1 nodes, the pod could run now with all of its images warm on 1, want 2"},
		"enough after the deadline":     {policy(), 2, time.Hour, Lift, ""},
		"held for ever":                 {policy(hold), 0, time.Hour, Wait, "image registry.example/app:v1 is warm on no node"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			fleet := NewFleet()
			for i := range tc.nodes {
				fleet.SetNode(ReadNode(makeNode(t, fmt.Sprintf("n%d", i), "4", app)))
			}
			verdict := tc.policy.Evaluate(makePod(t, NewShapes(), "p", "1"), Facts{Fleet: fleet}, Clock{Now: start().Add(tc.after), Since: start()})
			require.Equal(t, tc.want, verdict.Outcome)
			require.Equal(t, tc.why, Describe(verdict.Unmet))
			require.Equal(t, start().Add(time.Minute), verdict.Deadline)
		})
	}
}
