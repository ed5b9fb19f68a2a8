package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull/containerd/internal/registry"
)

// callTimeout bounds a call to containerd that moves no image data. A containerd under load answers in milliseconds.
const callTimeout = 20 * time.Second

// node is a connection to containerd with what was found there.
type node struct {
	client    *client.Client
	cri       criapi.ImageServiceClient // containerd's own
	images    criapi.ImageServiceClient // the one that the kubelet pulls at, which may be a snapshotter's
	proxy     *grpc.ClientConn          // to the snapshotter where it serves images; nil otherwise
	namespace string
	address   string // of containerd's socket
	found     Discovery
	registry  *registry.Client
	keepFree  room
	ledger    *ledger
	guards    guards
	staging   *staging // nil where layers cannot be staged, for the reason below
	noStaging string
	pinOwner  string
	holds     *holds
	committed map[string]bool // chain IDs that a containerd which is not up has; client and cri are nil then
	log       logr.Logger
}

// connect returns the present connection or makes one and discovers what is behind it.
func (s *Store) connect(ctx context.Context) (*node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node != nil {
		return s.node, nil
	}
	if info, err := os.Stat(s.cfg.Address); err != nil {
		return nil, fmt.Errorf("connect to containerd: no socket at %s: %w; %w", s.cfg.Address, errors.Unwrap(err), errNotUp)
	} else if info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("connect to containerd: %s is no socket", s.cfg.Address)
	}
	c, err := client.New(s.cfg.Address, client.WithDefaultNamespace(s.cfg.Namespace), client.WithTimeout(callTimeout))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", s.cfg.Address, err)
	}
	conn, ok := c.Conn().(grpc.ClientConnInterface)
	if !ok {
		return nil, fmt.Errorf("connect to containerd at %s: its client has no gRPC connection", s.cfg.Address)
	}
	n := &node{
		ledger: &s.ledger, client: c, cri: criapi.NewImageServiceClient(conn), namespace: s.cfg.Namespace, address: s.cfg.Address,
		pinOwner: s.cfg.PinOwner, holds: &s.holds, log: s.cfg.Log,
	}
	discoverCtx, cancel := context.WithTimeout(n.context(ctx), callTimeout)
	defer cancel()
	if n.found, err = n.discover(discoverCtx, s.cfg.Snapshotter); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to containerd at %s: %w", s.cfg.Address, err), n.close())
	}
	n.registry = s.registryFor(n.found.HostDirs, n.proxySettings(discoverCtx))
	n.keepFree = room{bytes: s.cfg.MinFreeBytes, percent: s.cfg.MinFreePercent}
	n.noStaging = s.openStaging(n)
	s.cfg.Log.Info("containerd is connected", "version", n.found.Version, "snapshotter", n.found.Snapshotter,
		"snapshotterFrom", n.found.SnapshotterFrom, "discardLayers", n.found.DiscardLayers, "settingsFrom", n.found.SettingsFrom,
		"hostDirs", n.found.HostDirs, "capabilities", n.found.Capabilities, "imageEndpoint", n.found.ImageEndpoint)
	s.node = n
	return n, nil
}

// registryFor returns the client for registries, the same for as long as hosts.toml lies where it did: its buffers bound
// the memory of all pulls, whichever connection to containerd they belong to. The caller holds mu.
func (s *Store) registryFor(hostDirs []string, proxies string) *registry.Client {
	if s.registry == nil || !slices.Equal(s.hostDirs, hostDirs) || s.proxies != proxies {
		s.hostDirs, s.proxies = hostDirs, proxies
		s.registry = registry.New(registry.Config{
			HostDirs:    hostDirs,
			Credentials: s.cfg.Credentials,
			UserAgent:   "headstart-agent",
			Connections: s.cfg.MaxConcurrentDownloads,
			Chunk:       s.cfg.ChunkSize,
			Bandwidth:   s.cfg.Bandwidth,
			Proxy:       proxyFrom(proxies),
			Log:         s.cfg.Log,
		})
	}
	return s.registry
}

// openStaging finds out whether layers can be unpacked next to the snapshots, and says why not. The folder outlives
// connections: layers that wait for containerd to come back lie in it. The caller holds mu.
func (s *Store) openStaging(n *node) (reason string) {
	switch enforcing, err := os.ReadFile("/sys/fs/selinux/enforce"); {
	case !n.found.overlay():
		return "the snapshotter keeps its layers in another way than overlayfs"
	case n.found.SnapshotterRoot == "":
		return "the snapshotter does not say where its files are"
	case err == nil && strings.TrimSpace(string(enforcing)) == "1":
		// Files would get the label of this process's folder and not that of the snapshotter's.
		return "SELinux is enforcing"
	}
	if s.staging != nil && !s.staging.usable(n.found.SnapshotterRoot) {
		_ = s.staging.close() // moved away under us, as EKS does when it makes an array of the local disks
		s.staging = nil
	}
	if s.staging == nil {
		var err error
		if s.staging, err = openStaging(n.found.SnapshotterRoot); err != nil {
			s.staging = nil
			return err.Error()
		}
	}
	n.staging = s.staging
	return ""
}

// forget drops the connection when containerd has gone: the next pull discovers what comes back.
func (s *Store) forget(n *node, err error) {
	if !errdefs.IsUnavailable(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == n {
		s.node = nil // left open: other pulls may still end well on it, and grpc closes it with the last of them
	}
}

// close ends the connections.
func (n *node) close() error {
	if n.proxy == nil {
		return n.client.Close()
	}
	return errors.Join(n.client.Close(), n.proxy.Close())
}

// context adds the namespace, and takes the voice of containerd's client.
func (n *node) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(quiet(ctx), n.namespace)
}
