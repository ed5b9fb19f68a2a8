package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	versionapi "github.com/containerd/containerd/api/services/version/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/test/testenv/disk"
	"headstart.dev/test/testenv/images"
)

const hostsTOML = `server = "http://%[1]s"

[host."http://%[1]s"]
capabilities = ["pull", "resolve"]
`

// prepare writes what containerd reads at its start.
func (c *Containerd) prepare(ctx context.Context) error {
	c.disk = c.work.Path()
	if !c.cfg.NoDisk {
		var err error
		if c.disk, err = c.work.Mkdir("disk"); err != nil {
			return err
		}
		if err := disk.Mount(ctx, disk.Default(), c.work.Path("disk.img"), c.disk); err != nil {
			return err
		}
	}
	for _, dir := range []string{"cni", "certs.d", "opt"} {
		if _, err := c.work.Mkdir(dir); err != nil {
			return err
		}
	}
	if c.cfg.Registry != nil {
		if err := c.AddRegistry(c.cfg.Registry); err != nil {
			return err
		}
	}
	var config strings.Builder
	err := c.release.config.Execute(&config, map[string]any{
		"Dir": c.work.Path(), "Disk": c.disk, "Snapshotter": c.cfg.Snapshotter, "Pause": pauseImage, "CNIBinDir": cniBinDir, "Extra": c.cfg.ExtraConfig,
		"Discard": !c.cfg.KeepLayers, "SOCI": c.cfg.SOCI != nil,
	})
	if err != nil {
		return fmt.Errorf("write containerd's configuration: %w", err)
	}
	_, err = c.work.Write([]byte(config.String()), "config.toml")
	return err
}

// Mirror has containerd ask another registry first for what belongs to r, as a peer cache (Spegel) sets it up: a mirror in
// r's hosts.toml, with r behind it. It takes effect at once.
func (c *Containerd) Mirror(r, mirror *Registry) error {
	if err := c.AddRegistry(mirror); err != nil {
		return err
	}
	text := fmt.Sprintf("server = %q\n\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", "http://"+r.Host(), "http://"+mirror.Host())
	if err := os.WriteFile(c.work.Path("certs.d", r.Host(), "hosts.toml"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write hosts.toml of %s: %w", r.Host(), err)
	}
	return nil
}

// AddRegistry lets containerd pull from one more registry; it takes effect at once. In a Host, the registry appears on
// the host's loopback.
func (c *Containerd) AddRegistry(r *Registry) error {
	if c.cfg.Host != nil {
		if err := c.cfg.Host.Forward(r.Port()); err != nil {
			return err
		}
	}
	dir, err := c.work.Mkdir("certs.d", r.Host())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), fmt.Appendf(nil, hostsTOML, r.Host()), 0o600); err != nil {
		return fmt.Errorf("write hosts.toml of %s: %w", r.Host(), err)
	}
	return nil
}

// loadPause imports the sandbox image, which machine images bring along, and pins it.
func (c *Containerd) loadPause(ctx context.Context) error {
	image, err := images.Pause(ctx)
	if err != nil {
		return err
	}
	path := c.work.Path("pause.tar")
	tag, err := name.NewTag(pauseImage)
	if err != nil {
		return fmt.Errorf("name the sandbox image: %w", err)
	}
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		return fmt.Errorf("write the sandbox image: %w", err)
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the sandbox image: %w", err)
	}
	defer func() { _ = file.Close() }()
	client, err := c.Client()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	imported, err := client.Import(ctx, file, containerd.WithImageLabels(map[string]string{"io.cri-containerd.pinned": "pinned"}),
		containerd.WithImageRefTranslator(archive.FilterRefPrefix("")))
	if err != nil {
		return fmt.Errorf("import the sandbox image: %w", err)
	}
	for _, record := range imported {
		if err := containerd.NewImage(client, record).Unpack(ctx, c.cfg.Snapshotter); err != nil {
			return fmt.Errorf("unpack the sandbox image: %w", err)
		}
	}
	return nil
}

// CRI returns a connection to the container runtime interface. The caller closes it.
func (c *Containerd) CRI() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+c.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the CRI: %w", err)
	}
	return conn, nil
}

// ready asks containerd's API and the CRI, which comes up a moment later.
func (c *Containerd) ready(ctx context.Context) error {
	conn, err := c.CRI()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := versionapi.NewVersionClient(conn).Version(ctx, &emptypb.Empty{}); err != nil {
		return fmt.Errorf("ask containerd for its version: %w", err)
	}
	if _, err := runtimeapi.NewRuntimeServiceClient(conn).Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
		return fmt.Errorf("ask the CRI for its version: %w", err)
	}
	return nil
}
