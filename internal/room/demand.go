package room

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"headstart.dev/internal/resources"
)

// Demand is what a pod wants of a node.
type Demand struct {
	// Requests is what the pod asks of a node.
	Requests resources.List
	// Priority is the pod's; pods of lower priority make room for it where it Preempts.
	Priority int32
	Preempts bool
	// Ports are the ports of the node that the pod takes.
	Ports []Port

	tolerations []corev1.Toleration
	required    nodeaffinity.RequiredNodeAffinity
	// candidate has the name and the labels of the node that is looked at, as the affinity helpers want them.
	candidate corev1.Node
}

// Source is all of a pod that makes its Demand, in a form that can be hashed.
type Source struct {
	Requests     resources.List
	Priority     int32
	Preempts     bool
	Ports        []Port
	NodeSelector map[string]string
	NodeAffinity *corev1.NodeAffinity
	Tolerations  []corev1.Toleration
}

// Read takes of a pod what makes its Demand. affinity is the pod's node affinity, given apart because callers take out what
// they added to it.
func Read(pod *corev1.Pod, affinity *corev1.NodeAffinity) Source {
	return Source{
		Requests: resources.Requests(pod), Priority: schedulinghelper.PodPriority(pod), Preempts: preempts(pod), Ports: portsOf(&pod.Spec),
		NodeSelector: pod.Spec.NodeSelector, NodeAffinity: affinity, Tolerations: pod.Spec.Tolerations,
	}
}

// Demand makes it.
func (s *Source) Demand() Demand {
	return Demand{
		Requests: s.Requests, Priority: s.Priority, Preempts: s.Preempts, Ports: s.Ports, tolerations: s.Tolerations,
		required: nodeaffinity.NewRequiredNodeAffinity(s.NodeSelector, &corev1.Affinity{NodeAffinity: s.NodeAffinity}),
	}
}

func preempts(pod *corev1.Pod) bool {
	return pod.Spec.PreemptionPolicy == nil || *pod.Spec.PreemptionPolicy != corev1.PreemptNever
}

// inTheWay says whether what a pod of the other priority takes counts against the demand. The scheduler evicts pods of
// lower priority for one that finds no room, whatever their PodDisruptionBudgets say if there is no other way.
// Source: kubernetes pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go@v1.37.2.
func (d *Demand) inTheWay(priority int32) bool { return !d.Preempts || priority >= d.Priority }

// Port is a port of a node.
type Port struct {
	Protocol corev1.Protocol
	IP       string
	Number   int32
}

// portsOf lists the host ports that a pod takes, sorted. Only init containers that go on running take any.
func portsOf(spec *corev1.PodSpec) []Port {
	var out []Port
	take := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				out = append(out, Port{Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), IP: p.HostIP, Number: p.HostPort})
			}
		}
	}
	for i := range spec.InitContainers {
		if always := spec.InitContainers[i].RestartPolicy; always != nil && *always == corev1.ContainerRestartPolicyAlways {
			take(&spec.InitContainers[i])
		}
	}
	for i := range spec.Containers {
		take(&spec.Containers[i])
	}
	slices.SortFunc(out, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.IP, b.IP))
	})
	return slices.Compact(out)
}

// everyAddress are the ways to write that a port is taken on all addresses of a node.
func everyAddress(ip string) bool { return ip == "" || ip == "0.0.0.0" }

func (p Port) clashes(other Port) bool {
	return p.Number == other.Number && p.Protocol == other.Protocol && (p.IP == other.IP || everyAddress(p.IP) || everyAddress(other.IP))
}

// Takes is what a pod takes of the node that it is on.
func Takes(pod *corev1.Pod) Pod {
	return Pod{Requests: resources.Requests(pod), Priority: schedulinghelper.PodPriority(pod), Ports: portsOf(&pod.Spec)}
}
