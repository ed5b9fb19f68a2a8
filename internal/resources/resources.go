// Package resources is the one arithmetic of resources: what pods request and nodes have, as whole numbers that always
// add up. Gates, warm pools and reports all count with it.
//
// It is pure. Start from List.
package resources

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// List counts resources: CPU in thousandths, everything else in whole units (bytes, devices, pods).
type List map[corev1.ResourceName]int64

// mostAmount is what any more counts as: a PiB, more than any node has. A pod may ask for as much as a number holds, and be
// put on a node by name; thousands of such must still add up.
const mostAmount = 1 << 50

// New reads a list as the API has it.
func New(list corev1.ResourceList) List {
	out := make(List, len(list)+1)
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

// OfPod is what the scheduler asks of a node for the pod, without its slot among the node's pods.
func OfPod(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

// Requests is what the scheduler asks of a node for the pod, its slot among the node's pods included.
func Requests(pod *corev1.Pod) List {
	out := New(OfPod(pod))
	out[corev1.ResourcePods] = 1
	return out
}

// Add puts more on top, times times (-1 takes it away).
func (l List) Add(more List, times int64) {
	for name, amount := range more {
		l[name] += times * amount
	}
}

// Fit says whether the request fits in what allocatable has beyond used.
func Fit(request, allocatable, used List) bool {
	for name, amount := range request {
		if amount > 0 && allocatable[name]-used[name] < amount {
			return false
		}
	}
	return true
}

// Format writes an amount for a person.
func Format(name corev1.ResourceName, amount int64) string {
	if name == corev1.ResourceCPU {
		return resource.NewMilliQuantity(amount, resource.DecimalSI).String()
	}
	if name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage {
		return resource.NewQuantity(amount, resource.BinarySI).String()
	}
	return resource.NewQuantity(amount, resource.DecimalSI).String()
}

// Count is how many requests fit in what allocatable has beyond used; 0 for a request of nothing.
func Count(request, allocatable, used List) int32 {
	count := int64(math.MaxInt32)
	for name, amount := range request {
		if amount > 0 {
			count = min(count, max(0, allocatable[name]-used[name])/amount)
		}
	}
	if count == math.MaxInt32 {
		return 0
	}
	return int32(count)
}
