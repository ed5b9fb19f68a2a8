// Package soci knows how the SOCI snapshotter shows what it does: which images have an index, which snapshots are mounted
// lazily, and how much of a layer has come. It needs no library of SOCI's, only the names below. Start from IndexOf.
//
// A lazily mounted image is never as good as a whole one: what the snapshotter has fetched lies in a cache that a restart
// of it throws away, so that even after the background fetch has ended a read may go over the network again.
package soci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// Snapshotter is the name under which every known setting of a node registers SOCI with containerd: nodeadm's, that of
// Bottlerocket and the one in SOCI's own documents.
const Snapshotter = "soci"

// Names that SOCI uses.
// Source: soci-snapshotter v0.16.1, soci/soci_index.go, snapshot/snapshot.go, fs/layer/node.go.
const (
	annotationIndex  = "com.amazon.soci.index-digest" // on an image's manifest: its index, version 2
	labelRemote      = "containerd.io/snapshot/remote"
	labelRemoteValue = "remote snapshot"
	stateDir         = ".soci-snapshotter"
)

// maxStateBytes bounds a layer's state file; it holds five short fields.
const maxStateBytes = 4 << 10

// IndexOf returns the digest of an image's index by its manifest's annotations, "" when it has none. Indexes of version 1,
// which only the registry's list of referrers names, do not count: SOCI itself passes over them unless told otherwise.
func IndexOf(annotations map[string]string) digest.Digest {
	dgst, err := digest.Parse(annotations[annotationIndex])
	if err != nil {
		return ""
	}
	return dgst
}

// Lazy says by a snapshot's labels whether it is mounted by the index, so that its content is fetched as it is read.
func Lazy(labels map[string]string) bool { return labels[labelRemote] == labelRemoteValue }

// Layer is one lazily mounted layer.
type Layer struct {
	// Dir is where it is mounted.
	Dir string
	// Digest of its blob.
	Digest digest.Digest
}

// Fetched returns how many bytes of the layer's blob, of how many, have come. Only root can ask. A hanging mount is an
// error when ctx ends.
func (l Layer) Fetched(ctx context.Context) (fetched, size int64, err error) {
	type answer struct {
		data []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // a read from a mount whose server hangs cannot be interrupted
		data, err := readState(filepath.Join(l.Dir, stateDir, l.Digest.String()+".json"))
		answers <- answer{data, err}
	}()
	select {
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("read the state of the layer %s: %w", l.Digest, ctx.Err())
	case a := <-answers:
		if a.err != nil {
			return 0, 0, fmt.Errorf("read the state of the layer %s: %w", l.Digest, a.err)
		}
		return parseState(a.data)
	}
}

func readState(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data := make([]byte, maxStateBytes)
	n, err := file.Read(data)
	return data[:n], errors.Join(err, file.Close())
}

func parseState(data []byte) (fetched, size int64, err error) {
	var state struct {
		Size        int64 `json:"size"`
		FetchedSize int64 `json:"fetchedSize"`
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return 0, 0, fmt.Errorf("parse the state of a layer: %w", err)
	}
	if state.Size < 0 || state.FetchedSize < 0 {
		return 0, 0, fmt.Errorf("parse the state of a layer: %d of %d bytes", state.FetchedSize, state.Size)
	}
	return min(state.FetchedSize, state.Size), state.Size, nil
}

// Gone says of an error of Fetched that the layer is mounted no longer.
func Gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
