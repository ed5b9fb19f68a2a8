//go:build isal && cgo

package layer

import (
	"io"

	"headstart.dev/prepull/containerd/internal/inflate/isal"
)

// newGzipReader inflates by ISA-L. See make bench-inflate.
func newGzipReader(r io.Reader) io.Reader { return isal.NewReader(r) }
