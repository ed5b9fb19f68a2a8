package controller

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// amounts counts resources: CPU in thousandths, everything else in whole units.
type amounts map[corev1.ResourceName]int64

func newAmounts(list corev1.ResourceList) amounts {
	out := make(amounts, len(list))
	for name, quantity := range list {
		if name == corev1.ResourceCPU {
			out[name] = quantity.MilliValue()
			continue
		}
		out[name] = quantity.Value()
	}
	return out
}

func requestsOf(pod *corev1.Pod) corev1.ResourceList {
	return resource.PodRequests(pod, resource.PodResourcesOptions{})
}

func (a amounts) add(more amounts, times int64) {
	for name, amount := range more {
		a[name] += times * amount
	}
}

// micro is the unit of demand: a millionth of a replica. Integers, so that a sum over pods that come and go stays exact.
const micro = 1_000_000

// replicas is how many shapes a request fills, in millionths: by the resource that fills the most of one.
func (a amounts) replicas(shape amounts) int64 {
	most := 0.0
	for name, size := range shape {
		if size > 0 {
			most = max(most, float64(a[name])/float64(size))
		}
	}
	return int64(math.Ceil(min(most, 1e6) * micro))
}

// fits is how many shapes are free.
func (a amounts) fits(used, shape amounts) int32 {
	count := int64(math.MaxInt32)
	for name, size := range shape {
		if size > 0 {
			count = min(count, max(0, a[name]-used[name])/size)
		}
	}
	if count == math.MaxInt32 {
		return 0
	}
	return int32(count)
}
