package containerd

import (
	"context"
	"sync/atomic"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd/internal/registry"
)

// Names of engines, as they appear in prepull.ImageStatus.
const (
	EngineLazy   = "lazy"
	EngineDirect = "direct"
	EngineClient = "client"
	EngineCRI    = "cri"
)

// engine is one way to bring an image's content and snapshots to the node. When pull returns nil, these hold, whichever
// engine it was:
//
//   - the content store has the index (if any), the manifest and the config, with their GC labels; the layers' blobs
//     are there unless the node discards them;
//   - the snapshotter has a committed snapshot for every layer's chain ID, with the tree that containerd would make;
//   - the config's blob refers to the top snapshot, so that it outlives the lease.
//
// Image records are not an engine's business: they come last, for all alike. pull may be called again after an error
// and uses what is there. The context carries namespace and lease.
type engine interface {
	name() string
	// unfit says why the engine cannot do this pull, "" when it can.
	unfit(p *pull) string
	pull(ctx context.Context, p *pull) error
}

// pull is one image on its way.
type pull struct {
	node     *node
	image    prepull.Image
	name     string // normalised, as pods and the CRI know it
	source   string // normalised, as it is fetched
	resolved *registry.Image
	progress *progress
	named    []string     // records that containerd's own pull may have made for this one
	written  atomic.Int64 // bytes that this attempt has unpacked, and of blobs
	lazy     []lazyLayer  // known at the end
	doubt    func()       // counts against the engine that failed its check, should another bring the image
}
