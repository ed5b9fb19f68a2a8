package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"headstart.dev/test/testenv/internal/binaries"
	"headstart.dev/test/testenv/internal/process"
	"headstart.dev/test/testenv/internal/workspace"
)

const (
	criNamespace = "k8s.io"
	cniBinDir    = "/usr/lib/cni"
	pauseImage   = "headstart.test/pause:1"
	// containerdStopTimeout is generous beside the usual 100 ms: an unpack in flight has to be abandoned.
	containerdStopTimeout = 20 * time.Second
)

// ContainerdConfig says how containerd is set up. The zero value has no registry and the overlayfs snapshotter.
type ContainerdConfig struct {
	// Registry is reachable by its Host() as plain HTTP; nil for none. More can be added in CertsDir.
	Registry *Registry
	// Release of containerd; empty means the newest.
	Release ContainerdRelease
	// Snapshotter of the CRI; empty means overlayfs, or soci where SOCI is set.
	Snapshotter string
	// SOCI runs the SOCI snapshotter beside containerd; nil for none.
	SOCI *SOCIConfig
	// KeepLayers keeps layers' blobs after they are unpacked. An EKS node discards them, and so does this one without it.
	KeepLayers bool
	// ExtraConfig is TOML that is appended to the configuration: new tables only.
	ExtraConfig string
	// NoDisk keeps the data in a folder of the machine's own file system. Without it containerd has a disk of its own, as a
	// node has.
	NoDisk bool
	// Host is the machine to run in; nil means this one.
	Host *Host
	// Progress receives lines while servers are built; nil means stderr.
	Progress io.Writer
}

// Containerd is a private containerd with the CRI: own root, state, socket and CNI configuration folder (empty at start).
type Containerd struct {
	cfg     ContainerdConfig
	release release
	work    *workspace.Workspace
	binDir  string
	disk    string // the folder of all persistent data

	mu     sync.Mutex
	server *process.Process
	soci   *process.Process // nil without the SOCI snapshotter
}

// StartContainerd starts a containerd that is stopped, with all that it runs, when the test ends. It skips without root.
func StartContainerd(t testing.TB, cfg ContainerdConfig) *Containerd {
	t.Helper()
	RequireRoot(t)
	c, err := NewContainerd(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start containerd: %v", err)
	}
	cleanUp(t, c)
	return c
}

// NewContainerd starts a containerd that has the sandbox image loaded. The caller must Stop it; on error nothing is left
// running. ctx bounds the start.
func NewContainerd(ctx context.Context, cfg ContainerdConfig) (*Containerd, error) {
	if cfg.Progress == nil {
		cfg.Progress = os.Stderr
	}
	release, known := releases[cfg.Release]
	if !known {
		return nil, fmt.Errorf("start containerd: no release %q", cfg.Release)
	}
	switch {
	case cfg.Snapshotter != "":
	case cfg.SOCI != nil:
		cfg.Snapshotter = sociSnapshotter
	default:
		cfg.Snapshotter = "overlayfs"
	}
	if err := ensurePackages(ctx, cfg.Progress); err != nil {
		return nil, err
	}
	binDir, err := release.ensure(ctx, cfg.Progress)
	if err != nil {
		return nil, err
	}
	work, err := workspace.New()
	if err != nil {
		return nil, err
	}
	c := &Containerd{cfg: cfg, release: release, work: work, binDir: binDir}
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	if cfg.SOCI != nil {
		if err := c.RestartSOCI(ctx); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
	}
	if err := c.Restart(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	if err := c.loadPause(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Address is the path of the gRPC socket, which serves containerd's API and the CRI.
func (c *Containerd) Address() string { return c.work.Path("containerd.sock") }

// Root is the folder of persistent data: content, snapshots, metadata.
func (c *Containerd) Root() string { return filepath.Join(c.disk, "root") }

// Snapshotter is the one that the CRI uses.
func (c *Containerd) Snapshotter() string { return c.cfg.Snapshotter }

// CNIConfDir is where containerd looks for network configurations. It is empty until somebody writes one: see WriteCNI.
func (c *Containerd) CNIConfDir() string { return c.work.Path("cni") }

// CertsDir is the certs.d folder of registry hosts.
func (c *Containerd) CertsDir() string { return c.work.Path("certs.d") }

// ConfigPath is containerd's configuration file.
func (c *Containerd) ConfigPath() string { return c.work.Path("config.toml") }

// Binary is containerd's program.
func (c *Containerd) Binary() string { return filepath.Join(c.binDir, binaries.Containerd) }

// Kill ends containerd with SIGKILL, as the kernel does when memory runs out. Containers go on running.
func (c *Containerd) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil
	}
	return c.server.Kill()
}

// Restart stops containerd in good order, if it runs, and starts it again on the same data.
func (c *Containerd) Restart(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		if err := c.server.Stop(); err != nil {
			return err
		}
	}
	server, err := process.Start(ctx, process.Config{
		Name: binaries.Containerd, Path: c.binDir + "/" + binaries.Containerd, Args: []string{"--config", c.ConfigPath()},
		// The shim is looked for in PATH.
		Env:     []string{c.work.Env(), "PATH=" + c.binDir + ":" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"},
		LogPath: c.work.Path("containerd.log"), NetworkNamespace: c.cfg.Host.namespace(),
		Ready: c.ready, StopTimeout: containerdStopTimeout,
	})
	if err != nil {
		return err
	}
	c.server = server
	return nil
}

// Client returns a containerd client whose default namespace is the CRI's. The caller closes it.
func (c *Containerd) Client() (*containerd.Client, error) {
	client, err := containerd.New(c.Address(), containerd.WithDefaultNamespace(criNamespace), containerd.WithTimeout(time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	return client, nil
}

// Stop ends containerd and all containers that it started, and removes its data. It is safe to call again.
func (c *Containerd) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, server := range c.running() {
		errs = append(errs, server.Stop())
	}
	return errors.Join(append(errs, c.work.Close())...)
}

// PIDs are the processes of containerd and, where it runs, of the SOCI snapshotter.
func (c *Containerd) PIDs() []int {
	var pids []int
	for _, p := range c.processes() {
		pids = append(pids, p.PID())
	}
	return pids
}

func (c *Containerd) processes() []*process.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running()
}

// running returns the servers that were started, containerd first. The caller holds mu.
func (c *Containerd) running() []*process.Process {
	return slices.DeleteFunc([]*process.Process{c.server, c.soci}, func(p *process.Process) bool { return p == nil })
}

// ensurePackages installs the Debian packages that containers need, and those that have the given files, when they are
// missing, and names them in one line when it may not.
func ensurePackages(ctx context.Context, progress io.Writer, files ...string) error {
	_, err := exec.LookPath("runc")
	for _, file := range append(files, filepath.Join(cniBinDir, "bridge")) {
		if _, missing := os.Stat(file); err == nil {
			err = missing
		}
	}
	if err == nil {
		return nil
	}
	root, err := binaries.ModuleRoot()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "test", "tools", "install-debian-packages"))
	var stderr bytes.Buffer
	cmd.Stderr = io.MultiWriter(&stderr, progress)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install Debian packages: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}
