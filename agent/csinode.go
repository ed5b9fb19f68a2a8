package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	typedresourcev1 "k8s.io/client-go/kubernetes/typed/resource/v1"
	typedstoragev1 "k8s.io/client-go/kubernetes/typed/storage/v1"

	"headstart.dev/agent/internal/kubelet"
	"headstart.dev/agent/internal/nodestatus"
	"headstart.dev/agent/probe"
)

// registeredDrivers is where a kubelet writes each driver that it registers, just before it writes its CSINode. A watch
// of the Node so tells when to ask for the CSINode, which a kubelet's credentials may read and not watch.
// Source: kubernetes pkg/volume/csi/nodeinfomanager/nodeinfomanager.go@v1.37.2.
const registeredDrivers = "csi.volume.kubernetes.io/nodeid"

// CSINode is what the API server says of the drivers that this node's kubelet has registered, and of the devices that DRA
// drivers have published for it. It is safe for concurrent use.
type CSINode struct {
	target nodestatus.Target
	// dials says that nobody connects for it, so that it does so itself.
	dials bool

	mu      sync.Mutex
	client  clients
	name    string // empty while not connected
	epoch   string
	changed chan struct{}
}

var (
	_ probe.Registrations = (*CSINode)(nil)
	_ probe.Slices        = (*CSINode)(nil)
)

var errNotConnected = errors.New("not connected yet")

// NewCSINode returns one that connects when it is asked, for a look without a running agent.
func NewCSINode(cfg Config) *CSINode {
	// One that cannot be found is an error when it is needed.
	name, _ := kubelet.NodeName()
	c := newCSINode(nodestatus.Target{Kubeconfig: cfg.Kubeconfig, NodeName: cfg.NodeName, Fallback: name})
	c.dials = true
	return c
}

func newCSINode(target nodestatus.Target) *CSINode {
	return &CSINode{target: target, changed: make(chan struct{})}
}

// Registered implements probe.Registrations.
func (c *CSINode) Registered(ctx context.Context, driver string) (bool, error) {
	client, name, err := c.connected(ctx)
	if err != nil {
		return false, err
	}
	node, err := client.nodes.CSINodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("get csinode %s: %w", name, err)
	}
	return slices.ContainsFunc(node.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == driver }), nil
}

// Devices implements probe.Slices. A node's own credentials may list the slices of its node alone.
func (c *CSINode) Devices(ctx context.Context, driver string) (devices int, complete bool, err error) {
	client, name, err := c.connected(ctx)
	if err != nil {
		return 0, false, err
	}
	list, err := client.slices.ResourceSlices().List(ctx, metav1.ListOptions{FieldSelector: fields.SelectorFromSet(fields.Set{
		resourcev1.ResourceSliceSelectorNodeName: name, resourcev1.ResourceSliceSelectorDriver: driver,
	}).String()})
	if err != nil {
		return 0, false, fmt.Errorf("list resourceslices of node %s: %w", name, err)
	}
	type pool struct{ generation, slices, wanted, devices int64 }
	pools := map[string]pool{}
	for i := range list.Items {
		spec := &list.Items[i].Spec
		p := pools[spec.Pool.Name]
		if spec.Pool.Generation > p.generation {
			p = pool{generation: spec.Pool.Generation}
		}
		if spec.Pool.Generation == p.generation {
			p.slices++
			p.wanted = spec.Pool.ResourceSliceCount
			p.devices += int64(len(spec.Devices))
		}
		pools[spec.Pool.Name] = p
	}
	complete = true
	for _, p := range pools {
		devices += int(p.devices)
		complete = complete && p.slices >= p.wanted
	}
	return devices, complete, nil
}

func (c *CSINode) connected(ctx context.Context) (clients, string, error) {
	if !nodestatus.Configured(c.target) {
		return clients{}, "", probe.ErrNoAPI
	}
	c.mu.Lock()
	client, name := c.client, c.name
	c.mu.Unlock()
	if name != "" {
		return client, name, nil
	}
	if !c.dials {
		return clients{}, "", errNotConnected
	}
	connection, err := nodestatus.Connect(ctx, c.target)
	switch {
	case err != nil:
		return clients{}, "", err
	case connection.Name == "":
		return clients{}, "", errors.New("find the node's name: set nodeName")
	}
	if err := c.connect(connection); err != nil {
		return clients{}, "", err
	}
	return c.connected(ctx)
}

// clients are those of the resources that are asked for, and no more: a whole clientset would double the binary.
type clients struct {
	nodes  typedstoragev1.CSINodesGetter
	slices typedresourcev1.ResourceSlicesGetter
}

// connect takes a connection that replaces the one before.
func (c *CSINode) connect(connection nodestatus.Connected) error {
	nodes, err := typedstoragev1.NewForConfig(connection.Credentials)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	resources, err := typedresourcev1.NewForConfig(connection.Credentials)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.name == ""
	c.client, c.name = clients{nodes: nodes, slices: resources}, connection.Name
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
	return fmt.Sprintf("%s %t", c.epoch, c.name != ""), c.changed
}
