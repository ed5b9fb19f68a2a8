package layer

import (
	"errors"
	"runtime"
)

// What all Unpacks of a process may hold of zstd's windows together. The ranges of package registry are another 128 MiB,
// and the agent is to stay below 250 MB.
const (
	windowsAllowed = 64 << 20
	// usualWindow is what a layer may always ask for: zstd's own levels up to 19, and the default of Go's encoder.
	// Source: facebook/zstd lib/compress/clevels.h@v1.5.7, windowLog at most 23.
	usualWindow = 8 << 20
)

// ErrMemory: the layer cannot be unpacked within the memory that there is for it. It is not the layer's fault: whoever
// unpacks it in another process may have the memory.
var ErrMemory = errors.New("the layer needs more memory than is allowed")

// Slots is how many Unpacks may run at once: as many as there are cores, for each keeps one busy with inflating, and no
// more than the memory for windows allows. Eight inflate more than the network of most nodes brings.
func Slots() int { return min(runtime.NumCPU(), windowsAllowed/usualWindow) }

// windowAllowed is the largest zstd window of one layer, in bytes, with so many Unpacks at once.
func windowAllowed(slots int) uint64 { return uint64(windowsAllowed / max(1, slots)) }
