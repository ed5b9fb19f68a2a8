package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// heapRoom is how many bytes the heap may grow by before it is collected. What the controller holds is what it knows of
// the nodes; what it makes of garbage comes with their events, some 50 KB each, and does not depend on how many nodes there
// are. So a percentage, as Go has it, is too little in a small cluster, where the collector took a third of the CPU time of
// a wave, and too much in a large one.
const heapRoom = 16 << 20

// The percentages between which heapRoom is kept: of a very large heap the collector would do nothing else.
const (
	leastGCPercent = 25
	mostGCPercent  = 400
)

// paceCollector keeps the room of the heap at heapRoom, unless GOGC says that a user has other plans. GOMEMLIMIT is no other
// plan: near that limit the runtime collects sooner, whatever the percentage, and every pod has such a limit.
func paceCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(mostGCPercent)
	afterCollection(mostGCPercent)
}

// afterCollection sets the percentage anew after each collection: whatever is not reachable is cleaned up by the next one.
func afterCollection(percent int) {
	type sentinel struct{ _ *byte }
	runtime.AddCleanup(&sentinel{}, func(now int) {
		if next := gcPercent(liveHeap()); next != now {
			debug.SetGCPercent(next)
			now = next
		}
		afterCollection(now)
	}, percent)
}

// gcPercent is the percentage by which a heap of live bytes has heapRoom, in steps of five: to set it stops the world for
// some microseconds.
func gcPercent(live uint64) int {
	if live == 0 {
		return mostGCPercent
	}
	percent := min(heapRoom*100/live, mostGCPercent)
	return max(int(percent)/5*5, leastGCPercent)
}

// liveHeap is how many bytes the last collection left.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
