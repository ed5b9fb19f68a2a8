// Package prepull decides what to pull in which order and drives it: plan (pure) and puller (workers, retry,
// progress). It knows no container runtime: prepull/containerd does. Start from Puller.
package prepull

import "time"

// Image is one image that a node should have, from the agent's config file, a PrepullPolicy or a command line.
type Image struct {
	// Ref is the image as a pod would name it; it is normalised as the CRI does (nginx -> docker.io/library/nginx:latest).
	Ref string `json:"image"`
	// AtDigest is what Ref stands for ("sha256:..."), where somebody has looked that up for all nodes: exactly this is
	// pulled, under the name of Ref. Empty: the registry is asked.
	AtDigest string `json:"-"`
	// Priority orders images: higher first.
	Priority int32 `json:"priority,omitempty"`
	// Required images are those that headstart.dev/ImagesReady waits for.
	Required bool `json:"required,omitempty"`
	// Pin keeps the kubelet's image garbage collection away from it for as long as somebody wants it.
	Pin bool `json:"pin,omitempty"`
	// Mode says whether a lazy mount will do; "" brings the whole image.
	Mode Mode `json:"mode,omitempty"`
}

// State is how far an image has come.
type State string

// The states of an image on a node.
const (
	StatePending State = "Pending" // known, not started
	StatePulling State = "Pulling" // bytes are moving, or a retry is due
	StateWarm    State = "Warm"    // present, unpacked, complete, and visible to the CRI
	StateLazy    State = "Lazy"    // a container can start, content still comes over the network
	StateFailed  State = "Failed"  // did not come: the error says what to do; Retrying says whether that is tried again
)

// ImageStatus is a snapshot of one image's pull. Observers get a copy.
type ImageStatus struct {
	Image
	// Name is the normalised reference under which the CRI knows the image.
	Name string `json:"name"`
	// Digest is what the reference resolved to ("sha256:..."), empty until then.
	Digest string `json:"digest,omitempty"`
	State  State  `json:"state"`
	// Retrying says of a failed image that it is tried again by itself: somebody may push it, or make room.
	Retrying bool `json:"retrying,omitempty"`
	// Engine is the way it was pulled: direct, client, cri or lazy; "" when it was there already.
	Engine string `json:"engine,omitempty"`
	// PassedOver are the ways that could not be taken, and why.
	PassedOver []PassedOver `json:"passedOver,omitempty"`
	// Snapshotter is where it is unpacked.
	Snapshotter string `json:"snapshotter,omitempty"`
	// Runtime is the container runtime with its version, such as "containerd 2.2.4".
	Runtime string `json:"runtime,omitempty"`
	// FetchedBytes counts compressed bytes that came over the network for this image, retries included.
	FetchedBytes int64 `json:"fetchedBytes"`
	// DoneBytes and TotalBytes are compressed layer bytes that have come to this node, now or before, of all that the image
	// has. Of a lazy image they are equal once the background fetch has ended.
	DoneBytes  int64 `json:"doneBytes"`
	TotalBytes int64 `json:"totalBytes"`
	// Attempts counts pulls that were begun.
	Attempts int `json:"attempts"`
	// Error is the last failure, one line, without credentials; empty when the last attempt went well.
	Error string `json:"error,omitempty"`
	// Stages says where the time of the last pull went.
	Stages []Stage `json:"stages,omitempty"`
	// Started and Finished are wall-clock times; zero when it has not happened.
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// Observer is told of every change of an image. It is called from many goroutines, one call at a time for one image,
// and must not block.
type Observer func(ImageStatus)
