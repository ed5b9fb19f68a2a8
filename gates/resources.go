package gates

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// Resources counts resources: CPU in thousandths, everything else in whole units (bytes, devices, pods).
type Resources map[corev1.ResourceName]int64

func newResources(list corev1.ResourceList) Resources {
	out := make(Resources, len(list)+1)
	for name, quantity := range list {
		if name == corev1.ResourceCPU {
			out[name] = quantity.MilliValue()
			continue
		}
		out[name] = quantity.Value()
	}
	return out
}

// RequestsOf is what the scheduler will ask of a node for the pod, its slot among the node's pods included.
func RequestsOf(pod *corev1.Pod) Resources {
	out := newResources(resource.PodRequests(pod, resource.PodResourcesOptions{}))
	out[corev1.ResourcePods] = 1
	return out
}

// add puts more on top, times times (-1 takes it away).
func (r Resources) add(more Resources, times int64) {
	for name, amount := range more {
		r[name] += times * amount
	}
}

// fits says whether the request fits in what allocatable has beyond used.
func fits(request, allocatable, used Resources) bool {
	for name, amount := range request {
		if amount > 0 && allocatable[name]-used[name] < amount {
			return false
		}
	}
	return true
}
