package controller

import (
	"math"

	"headstart.dev/internal/resources"
)

// micro is the unit of demand: a millionth of a replica. Integers, so that a sum over pods that come and go stays exact.
const micro = 1_000_000

// replicas is how many shapes a request fills, in millionths: by the resource that fills the most of one.
func replicas(request, shape resources.List) int64 {
	most := 0.0
	for name, size := range shape {
		if size > 0 {
			most = max(most, float64(request[name])/float64(size))
		}
	}
	return int64(math.Ceil(min(most, 1e6) * micro))
}
