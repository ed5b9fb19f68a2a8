package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedstoragev1 "k8s.io/client-go/kubernetes/typed/storage/v1"

	"headstart.dev/agent/internal/nodestatus"
	"headstart.dev/agent/probe"
)

// registeredDrivers is where a kubelet writes each driver that it registers, just before it writes its CSINode. A watch
// of the Node so tells when to ask for the CSINode, which a kubelet's credentials may read and not watch.
// Source: kubernetes pkg/volume/csi/nodeinfomanager/nodeinfomanager.go@v1.37.2.
const registeredDrivers = "csi.volume.kubernetes.io/nodeid"

// CSINode is what the API server says of the drivers that this node's kubelet has registered. It is safe for concurrent
// use.
type CSINode struct {
	target nodestatus.Target
	// dials says that nobody connects for it, so that it does so itself.
	dials bool

	mu      sync.Mutex
	client  typedstoragev1.CSINodeInterface
	name    string
	epoch   string
	changed chan struct{}
}

var _ probe.Registrations = (*CSINode)(nil)

var errNotConnected = errors.New("not connected yet")

// NewCSINode returns one that connects when it is asked, for a look without a running agent.
func NewCSINode(cfg Config) *CSINode {
	c := newCSINode(nodestatus.Target{Kubeconfig: cfg.Kubeconfig, NodeName: cfg.NodeName})
	c.dials = true
	return c
}

func newCSINode(target nodestatus.Target) *CSINode {
	return &CSINode{target: target, changed: make(chan struct{})}
}

// Registered implements probe.Registrations.
func (c *CSINode) Registered(ctx context.Context, driver string) (bool, error) {
	if !nodestatus.Configured(c.target) {
		return false, probe.ErrNoAPI
	}
	client, name, err := c.connected(ctx)
	if err != nil {
		return false, err
	}
	node, err := client.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("get csinode %s: %w", name, err)
	}
	return slices.ContainsFunc(node.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == driver }), nil
}

func (c *CSINode) connected(ctx context.Context) (typedstoragev1.CSINodeInterface, string, error) {
	c.mu.Lock()
	client, name := c.client, c.name
	c.mu.Unlock()
	if client != nil {
		return client, name, nil
	}
	if !c.dials {
		return nil, "", errNotConnected
	}
	connection, err := nodestatus.Connect(ctx, c.target)
	if err != nil {
		return nil, "", err
	}
	if err := c.connect(connection); err != nil {
		return nil, "", err
	}
	return c.connected(ctx)
}

// connect takes a connection that replaces the one before.
func (c *CSINode) connect(connection nodestatus.Connected) error {
	client, err := typedstoragev1.NewForConfig(connection.Credentials)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.client == nil
	c.client, c.name = client.CSINodes(), connection.Name
	if first {
		c.signal()
	}
	return nil
}

// nodeSeen takes every state of the Node.
func (c *CSINode) nodeSeen(node *corev1.Node) {
	epoch := string(node.UID) + " " + node.Annotations[registeredDrivers]
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		c.epoch = epoch
		c.signal()
	}
}

// signal tells those that wait. The caller holds mu.
func (c *CSINode) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Changed implements probe.Registrations.
func (c *CSINode) Changed() (epoch string, next <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%s %t", c.epoch, c.client != nil), c.changed
}
