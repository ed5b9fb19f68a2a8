package gates

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Resources counts resources: CPU in thousandths, everything else in whole units (bytes, devices, pods).
type Resources map[corev1.ResourceName]int64

// mostAmount is what any more counts as: a PiB, more than any node has. A pod may ask for as much as a number holds, and be
// put on a node by name; thousands of such must still add up.
const mostAmount = 1 << 50

func newResources(list corev1.ResourceList) Resources {
	out := make(Resources, len(list)+1)
	for name, quantity := range list {
		out[name] = amount(name, &quantity)
	}
	return out
}

func amount(name corev1.ResourceName, quantity *resource.Quantity) int64 {
	if quantity.CmpInt64(mostAmount/1000) < 0 && name == corev1.ResourceCPU {
		return quantity.MilliValue()
	}
	if name == corev1.ResourceCPU || quantity.CmpInt64(mostAmount) > 0 {
		return mostAmount
	}
	return quantity.Value()
}

// RequestsOf is what the scheduler will ask of a node for the pod, its slot among the node's pods included.
func RequestsOf(pod *corev1.Pod) Resources {
	out := newResources(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}))
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
