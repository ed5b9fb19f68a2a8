package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheHeapHasTheSameRoomInClustersOfAllSizes(t *testing.T) {
	for name, c := range map[string]struct {
		live uint64
		want int
	}{
		"at the start":  {0, mostGCPercent},
		"no nodes":      {4 << 20, mostGCPercent},
		"1,000 nodes":   {20 << 20, 80},
		"5,000 nodes":   {40 << 20, 40},
		"100,000 nodes": {1 << 30, leastGCPercent},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, gcPercent(c.live)) })
	}
}

func TestTheCollectorIsPacedAfterEachCollection(t *testing.T) {
	was := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(was) })
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "900MiB") // as the chart sets it
	held := make([]byte, 2*heapRoom)
	paceCollector()
	require.Eventually(t, func() bool {
		runtime.GC()
		now := debug.SetGCPercent(-1)
		debug.SetGCPercent(now)
		return now <= 50
	}, 10*time.Second, 10*time.Millisecond, "half as much again")
	runtime.KeepAlive(held)
}

func TestAUsersOwnPaceIsKept(t *testing.T) {
	was := debug.SetGCPercent(77)
	t.Cleanup(func() { debug.SetGCPercent(was) })
	t.Setenv("GOGC", "77")
	paceCollector()
	require.Equal(t, 77, debug.SetGCPercent(77))
}
