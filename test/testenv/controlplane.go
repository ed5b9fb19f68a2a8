package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"headstart.dev/test/testenv/internal/binaries"
	"headstart.dev/test/testenv/internal/pki"
	"headstart.dev/test/testenv/internal/process"
	"headstart.dev/test/testenv/internal/workspace"
)

// ControlPlaneConfig says what to start beside etcd and kube-apiserver. The zero value starts these two alone.
type ControlPlaneConfig struct {
	Scheduler bool
	// ControllerManager also makes the service account "default" of each namespace. Without it the ServiceAccount
	// admission plugin is off, so that pods can be created all the same.
	ControllerManager bool
	// CRDDirs hold CustomResourceDefinitions as YAML; relative paths count from the module root. They are installed and
	// Established when the start returns.
	CRDDirs []string
	// APIServerArgs, SchedulerArgs and ControllerManagerArgs are appended to the flags.
	APIServerArgs, SchedulerArgs, ControllerManagerArgs []string
	// Progress receives lines while servers are built; nil means stderr.
	Progress io.Writer
}

// ControlPlane is a running Kubernetes control plane.
type ControlPlane struct {
	cfg        ControlPlaneConfig
	work       *workspace.Workspace
	authority  *pki.Authority
	binDir     string
	etcdURL    string
	serverPort int

	mu      sync.Mutex
	servers map[string]*process.Process // by name
	stopped bool
}

// StartControlPlane starts a control plane that is stopped when the test ends.
func StartControlPlane(t testing.TB, cfg ControlPlaneConfig) *ControlPlane {
	t.Helper()
	cp, err := NewControlPlane(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start control plane: %v", err)
	}
	cleanUp(t, cp)
	return cp
}

// NewControlPlane starts a control plane. The caller must Stop it; on error nothing is left running. ctx bounds the start.
func NewControlPlane(ctx context.Context, cfg ControlPlaneConfig) (*ControlPlane, error) {
	if cfg.Progress == nil {
		cfg.Progress = os.Stderr
	}
	names := []string{binaries.Etcd, binaries.APIServer}
	if cfg.Scheduler {
		names = append(names, binaries.Scheduler)
	}
	if cfg.ControllerManager {
		names = append(names, binaries.ControllerManager)
	}
	binDir, err := binaries.Ensure(ctx, cfg.Progress, names...)
	if err != nil {
		return nil, err
	}
	work, err := workspace.New()
	if err != nil {
		return nil, err
	}
	cp := &ControlPlane{cfg: cfg, work: work, binDir: binDir, servers: map[string]*process.Process{}}
	if err := cp.start(ctx); err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	return cp, nil
}

func (cp *ControlPlane) start(ctx context.Context) error {
	var err error
	if cp.authority, err = pki.New(); err != nil {
		return err
	}
	if err := cp.writeKeys(); err != nil {
		return err
	}
	if err := cp.startEtcd(ctx); err != nil {
		return err
	}
	if cp.serverPort, err = freePort(ctx); err != nil {
		return err
	}
	if err := cp.StartAPIServer(ctx); err != nil {
		return err
	}
	if cp.cfg.Scheduler {
		if err := cp.startScheduler(ctx); err != nil {
			return err
		}
	}
	if cp.cfg.ControllerManager {
		if err := cp.startControllerManager(ctx); err != nil {
			return err
		}
		if err := cp.waitServiceAccount(ctx); err != nil {
			return err
		}
	}
	return InstallCRDs(ctx, cp.Config(), cp.cfg.CRDDirs...)
}

// Stop ends all servers and removes what they left. It is safe to call again.
func (cp *ControlPlane) Stop() error {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if cp.stopped {
		return nil
	}
	cp.stopped = true
	var errs []error
	for _, name := range []string{binaries.ControllerManager, binaries.Scheduler, secondAPIServer, binaries.APIServer, binaries.Etcd} {
		if server := cp.servers[name]; server != nil {
			errs = append(errs, server.Stop())
		}
	}
	return errors.Join(append(errs, cp.work.Close())...)
}

// StopAPIServer stops kube-apiserver and leaves the rest running: clients see refused connections. Pair with StartAPIServer.
func (cp *ControlPlane) StopAPIServer() error {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if server := cp.servers[binaries.APIServer]; server != nil {
		return server.Stop()
	}
	return nil
}

// FreezeAPIServer stops kube-apiserver from answering without closing its connections, as a node sees a network that
// swallows packets. Pair with ThawAPIServer.
func (cp *ControlPlane) FreezeAPIServer() error { return cp.signal(binaries.APIServer, stopSignal) }

// ThawAPIServer lets a frozen kube-apiserver go on.
func (cp *ControlPlane) ThawAPIServer() error { return cp.signal(binaries.APIServer, continueSignal) }

// FreezeSecondAPIServer and ThawSecondAPIServer do the same to the second one.
func (cp *ControlPlane) FreezeSecondAPIServer() error { return cp.signal(secondAPIServer, stopSignal) }

// ThawSecondAPIServer lets it go on.
func (cp *ControlPlane) ThawSecondAPIServer() error {
	return cp.signal(secondAPIServer, continueSignal)
}

// processes returns the servers that have been started, in the order of their start.
func (cp *ControlPlane) processes() []*process.Process {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	var servers []*process.Process
	for _, name := range []string{binaries.Etcd, binaries.APIServer, secondAPIServer, binaries.Scheduler, binaries.ControllerManager} {
		if server := cp.servers[name]; server != nil {
			servers = append(servers, server)
		}
	}
	return servers
}

// startServer runs one server of the control plane and remembers it.
func (cp *ControlPlane) startServer(ctx context.Context, cfg process.Config) error {
	if cfg.Path == "" {
		cfg.Path = cp.binDir + "/" + cfg.Name
	}
	cfg.LogPath = cp.work.Path(cfg.Name + ".log")
	cfg.Env = append(cfg.Env, cp.work.Env())
	server, err := process.Start(ctx, cfg)
	if err != nil {
		return err
	}
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.servers[cfg.Name] = server
	return nil
}

func (cp *ControlPlane) writeKeys() error {
	serving, err := cp.authority.Server("kube-apiserver", servingIPs, servingNames...)
	if err != nil {
		return err
	}
	kubelet, err := cp.authority.Client("kube-apiserver-kubelet-client", adminGroup)
	if err != nil {
		return err
	}
	caKey, err := cp.authority.Key()
	if err != nil {
		return err
	}
	private, public, err := pki.ServiceAccountKeys()
	if err != nil {
		return fmt.Errorf("make service account keys: %w", err)
	}
	for name, content := range map[string][]byte{
		"ca.crt": cp.authority.Cert(), "ca.key": caKey,
		"serving.crt": serving.Cert, "serving.key": serving.Key,
		"kubelet-client.crt": kubelet.Cert, "kubelet-client.key": kubelet.Key,
		"service-account.key": private, "service-account.pub": public,
	} {
		if _, err := cp.work.Write(content, name); err != nil {
			return err
		}
	}
	return nil
}
