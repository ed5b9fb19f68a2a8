package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"

	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/faultproxy"
	testimages "headstart.dev/test/testenv/images"
	"headstart.dev/test/testenv/treehash"
)

// world is a registry with one image and a containerd that it is pulled to, again and again.
type world struct {
	registry *testenv.Registry
	ctd      *testenv.Containerd
	ref      string
	layers   []string // digests
	total    int64
	largest  int64
	tree     string // of the image, as it is without a fault
}

func newWorld(ctx context.Context) (*world, error) {
	w := &world{}
	img, err := testimages.Build(ctx, testimages.Sized("faults", 110*mib, 60*mib, 40*mib, 24*mib, 12*mib, 4*mib))
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		dgst, err := l.Digest()
		if err != nil {
			return nil, err
		}
		size, err := l.Size()
		if err != nil {
			return nil, err
		}
		w.layers = append(w.layers, dgst.String())
		w.total += size
		w.largest = max(w.largest, size)
	}
	if w.registry, err = testenv.NewRegistry(ctx, testenv.RegistryConfig{}); err != nil {
		return nil, err
	}
	if w.ref, _, err = w.registry.Push(ctx, "bench/faults:v1", img); err != nil {
		return nil, errors.Join(err, w.close())
	}
	if w.ctd, err = testenv.NewContainerd(ctx, testenv.ContainerdConfig{Registry: w.registry}); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) close() error {
	var errs []error
	if w.ctd != nil {
		errs = append(errs, w.ctd.Stop())
	}
	return errors.Join(append(errs, w.registry.Stop())...)
}

// isLayer matches requests for a layer.
func (w *world) isLayer(r *http.Request) bool {
	if !faultproxy.Blobs(r) {
		return false
	}
	for _, dgst := range w.layers {
		if strings.HasSuffix(r.URL.Path, dgst) {
			return true
		}
	}
	return false
}

// sent is how many bytes of layers the registry has sent.
func (w *world) sent() int64 {
	var sum int64
	for _, dgst := range w.layers {
		sum += w.registry.Proxy.Blob(dgst).Bytes
	}
	return sum
}

// connectionRate is what a connection brings, as one to a registry on S3 does. The kernel's buffers would else hold
// megabytes that a killed agent has never seen.
const connectionRate = 20 * mib

// measure pulls the image under a fault, and removes it again.
func (w *world) measure(ctx context.Context, f fault) (r result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	for _, broken := range f.proxy {
		broken.Match = w.isLayer
		if f.manifests {
			broken.Match = faultproxy.Manifests
		}
		defer w.registry.Proxy.Inject(broken)()
	}
	defer w.registry.Proxy.Inject(faultproxy.Fault{Match: w.isLayer, BytesPerSecond: connectionRate})()
	w.registry.Proxy.SetBandwidth(f.bandwidth)
	defer w.registry.Proxy.SetBandwidth(0)
	w.registry.Proxy.ResetCounts()
	began := time.Now()
	run := f.run
	if run == nil {
		run = func(ctx context.Context, w *world) error { return w.agent(ctx).Run() }
	}
	err = run(ctx, w)
	r = result{twice: w.sent() - w.total, took: time.Since(began)}
	if err == nil {
		err = w.check(ctx)
	}
	return r, errors.Join(err, w.remove(context.WithoutCancel(ctx)))
}

// agent is a process that pulls the image.
func (w *world) agent(ctx context.Context) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.CommandContext(ctx, self, "-worker", "-address", w.ctd.Address(), w.ref) //nolint:gosec // this program itself
	cmd.Stderr = os.Stderr
	return cmd
}

// until waits until a share of the image's bytes has been sent.
func (w *world) until(ctx context.Context, share float64) error {
	for float64(w.sent()) < share*float64(w.total) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// check compares the image's tree with that of the first run, and looks for what should not be left.
func (w *world) check(ctx context.Context) error {
	c, err := client.New(w.ctd.Address())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, done, err := c.WithLease(namespaces.WithNamespace(ctx, "k8s.io")) // or the view is collected as garbage
	if err != nil {
		return err
	}
	defer func() { _ = done(ctx) }()
	img, err := c.GetImage(ctx, w.ref)
	if err != nil {
		return err
	}
	diffs, err := img.RootFS(ctx)
	if err != nil {
		return err
	}
	service := c.SnapshotService("overlayfs")
	mounts, err := service.View(ctx, "bench-view", identity.ChainID(diffs).String())
	if err != nil {
		return err
	}
	var tree string
	err = mount.WithReadonlyTempMount(ctx, mounts, func(root string) (err error) {
		tree, err = treehash.Sum(root, treehash.Options{NoDirTimes: true})
		return err
	})
	if err := errors.Join(err, service.Remove(ctx, "bench-view")); err != nil {
		return err
	}
	if w.tree == "" {
		w.tree = tree
	}
	if tree != w.tree {
		return errors.New("the tree differs")
	}
	left, err := filepath.Glob(filepath.Join(w.staging(), "*", "*"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return err
}

// staging is where layers are unpacked.
func (w *world) staging() string {
	return filepath.Join(w.ctd.Root(), "io.containerd.snapshotter.v1.overlayfs", "headstart-staging")
}

// remove takes the image from the node, with all that was unpacked.
func (w *world) remove(ctx context.Context) error {
	c, err := client.New(w.ctd.Address())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	img, err := c.ImageService().Get(ctx, w.ref)
	if errdefs.IsNotFound(err) {
		return nil // the pull has failed, which is reported
	}
	if err != nil {
		return err
	}
	all, err := c.ImageService().List(ctx, "target.digest=="+img.Target.Digest.String())
	if err != nil {
		return err
	}
	for i, record := range all {
		var options []images.DeleteOpt
		if i == len(all)-1 {
			options = append(options, images.SynchronousDelete())
		}
		if err := c.ImageService().Delete(ctx, record.Name, options...); err != nil {
			return err
		}
	}
	return nil
}
