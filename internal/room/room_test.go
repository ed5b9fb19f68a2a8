package room_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/internal/room"
)

func pod(cpu string, priority int32, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
	}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func node(cpu string, change ...func(*corev1.Node)) room.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
	for _, f := range change {
		f(n)
	}
	return room.ReadNode(n)
}

func demand(p *corev1.Pod) room.Demand {
	source := room.Read(p, nil)
	return source.Demand()
}

func never(p *corev1.Pod) {
	policy := corev1.PreemptNever
	p.Spec.PreemptionPolicy = &policy
}

func hostPort(ip string, port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: port, HostIP: ip}} }
}

func TestSlots(t *testing.T) {
	cases := map[string]struct {
		there       []*corev1.Pod
		want        *corev1.Pod
		slots, free int
	}{
		"an empty node":                        {nil, pod("1", 0), 4, 4},
		"equals stay":                          {[]*corev1.Pod{pod("1", 0), pod("2", 0)}, pod("1", 0), 1, 1},
		"lower ones go":                        {[]*corev1.Pod{pod("1", -5), pod("3", -1000)}, pod("1", 0), 4, 0},
		"higher ones stay":                     {[]*corev1.Pod{pod("3", 10), pod("1", -5)}, pod("1", 0), 1, 0},
		"a pod that preempts nobody":           {[]*corev1.Pod{pod("3", -5)}, pod("1", 0, never), 1, 1},
		"a port that is taken":                 {[]*corev1.Pod{pod("0", 0, hostPort("", 80))}, pod("1", 0, hostPort("10.0.0.1", 80)), 0, 0},
		"a port whose holder goes":             {[]*corev1.Pod{pod("0", -5, hostPort("", 80))}, pod("1", 0, hostPort("", 80)), 1, 0},
		"a port of another address":            {[]*corev1.Pod{pod("0", 0, hostPort("10.0.0.2", 80))}, pod("1", 0, hostPort("10.0.0.1", 80)), 1, 1},
		"a port is taken once by one workload": {nil, pod("1", 0, hostPort("", 80)), 1, 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			n, used, d := node("4"), room.Usage{}, demand(tc.want)
			for _, p := range tc.there {
				used.Add(room.Takes(p))
			}
			require.Equal(t, tc.slots, used.Slots(&n, &d, 100))
			require.Equal(t, tc.free, used.Free(&n, &d, 100))
			for _, p := range tc.there {
				used.Remove(room.Takes(p))
			}
			require.True(t, used.Empty())
		})
	}
}

func TestNodesThatStart(t *testing.T) {
	gpu := func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests["nvidia.com/gpu"] = resource.MustParse("1")
	}
	taint := func(key string) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	bought := func(n *corev1.Node) { n.Labels = map[string]string{"karpenter.sh/nodepool": "x"} }
	cases := map[string]struct {
		node      room.Node
		pod       *corev1.Pod
		now, soon bool
	}{
		"a node that is there":             {node("4"), pod("1", 0), true, true},
		"a startup taint":                  {node("4", taint("readiness.k8s.io/boot")), pod("1", 0), false, true},
		"a kubelet that starts":            {node("4", taint("node.kubernetes.io/not-ready")), pod("1", 0), false, true},
		"a driver that starts":             {node("4", taint("ebs.csi.aws.com/agent-not-ready")), pod("1", 0), false, true},
		"a taint that stays":               {node("4", taint("example.com/dedicated")), pod("1", 0), false, false},
		"one of both kinds":                {node("4", taint("example.com/dedicated"), taint("readiness.k8s.io/boot")), pod("1", 0), false, false},
		"a node that is too small":         {node("4", taint("readiness.k8s.io/boot")), pod("5", 0), false, false},
		"devices that come":                {node("4", bought), pod("1", 0, gpu), false, true},
		"devices that do not":              {node("4"), pod("1", 0, gpu), false, false},
		"a device of a node that is ready": {node("4", bought, func(n *corev1.Node) { n.Labels["karpenter.sh/initialized"] = "true" }), pod("1", 0, gpu), false, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			d := demand(tc.pod)
			require.Equal(t, tc.now, tc.node.Admits(&d))
			require.Equal(t, tc.soon, tc.node.WillAdmit(&d))
		})
	}
}
