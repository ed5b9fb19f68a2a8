package testenv

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"
	"time"

	"headstart.dev/test/testenv/internal/binaries"
	"headstart.dev/test/testenv/internal/process"
	"headstart.dev/test/testenv/internal/workspace"
)

// karpenterStartTimeout covers the wait for its caches beside other tests.
const karpenterStartTimeout = 2 * time.Minute

// KarpenterConfig says how Karpenter runs.
type KarpenterConfig struct {
	// FeatureGates as Karpenter takes them ("StaticCapacity=true,CapacityBuffer=true"); empty means its defaults.
	FeatureGates string
	// Env is appended to its environment (BATCH_MAX_DURATION=...).
	Env []string
	// Progress receives lines while it is built; nil means stderr.
	Progress io.Writer
}

// Karpenter is Karpenter with its KWOK provider: it decides as the real one does, and its nodes are Node objects alone.
// Nobody makes them Ready or runs their pods; a test does that in the kubelet's place.
type Karpenter struct {
	work   *workspace.Workspace
	server *process.Process
}

// StartKarpenter installs Karpenter's CRDs and runs it against the control plane until the test ends.
func StartKarpenter(t testing.TB, cp *ControlPlane, cfg KarpenterConfig) *Karpenter {
	t.Helper()
	k, err := NewKarpenter(t.Context(), cp, cfg)
	if err != nil {
		t.Fatalf("start Karpenter: %v", err)
	}
	cleanUp(t, k)
	return k
}

// NewKarpenter starts Karpenter. The caller must Stop it; on error nothing is left running. ctx bounds the start.
func NewKarpenter(ctx context.Context, cp *ControlPlane, cfg KarpenterConfig) (*Karpenter, error) {
	if cfg.Progress == nil {
		cfg.Progress = os.Stderr
	}
	path, crdDirs, err := binaries.EnsureKarpenter(ctx, cfg.Progress)
	if err != nil {
		return nil, err
	}
	if err := InstallCRDs(ctx, cp.Config(), crdDirs...); err != nil {
		return nil, err
	}
	ports, err := twoFreePorts(ctx)
	if err != nil {
		return nil, err
	}
	work, err := workspace.New()
	if err != nil {
		return nil, err
	}
	env := []string{
		"KUBECONFIG=" + cp.Kubeconfig(adminUser, adminGroup), "CLUSTER_NAME=testenv", "DISABLE_LEADER_ELECTION=true",
		"SYSTEM_NAMESPACE=kube-system", "KARPENTER_SERVICE=karpenter", "KUBERNETES_MIN_VERSION=1.19.0-0",
		"METRICS_PORT=" + strconv.Itoa(ports[0]), "HEALTH_PROBE_PORT=" + strconv.Itoa(ports[1]), work.Env(),
	}
	if cfg.FeatureGates != "" {
		env = append(env, "FEATURE_GATES="+cfg.FeatureGates)
	}
	server, err := process.Start(ctx, process.Config{
		Name: binaries.Karpenter, Path: path, Env: append(env, cfg.Env...), LogPath: work.Path(binaries.Karpenter + ".log"),
		Ready: answersOK("http://"+loopback(ports[1])+"/healthz", nil), StartTimeout: karpenterStartTimeout,
	})
	if err != nil {
		return nil, fmt.Errorf("%w; clean-up: %v", err, work.Close()) //nolint:errorlint // the start's error is the one to act on
	}
	return &Karpenter{work: work, server: server}, nil
}

// Stop ends Karpenter and leaves its nodes. It is safe to call again.
func (k *Karpenter) Stop() error {
	if err := k.server.Stop(); err != nil {
		return err
	}
	return k.work.Close()
}

func (k *Karpenter) processes() []*process.Process { return []*process.Process{k.server} }
