package layer_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"headstart.dev/prepull/containerd/internal/layer"
)

// stackTime is what the test of random stacks takes: as many as there is time for.
const stackTime = 10 * time.Second

// TestStacksAsContainerdDoes unpacks random stacks of layers by containerd's own code, each on those below, and by ours,
// each alone and then told of those below. A failure prints its seed. It is no fuzz test: what a seed leads to tells a fuzzer
// nothing of the next, and containerd's resolving of links that name each other takes seconds under its instrumentation.
func TestStacksAsContainerdDoes(t *testing.T) {
	first := uint64(time.Now().UnixNano())
	began, stacks := time.Now(), 0
	for seed := first; time.Since(began) < stackTime && !t.Failed(); seed++ {
		stacks++
		if !t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { requireStackAsContainerd(t, seed) }) {
			break
		}
	}
	t.Logf("%d stacks from seed %d", stacks, first)
}

// TestKnownStacks are seeds that once differed.
func TestKnownStacks(t *testing.T) {
	for _, seed := range []uint64{
		1795903403303350184, // a directory that is implied below a file of a layer below, and named later
	} {
		requireStackAsContainerd(t, seed)
	}
}

func requireStackAsContainerd(t *testing.T, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	outer := t.TempDir()
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	ctx := log.WithLogger(t.Context(), logrus.NewEntry(logger))
	var theirs, ours []string // nearest first
	for depth := range 2 + r.IntN(4) {
		tarball := randomLayer(t, r.Uint64())
		their, our := filepath.Join(outer, fmt.Sprint(depth), "theirs"), filepath.Join(outer, fmt.Sprint(depth), "ours")
		require.NoError(t, os.MkdirAll(their, 0o755))
		require.NoError(t, os.MkdirAll(our, 0o755))
		var options []archive.ApplyOpt
		if depth > 0 {
			options = append(options, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout), archive.WithParents(theirs))
		}
		_, theirErr := archive.Apply(ctx, their, bytes.NewReader(tarball), options...)
		l := describe(tarball, tarball, ocispec.MediaTypeImageLayer)
		l.Base = depth == 0
		result, ourErr := layer.Unpack(ctx, our, l, bytes.NewReader(tarball), layer.Options{})
		if ourErr == nil && depth > 0 {
			ourErr = layer.Inherit(our, result.Implied, ours)
		}
		if theirErr != nil {
			if ourErr == nil && errors.Is(theirErr, unix.ENOTDIR) {
				// containerd looks below at the moment in which a directory is implied, and refuses where a file lies on its
				// way; here one that the layer names later, or removes, is not looked for any more.
				return
			}
			require.Error(t, ourErr, "layer %d: containerd says %s", depth, theirErr)
			return
		}
		require.NoError(t, ourErr, "layer %d", depth)
		// The times of directories without an entry are those of their making.
		epoch := []unix.Timespec{{}, {}}
		for _, rel := range append([]string{"."}, result.Implied...) {
			for _, root := range []string{their, our} {
				require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, rel), epoch, unix.AT_SYMLINK_NOFOLLOW))
			}
		}
		if want, got := treeOf(t, their), treeOf(t, our); !slices.Equal(want, got) {
			require.Equal(t, strings.Join(want, "\n"), strings.Join(got, "\n"), "layer %d of %s", depth, outer)
		}
		theirs, ours = append([]string{their}, theirs...), append([]string{our}, ours...)
	}
}
