package prepull

import (
	"context"
	"errors"
	"time"
)

// Store is a container runtime's image store, as a Puller needs it. Its methods are safe for concurrent use and
// idempotent.
type Store interface {
	// Pull makes an image present, unpacked and visible to the CRI, and returns when it is. It may report what it
	// has done so far at any time, from one goroutine at a time.
	//
	//	error                         the Puller
	//	nil                           is done with the image
	//	Permanent                     reports StateFailed and does not try again
	//	Refused                       reports StateFailed after some, and tries again, ever more slowly
	//	Later                         reports StateFailed, and tries again when what it waits for has come
	//	any other                     tries again; whatever was done so far is kept by the Store
	Pull(ctx context.Context, img Image, report func(Progress)) (Result, error)
	// Release gives up what Pull did to keep the image on the node (its pin). The image itself stays: the kubelet's
	// garbage collection takes it when it needs the room. An image that is not there is no error.
	Release(ctx context.Context, name string) error
	// Sweep gives up pins of earlier runs: those that have expired and, unless pinned is nil, all of ours whose image
	// is not among these normalised names. Pins of those that are it renews.
	Sweep(ctx context.Context, pinned []string) error
}

// Progress is how far one pull has come. Byte counts are those of this pull alone, and compressed bytes.
type Progress struct {
	// Digest is what the reference resolved to, "" until it is known.
	Digest string
	// Engine and Snapshotter say how and where to, "" until they are chosen.
	Engine, Snapshotter string
	// Runtime is the container runtime with its version, such as "containerd 2.2.4".
	Runtime string
	// FetchedBytes came over the network; what is fetched twice counts twice.
	FetchedBytes int64
	// DoneBytes of TotalBytes are ready on the node.
	DoneBytes, TotalBytes int64
	// PassedOver are the faster or more fitting ways that could not be taken, and why.
	PassedOver []PassedOver
}

// PassedOver is a way to pull an image that was not taken, or that failed.
type PassedOver struct {
	Engine string `json:"engine"`
	Reason string `json:"reason"`
}

// Result is a finished pull.
type Result struct {
	Progress
	// Lazy says that a container can start, but that content still comes over the network.
	Lazy bool
	// Follow, of a lazy image, reports how the content comes in the background, and returns when all of it has come, or
	// with the context. nil where nobody can tell.
	Follow func(ctx context.Context, report func(Progress)) error
	// Stages says where the time went, in the order in which the stages began.
	Stages []Stage
}

// Stage is one part of a pull. Stages of different layers overlap: their sum is no wall time.
type Stage struct {
	Name     string        `json:"name"`
	Duration time.Duration `json:"duration"`
}

// PermanentError is a failure that neither time nor another way to pull can heal: content that no way can read or that is
// not what its digest says, a node that refuses the image, a layer that is larger than the disk.
type PermanentError struct{ Err error }

// Permanent marks err as a PermanentError; nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &PermanentError{Err: err}
}

func (e *PermanentError) Error() string { return e.Err.Error() }

func (e *PermanentError) Unwrap() error { return e.Err }

// IsPermanent reports whether trying again is pointless.
func IsPermanent(err error) bool {
	_, ok := errors.AsType[*PermanentError](err)
	return ok
}
