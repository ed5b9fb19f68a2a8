package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/test/testenv/internal/binaries"
	"headstart.dev/test/testenv/internal/process"
	"headstart.dev/test/testenv/internal/workspace"
)

const (
	nodeTimeout = 60 * time.Second
	nodePeriod  = 50 * time.Millisecond
	// kubeletStopTimeout: an orderly kubelet leaves pods alone and ends within a second.
	kubeletStopTimeout = 10 * time.Second
)

// NodeConfig says how a kubelet registers its node. The zero value is a node "node1" without taints.
type NodeConfig struct {
	// Name of the node; empty means "node1".
	Name string
	// Labels and Taints are set at registration.
	Labels map[string]string
	Taints []corev1.Taint
	// CNI writes the network configuration before the start. Otherwise the node is NotReady until WriteCNI.
	CNI bool
	// ConfigDir is a folder of kubelet configuration drop-ins (*.conf); empty means none.
	ConfigDir string
	// KubeletConfig is YAML that overrides fields of the KubeletConfiguration.
	KubeletConfig string
	// ExtraArgs are appended to the kubelet's flags.
	ExtraArgs []string
	// Progress receives lines while servers are built; nil means stderr.
	Progress io.Writer
}

// Node is a kubelet beside one containerd. It has its own root folder, ports and cgroup. Device plugins are the exception:
// their folder is fixed in the kubelet, so of several nodes on this machine the last started has it.
type Node struct {
	cfg        NodeConfig
	ctd        *Containerd
	work       *workspace.Workspace
	client     kubernetes.Interface
	binDir     string
	kubeconfig string
	ip         string
	port       int
	healthPort int

	mu      sync.Mutex
	kubelet *process.Process
}

// StartNode starts a kubelet and returns when its Node object exists; it may not be Ready yet. The node is stopped, with
// its pods, when the test ends. It skips without root.
func StartNode(t testing.TB, cp *ControlPlane, ctd *Containerd, cfg NodeConfig) *Node {
	t.Helper()
	RequireRoot(t)
	n, err := NewNode(t.Context(), cp, ctd, cfg)
	if err != nil {
		t.Fatalf("start node: %v", err)
	}
	cleanUp(t, n)
	return n
}

// NewNode starts a kubelet as StartNode does. The caller must Stop it before the containerd; on error nothing is left
// running. ctx bounds the start.
func NewNode(ctx context.Context, cp *ControlPlane, ctd *Containerd, cfg NodeConfig) (*Node, error) {
	if cfg.Name == "" {
		cfg.Name = "node1"
	}
	if cfg.Progress == nil {
		cfg.Progress = os.Stderr
	}
	binDir, err := binaries.Ensure(ctx, cfg.Progress, binaries.Kubelet)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cp.Config())
	if err != nil {
		return nil, fmt.Errorf("make a client for node %q: %w", cfg.Name, err)
	}
	work, err := workspace.New()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, ctd: ctd, work: work, client: client, binDir: binDir}
	if err := n.start(ctx, cp); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	return n, nil
}

func (n *Node) start(ctx context.Context, cp *ControlPlane) error {
	ports, err := twoFreePorts(ctx)
	if err != nil {
		return err
	}
	n.port, n.healthPort = ports[0], ports[1]
	if err := n.connect(cp); err != nil {
		return err
	}
	n.kubeconfig = cp.Kubeconfig("system:node:"+n.cfg.Name, "system:nodes")
	if n.cfg.CNI {
		if err := n.ctd.WriteCNI(); err != nil {
			return err
		}
	}
	if err := makeCgroup(n.cgroup()); err != nil {
		return err
	}
	if err := n.writeConfig(cp.authority.Cert()); err != nil {
		return err
	}
	if err := n.RestartKubelet(ctx); err != nil {
		return err
	}
	return n.WaitRegistered(ctx)
}

// connect finds the node's address and, on a Host, brings the API server there.
func (n *Node) connect(cp *ControlPlane) error {
	if host := n.ctd.cfg.Host; host != nil {
		n.ip = host.IP()
		return host.Forward(cp.serverPort)
	}
	var err error
	n.ip, err = machineIP()
	return err
}

// machineIP returns an IPv4 address of this machine that is not loopback: the kubelet reports no other.
func machineIP() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list this machine's addresses: %w", err)
	}
	for _, addr := range addrs {
		if network, ok := addr.(*net.IPNet); ok && network.IP.To4() != nil && network.IP.IsGlobalUnicast() {
			return network.IP.String(), nil
		}
	}
	return "", errors.New("find this machine's address: it has only loopback; give ContainerdConfig a Host")
}

// Name is the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// Kubeconfig is the path of the kubelet's kubeconfig: its user is the node.
func (n *Node) Kubeconfig() string { return n.kubeconfig }

// RootDir is the kubelet's root folder, /var/lib/kubelet on a real node.
func (n *Node) RootDir() string { return n.work.Path("kubelet") }

// IP is the node's address, reachable from this machine.
func (n *Node) IP() string { return n.ip }

// HealthURL is the kubelet's health check, on the loopback of the node's Host or of this machine.
func (n *Node) HealthURL() string { return "http://" + loopback(n.healthPort) + "/healthz" }

// KubeletPort is the port of the kubelet's own API, on IP.
func (n *Node) KubeletPort() int { return n.port }

// Containerd is the runtime of the node.
func (n *Node) Containerd() *Containerd { return n.ctd }

// KillKubelet ends the kubelet with SIGKILL. Pods go on running.
func (n *Node) KillKubelet() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kubelet == nil {
		return nil
	}
	return n.kubelet.Kill()
}

// RestartKubelet stops the kubelet in good order, if it runs, and starts it again on the same data.
func (n *Node) RestartKubelet(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kubelet != nil {
		if err := n.kubelet.Stop(); err != nil {
			return err
		}
	}
	args := []string{
		"--config=" + n.work.Path("kubelet.yaml"), "--kubeconfig=" + n.kubeconfig, "--root-dir=" + n.RootDir(),
		"--hostname-override=" + n.cfg.Name, "--node-ip=" + n.ip, "--cert-dir=" + n.work.Path("pki"), "--v=2",
	}
	if n.cfg.ConfigDir != "" {
		args = append(args, "--config-dir="+n.cfg.ConfigDir)
	}
	if len(n.cfg.Labels) > 0 {
		args = append(args, "--node-labels="+labelFlag(n.cfg.Labels))
	}
	kubelet, err := process.Start(ctx, process.Config{
		Name: binaries.Kubelet, Path: n.binDir + "/" + binaries.Kubelet, Args: append(args, n.cfg.ExtraArgs...),
		Env: []string{n.work.Env()}, LogPath: n.work.Path("kubelet.log"), NetworkNamespace: n.ctd.cfg.Host.namespace(),
		StopTimeout: kubeletStopTimeout,
	})
	if err != nil {
		return err
	}
	n.kubelet = kubelet
	return nil
}

// WaitRegistered returns when the Node object exists.
func (n *Node) WaitRegistered(ctx context.Context) error {
	return n.wait(ctx, "is registered", func(*corev1.Node) bool { return true })
}

// WaitReady returns when the node's condition Ready is True.
func (n *Node) WaitReady(ctx context.Context) error {
	return n.wait(ctx, "is Ready", func(node *corev1.Node) bool {
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return condition.Status == corev1.ConditionTrue
			}
		}
		return false
	})
}

// wait returns when the Node object satisfies want, or with an error that holds the end of the kubelet's log.
func (n *Node) wait(ctx context.Context, what string, want func(*corev1.Node) bool) error {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	kubelet := n.process()
	tick := time.NewTicker(nodePeriod)
	defer tick.Stop()
	for {
		node, err := n.client.CoreV1().Nodes().Get(ctx, n.cfg.Name, metav1.GetOptions{})
		if err == nil && want(node) {
			return nil
		}
		select {
		case <-kubelet.Done():
			return fmt.Errorf("wait until node %q %s: the kubelet has ended; the end of its log:\n%s", n.cfg.Name, what, kubelet.LogTail(4<<10))
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait until node %q %s: %w; the end of the kubelet's log:\n%s",
				n.cfg.Name, what, ctx.Err(), kubelet.LogTail(4<<10)), err)
		case <-tick.C:
		}
	}
}

// Stop ends the kubelet and the pods, and removes their data. It is safe to call again.
func (n *Node) Stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var err error
	if n.kubelet != nil {
		err = n.kubelet.Stop()
	}
	return errors.Join(err, n.work.Close())
}

func (n *Node) process() *process.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kubelet
}

func (n *Node) processes() []*process.Process {
	if kubelet := n.process(); kubelet != nil {
		return []*process.Process{kubelet}
	}
	return nil
}

func (n *Node) cgroup() string { return n.work.Name("node") }
