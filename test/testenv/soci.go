package testenv

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"headstart.dev/test/testenv/internal/binaries"
	"headstart.dev/test/testenv/internal/process"
)

const (
	sociSnapshotter = "soci"
	// sociStopTimeout leaves its mounts time to go.
	sociStopTimeout = 20 * time.Second
)

// SOCIConfig says how the SOCI snapshotter is set up. The zero value mounts images lazily, with its own defaults but for
// the wait before the background fetch, which is as good as none.
type SOCIConfig struct {
	// Parallel pulls whole images instead, with the settings that nodeadm's FastImagePull writes.
	Parallel bool
	// NoBackgroundFetch brings only what is read.
	NoBackgroundFetch bool
}

// sociConfig names containerd twice: for the credentials of pulls, and for the manifests of images. Without the second, it
// leaves small layers to containerd, which then fetches all layers.
const sociConfig = `
[cri_keychain]
enable_keychain = true
image_service_path = '%[1]s'
[content_store]
containerd_address = '%[1]s'
[background_fetch]
silence_period_msec = 1
fetch_period_msec = 1
disable = %[2]t
`

// sociParallel are nodeadm's settings.
// Source: amazon-eks-ami nodeadm/internal/containerd/snapshotter/soci-snapshotter.config.toml@v20260724; without unpigz,
// which the testbed does not install.
const sociParallel = `
[pull_modes.soci_v2]
enable = false
[pull_modes.parallel_pull_unpack]
enable = true
max_concurrent_downloads = -1
max_concurrent_downloads_per_image = 20
concurrent_download_chunk_size = '16mb'
max_concurrent_unpacks = -1
max_concurrent_unpacks_per_image = 12
discard_unpacked_layers = true
`

// RestartSOCI stops the SOCI snapshotter in good order, if it runs, and starts it again on the same data.
func (c *Containerd) RestartSOCI(ctx context.Context) error {
	binDir, err := ensureSOCI(ctx, c.cfg.Progress)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(sociConfig, c.Address(), c.cfg.SOCI.NoBackgroundFetch)
	if c.cfg.SOCI.Parallel {
		config += sociParallel
	}
	path, err := c.work.Write([]byte(config), "soci.toml")
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.soci != nil {
		if err := c.soci.Stop(); err != nil {
			return err
		}
	}
	c.soci, err = process.Start(ctx, process.Config{
		Name: binaries.SOCISnapshotter, Path: binDir + "/" + binaries.SOCISnapshotter,
		Args: []string{"--address", c.SOCIAddress(), "--root", filepath.Join(c.disk, "soci"), "--config", path},
		Env:  []string{c.work.Env()}, LogPath: c.work.Path("soci.log"), NetworkNamespace: c.cfg.Host.namespace(),
		Ready: c.sociReady, StopTimeout: sociStopTimeout,
	})
	return err
}

// ensureSOCI builds SOCI's programs when they are not there. They need a C library and mount by a program.
func ensureSOCI(ctx context.Context, progress io.Writer) (binDir string, err error) {
	if err := ensurePackages(ctx, progress, "/usr/include/zlib.h", "/usr/bin/fusermount3"); err != nil {
		return "", err
	}
	return binaries.SOCIModule.Ensure(ctx, progress)
}

// SOCIAddress is the path of the SOCI snapshotter's socket, which serves the CRI's image service as well.
func (c *Containerd) SOCIAddress() string { return c.work.Path("soci.sock") }

// sociReady asks for a snapshot that is not there.
func (c *Containerd) sociReady(ctx context.Context) error {
	conn, err := grpc.NewClient("unix://"+c.SOCIAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to the SOCI snapshotter: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_, err = snapshotsapi.NewSnapshotsClient(conn).Stat(ctx, &snapshotsapi.StatSnapshotRequest{Key: "none"})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return fmt.Errorf("ask the SOCI snapshotter: %w", err)
}

// ConvertToSOCI returns the image with a SOCI index, version 2, as `soci convert` makes it in dir, which must be empty.
// Layers smaller than minLayer bytes get no part in the index.
func ConvertToSOCI(ctx context.Context, dir string, image v1.Image, minLayer int64) (v1.ImageIndex, error) {
	binDir, err := ensureSOCI(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
	if _, err := layout.Write(from, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})); err != nil {
		return nil, fmt.Errorf("write an image for soci convert: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, binaries.SOCI), "convert", "--standalone", "--format", "oci-dir",
		"--min-layer-size", strconv.FormatInt(minLayer, 10), from, to)
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("convert an image: %w: %s", err, output)
	}
	converted, err := layout.ImageIndexFromPath(to)
	if err != nil {
		return nil, fmt.Errorf("read the converted image: %w", err)
	}
	manifest, err := converted.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("read the converted image: %w", err)
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("read the converted image: %d documents instead of one", len(manifest.Manifests))
	}
	return converted.ImageIndex(manifest.Manifests[0].Digest)
}
