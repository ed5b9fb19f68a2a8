package testenv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"headstart.dev/test/testenv/internal/process"
	"headstart.dev/test/testenv/internal/workspace"
)

// Network is a bridge that joins Hosts with each other and with this machine. It leads nowhere else.
type Network struct {
	work   *workspace.Workspace
	bridge *netlink.Bridge
	prefix [3]byte // of the network's IPv4 addresses

	mu    sync.Mutex
	hosts []*Host
}

// StartNetwork makes a network that is taken away, with its hosts, when the test ends. It skips without root.
func StartNetwork(t testing.TB) *Network {
	t.Helper()
	RequireRoot(t)
	n, err := NewNetwork()
	if err != nil {
		t.Fatalf("make network: %v", err)
	}
	cleanUp(t, n)
	return n
}

// NewNetwork makes a network. The caller must Stop it.
func NewNetwork() (*Network, error) {
	work, err := workspace.New()
	if err != nil {
		return nil, err
	}
	n := &Network{work: work}
	if err := n.makeBridge(); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	return n, nil
}

func (n *Network) makeBridge() error {
	var err error
	if n.prefix, err = unusedPrefix(); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.work.Link("br")
	n.bridge = &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(n.bridge); err != nil {
		return fmt.Errorf("make bridge %q: %w", attrs.Name, err)
	}
	if err := netlink.AddrAdd(n.bridge, &netlink.Addr{IPNet: n.address(1)}); err != nil {
		return fmt.Errorf("give bridge %q its address: %w", attrs.Name, err)
	}
	if err := netlink.LinkSetUp(n.bridge); err != nil {
		return fmt.Errorf("set bridge %q up: %w", attrs.Name, err)
	}
	return nil
}

// unusedPrefix returns the first three bytes of a private IPv4 network that no link of this machine overlaps.
func unusedPrefix() ([3]byte, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	for errors.Is(err, netlink.ErrDumpInterrupted) {
		addrs, err = netlink.AddrList(nil, netlink.FAMILY_V4) // an address came or went meanwhile
	}
	if err != nil {
		return [3]byte{}, fmt.Errorf("list addresses: %w", err)
	}
	for range 100 {
		prefix := [3]byte{10, byte(64 + rand.IntN(31)), byte(rand.IntN(256))} //nolint:gosec // no secret; 10.96 is for services
		taken := false
		for _, addr := range addrs {
			taken = taken || addr.Contains(net.IPv4(prefix[0], prefix[1], prefix[2], 1))
		}
		if !taken {
			return prefix, nil
		}
	}
	return [3]byte{}, errors.New("find an unused IPv4 network: none of 100 tried is free")
}

// address returns the network's address with the given last byte.
func (n *Network) address(last byte) *net.IPNet {
	return &net.IPNet{IP: net.IPv4(n.prefix[0], n.prefix[1], n.prefix[2], last), Mask: net.CIDRMask(24, 32)}
}

// NewHost adds a machine to the network: a network namespace with an address, and a loopback of its own.
func (n *Network) NewHost(ctx context.Context) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	index := len(n.hosts) + 1
	if index > 200 {
		return nil, errors.New("add a host: the network has 200 already")
	}
	h := &Host{
		name: n.work.Name(fmt.Sprintf("host%d", index)), address: n.address(byte(index + 1)),
		link: n.work.Link(fmt.Sprintf("v%d", index)), forwards: map[int]*forward{},
	}
	handle, err := newNamespace(h.name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	if err := h.connect(n, handle); err != nil {
		return nil, fmt.Errorf("connect host %q: %w", h.name, err)
	}
	n.hosts = append(n.hosts, h)
	return h, nil
}

// newNamespace makes a named network namespace. It sacrifices a thread: one that has changed its namespace must not run
// other goroutines.
func newNamespace(name string) (netns.NsHandle, error) {
	type result struct {
		handle netns.NsHandle
		err    error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		handle, err := netns.NewNamed(name)
		made <- result{handle, err}
	}()
	r := <-made
	if r.err != nil {
		return 0, fmt.Errorf("make network namespace %q: %w", name, r.err)
	}
	return r.handle, nil
}

// connect joins the host to the bridge by a pair of virtual links and sets its side up.
func (h *Host) connect(n *Network, handle netns.NsHandle) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = h.link, n.bridge.Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(handle)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make link %q: %w", h.link, err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("set link %q up: %w", h.link, err)
	}
	inside, err := netlink.NewHandleAt(handle)
	if err != nil {
		return fmt.Errorf("open netlink inside: %w", err)
	}
	defer inside.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := inside.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find link %q inside: %w", name, err)
		}
		if name == "eth0" {
			if err := inside.AddrAdd(link, &netlink.Addr{IPNet: h.address}); err != nil {
				return fmt.Errorf("give the host its address: %w", err)
			}
		}
		if err := inside.LinkSetUp(link); err != nil {
			return fmt.Errorf("set link %q up inside: %w", name, err)
		}
	}
	if err := inside.RouteAdd(&netlink.Route{Gw: n.address(1).IP}); err != nil {
		return fmt.Errorf("add the default route: %w", err)
	}
	return nil
}

// Stop takes the network and its hosts away. It is safe to call again.
func (n *Network) Stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(append(errs, n.work.Close())...)
}

func (n *Network) processes() []*process.Process { return nil }
