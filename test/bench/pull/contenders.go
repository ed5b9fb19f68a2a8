package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
)

// contender is one way to pull images.
type contender struct {
	name string
	// config is appended to containerd's.
	config string
	// soci sets the SOCI snapshotter up beside containerd.
	soci *testenv.SOCIConfig
	// rootMode is what its snapshotter gives the root directory of every image, when that is another mode than
	// containerd's.
	rootMode string
	// keepLayers runs it on a containerd that does not discard layers: it cannot do otherwise.
	keepLayers bool
	// ours is what Headstart brings, and the limit that no contender is.
	ours bool
	// writes says that the program which is run writes the files; else containerd does.
	writes bool
	run    func(ctx context.Context, r *run) error
}

// transferBest are the settings of containerd's Transfer service that came out best: as many requests and as large ranges as
// the direct engine, and layers unpacked in parallel.
const transferBest = `
[plugins.'io.containerd.transfer.v1.local']
max_concurrent_downloads = 16
concurrent_layer_fetch_buffer = 8388608
max_concurrent_unpacks = 4
`

// Names that the report asks for.
const (
	bareName   = "bare limit"
	directName = "direct"
	stockName  = "cri stock EKS"
)

// contenders in the order of their turns. SOCI parallel is what nodeadm's FastImagePull sets up.
func contenders() []contender {
	return []contender{
		{name: bareName, ours: true, writes: true, run: worker("bare")},
		{name: directName, ours: true, writes: true, run: worker(containerd.EngineDirect)},
		{name: "client", ours: true, run: worker(containerd.EngineClient)},
		{name: "cri engine", ours: true, run: worker(containerd.EngineCRI)},
		{name: stockName, run: criPull},
		{name: "SOCI parallel", run: criPull, soci: &testenv.SOCIConfig{Parallel: true}, rootMode: "0700"},
		{name: "ctr one by one", keepLayers: true, run: ctrPull(false)},
		{name: "ctr all at once", keepLayers: true, run: ctrPull(true)},
		{name: "transfer best", keepLayers: true, config: transferBest, run: ctrPull(true)},
	}
}

// criPull is what the kubelet does, image by image as serializeImagePulls has it.
func criPull(ctx context.Context, r *run) error {
	conn, err := r.ctd.CRI()
	if err != nil {
		return err
	}
	service := criapi.NewImageServiceClient(conn)
	for _, ref := range r.refs {
		if _, err := service.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}}); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	return conn.Close()
}

// ctrPull is `ctr images pull`, which asks the Transfer service.
func ctrPull(together bool) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		group, ctx := errgroup.WithContext(ctx)
		if !together {
			group.SetLimit(1)
		}
		for _, ref := range r.refs {
			group.Go(func() error {
				return r.child(ctx, r.tool("ctr"), "-a", r.ctd.Address(), "-n", "k8s.io", "images", "pull",
					"--hosts-dir", r.ctd.CertsDir(), "--snapshotter", "overlayfs", ref)
			})
		}
		return group.Wait()
	}
}

// worker runs this program once more, so that its memory and its time are its own.
func worker(engine string) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		args := append([]string{"-worker", engine, "-address", r.ctd.Address(), "-host", r.server.host, "-dir", filepath.Join(r.dir, "bare"), "-profile", r.profile}, r.refs...)
		return r.child(ctx, self, args...)
	}
}

// child runs a program and adds what it took.
func (r *run) child(ctx context.Context, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", filepath.Base(path), err, output)
	}
	r.addUsage(cmd.ProcessState)
	lines := strings.Fields(string(output))
	if len(lines) == 0 {
		return nil
	}
	if written, err := strconv.ParseInt(lines[len(lines)-1], 10, 64); err == nil {
		r.mu.Lock()
		r.written += written
		r.mu.Unlock()
	}
	return nil
}

// newContainerd starts a contender's containerd on a fresh file system.
func newContainerd(ctx context.Context, c contender, host string) (*testenv.Containerd, error) {
	ctd, err := testenv.NewContainerd(ctx, testenv.ContainerdConfig{
		ExtraConfig: c.config, KeepLayers: c.keepLayers, SOCI: c.soci, NoDisk: true, // measure has mounted one, for all contenders the same
	})
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(ctd.CertsDir(), host)
	toml := fmt.Sprintf("server = \"http://%[1]s\"\n[host.\"http://%[1]s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", host)
	err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(toml), 0o600))
	if err != nil {
		return nil, errors.Join(err, ctd.Stop())
	}
	return ctd, nil
}
