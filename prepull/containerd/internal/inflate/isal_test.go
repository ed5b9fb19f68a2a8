//go:build isal && cgo

package inflate_test

import (
	"io"

	"headstart.dev/prepull/containerd/internal/inflate/isal"
)

func init() { //nolint:gochecknoinits // one more contender of BenchmarkGzip, where it can be built
	gzipReaders["ISA-L"] = func(r io.Reader) (io.Reader, error) { return isal.NewReader(r), nil }
}
