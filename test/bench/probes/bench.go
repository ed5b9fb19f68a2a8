package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/agent"
	"headstart.dev/agent/systemdtest"
	"headstart.dev/test/testenv"
)

const (
	nodeName = "bench"
	// patience is when a condition that does not come is an error of the benchmark.
	patience = 30 * time.Second
)

// fact is something that can be made true and false.
type fact struct {
	name, condition string
	set             func(ctx context.Context, truth bool) error
}

// bench is a node with an agent, and an observer at the API server.
type bench struct {
	facts   []fact
	dir     string
	plane   *testenv.ControlPlane
	probes  string // the config's
	stream  watch.Interface
	last    *corev1.Node
	closers []func() error
}

// newBench starts everything but the agent; on error nothing is left. The API server gets the arguments besides its own.
func newBench(ctx context.Context, apiServerArgs ...string) (_ *bench, err error) {
	b := &bench{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.dir, err = os.MkdirTemp("", "hsb"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	b.closers = append(b.closers, func() error { return os.RemoveAll(b.dir) })
	if b.plane, err = testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{APIServerArgs: apiServerArgs}); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.plane.Stop)
	ctd, err := testenv.NewContainerd(ctx, testenv.ContainerdConfig{})
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, ctd.Stop)
	manager, err := systemdtest.Start(ctx)
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, manager.Close)
	if err := os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", manager.Address()); err != nil {
		return nil, fmt.Errorf("set the bus: %w", err)
	}
	endpoint, err := newEndpoint(ctx)
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, endpoint.close)
	driver := &csiDriver{root: b.dir}
	b.closers = append(b.closers, driver.stop)
	b.facts = []fact{
		{"conflist", "headstart.dev/CNIReady", conflistFact(ctd.CNIConfDir())},
		{"csi", "headstart.dev/CSIReady", driver.set},
		{"unit", "headstart.dev/UnitReady", func(_ context.Context, truth bool) error {
			if truth {
				return manager.Set("bench.service", "active")
			}
			return manager.Set("bench.service", "inactive")
		}},
		{"http", "headstart.dev/HttpReady", endpoint.set},
	}
	b.probes = fmt.Sprintf(`
containerd: {address: %s}
probes:
- {name: cni, type: cni, confDir: %s, failureThreshold: 1}
- {name: csi, type: csi, drivers: [%s], kubeletDir: %s, failureThreshold: 1}
- {name: unit, type: systemd, unit: bench.service, failureThreshold: 1}
`, ctd.Address(), ctd.CNIConfDir(), driverName, b.dir) + "- {name: http, type: http, url: '" + endpoint.url + "', failureThreshold: 1"
	return b, b.observe(ctx)
}

// config is the agent's. An HTTP endpoint sends no events: it is looked at every httpPeriod.
func (b *bench) config(httpPeriod time.Duration) []byte {
	return fmt.Appendf(nil, `
apiVersion: agent.headstart.dev/v1alpha1
kind: AgentConfig
nodeName: %s
kubeconfig: %s
stateDir: %s/state
metrics: {bindAddress: "0"}
%s, period: %v}
`, nodeName, b.plane.Kubeconfig(agentUser, "system:nodes"), b.dir, b.probes, httpPeriod)
}

// agentUser is who the agent is to the API server.
const agentUser = "system:node:" + nodeName

// observe makes the Node and watches it as an administrator.
func (b *bench) observe(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(b.plane.Config())
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	node, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make node: %w", err)
	}
	// The kubelet has registered the driver already: what is measured is from its sockets on.
	if _, err := client.StorageV1().CSINodes().Create(ctx, &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName},
		Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: driverName, NodeID: nodeName}}},
	}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create CSINode: %w", err)
	}
	b.stream, err = client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{ResourceVersion: node.ResourceVersion})
	if err != nil {
		return fmt.Errorf("watch node: %w", err)
	}
	b.closers = append(b.closers, func() error { b.stream.Stop(); return nil })
	return nil
}

func (b *bench) startAgent(ctx context.Context, config []byte) error {
	cfg, err := agent.Parse(config)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{Config: cfg, Log: logr.Discard(), Registry: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	b.closers = append(b.closers, func() error { cancel(); return <-done })
	return nil
}

func (b *bench) close() error {
	var err error
	for _, c := range slices.Backward(b.closers) {
		err = errors.Join(err, c())
	}
	return err
}

// measured are the times from fact to condition, sorted, and the moments of the facts.
type measured struct {
	took  []time.Duration
	facts []time.Time
}

// measure makes a fact true many times.
func (b *bench) measure(ctx context.Context, f fact, runs int) (measured, error) {
	var out measured
	for range runs {
		if err := f.set(ctx, false); err != nil {
			return measured{}, err
		}
		if _, err := b.await(ctx, f.condition, corev1.ConditionFalse); err != nil {
			return measured{}, err
		}
		// Facts come at any moment of a poller's period, the agent's own included.
		if err := pause(ctx, 20*time.Millisecond+rand.N(300*time.Millisecond)); err != nil { //nolint:gosec // no secret
			return measured{}, err
		}
		started := time.Now()
		if err := f.set(ctx, true); err != nil {
			return measured{}, err
		}
		seen, err := b.await(ctx, f.condition, corev1.ConditionTrue)
		if err != nil {
			return measured{}, err
		}
		out.took = append(out.took, seen.Sub(started))
		out.facts = append(out.facts, started)
	}
	slices.Sort(out.took)
	return out, nil
}

// await returns the moment at which the Node carries a condition with a status.
func (b *bench) await(ctx context.Context, condition string, want corev1.ConditionStatus) (time.Time, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		if b.last != nil && holds(b.last, condition, want) {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-late.C:
			return time.Time{}, fmt.Errorf("%s did not become %s within %v", condition, want, patience)
		case event, open := <-b.stream.ResultChan():
			if !open {
				return time.Time{}, io.ErrUnexpectedEOF
			}
			if node, ok := event.Object.(*corev1.Node); ok {
				b.last = node
			}
		}
	}
}

func holds(node *corev1.Node, condition string, want corev1.ConditionStatus) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return string(c.Type) == condition && c.Status == want
	})
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

const conflist = `{"cniVersion":"1.0.0","name":"bench","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.212.0.0/24"}]]}}]}`

// conflistFact renames a conflist into place, as a CNI plugin's DaemonSet does.
func conflistFact(dir string) func(context.Context, bool) error {
	path := filepath.Join(dir, "10-bench.conflist")
	return func(_ context.Context, truth bool) error {
		if !truth {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove conflist: %w", err)
			}
			return nil
		}
		if err := os.WriteFile(path+".tmp", []byte(conflist), 0o600); err != nil {
			return fmt.Errorf("write conflist: %w", err)
		}
		return os.Rename(path+".tmp", path)
	}
}
