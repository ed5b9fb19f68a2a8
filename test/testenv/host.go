package testenv

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// forwardDialTimeout bounds the connection to a server of this machine, which is on loopback.
const forwardDialTimeout = 5 * time.Second

// Host is a machine on the machine: a network namespace with its own loopback and an address on a Network. Servers of
// this machine that a host needs are forwarded to the same port of the host's loopback, so that names and certificates
// are the same everywhere.
type Host struct {
	name    string
	address *net.IPNet
	link    string // this machine's end of the virtual link

	mu       sync.Mutex
	cut      bool
	forwards map[int]*forward
}

// IP is the host's address on the network, reachable from this machine.
func (h *Host) IP() string { return h.address.IP.String() }

// Namespace is the name of the host's network namespace, as "ip netns exec" takes it.
func (h *Host) Namespace() string { return h.name }

// namespace is Namespace, or empty for this machine.
func (h *Host) namespace() string {
	if h == nil {
		return ""
	}
	return h.name
}

// Forward makes a TCP port of this machine's loopback appear on the host's loopback. Doing it again does nothing.
func (h *Host) Forward(port int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.forwards[port] != nil {
		return nil
	}
	listener, err := listenInside(h.name, loopback(port))
	if err != nil {
		return fmt.Errorf("forward port %d to host %q: %w", port, h.name, err)
	}
	f := &forward{listener: listener, target: loopback(port), done: make(chan struct{}), conns: map[net.Conn]bool{}}
	h.forwards[port] = f
	go f.serve()
	return nil
}

// Cut takes the host off the network: forwarded connections are reset, new ones refused, its link is down.
func (h *Host) Cut() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut = true
	for _, f := range h.forwards {
		f.stop()
	}
	return h.setLink(netlink.LinkSetDown)
}

// Join puts the host back on the network after Cut.
func (h *Host) Join() error {
	h.mu.Lock()
	if !h.cut {
		h.mu.Unlock()
		return nil
	}
	h.cut = false
	ports := make([]int, 0, len(h.forwards))
	for port := range h.forwards {
		ports = append(ports, port)
	}
	clear(h.forwards)
	err := h.setLink(netlink.LinkSetUp)
	h.mu.Unlock()
	errs := []error{err}
	for _, port := range ports {
		errs = append(errs, h.Forward(port))
	}
	return errors.Join(errs...)
}

func (h *Host) setLink(set func(netlink.Link) error) error {
	link, err := netlink.LinkByName(h.link)
	if err != nil {
		return fmt.Errorf("find link %q: %w", h.link, err)
	}
	if err := set(link); err != nil {
		return fmt.Errorf("switch link %q: %w", h.link, err)
	}
	return nil
}

// close ends the forwards; the namespace goes with its network's workspace.
func (h *Host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.forwards {
		f.stop()
	}
	clear(h.forwards)
	return nil
}

// listenInside opens a listener in a network namespace. A socket stays in the namespace in which it was made.
func listenInside(namespace, address string) (net.Listener, error) {
	type result struct {
		listener net.Listener
		err      error
	}
	opened := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: see newNamespace
		handle, err := netns.GetFromName(namespace)
		if err != nil {
			opened <- result{err: fmt.Errorf("open network namespace %q: %w", namespace, err)}
			return
		}
		defer func() { _ = handle.Close() }()
		if err := netns.Set(handle); err != nil {
			opened <- result{err: fmt.Errorf("enter network namespace %q: %w", namespace, err)}
			return
		}
		listener, err := net.Listen("tcp", address) //nolint:noctx // a local listen does not block
		opened <- result{listener, err}
	}()
	r := <-opened
	return r.listener, r.err
}

// forward copies connections of one listener to one address.
type forward struct {
	listener net.Listener
	target   string
	done     chan struct{}

	mu      sync.Mutex
	stopped bool
	conns   map[net.Conn]bool
}

func (f *forward) serve() {
	var copies sync.WaitGroup
	defer close(f.done)
	defer copies.Wait()
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}
		copies.Go(func() { f.connect(client) })
	}
}

func (f *forward) connect(client net.Conn) {
	server, err := net.DialTimeout("tcp", f.target, forwardDialTimeout) //nolint:noctx // bounded by its time-out
	if err != nil {
		_ = client.Close()
		return
	}
	defer f.remember(client, server)()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // an end of either side is the end
			if tcp, ok := pair[0].(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // it may be closed already
			}
		})
	}
	both.Wait()
}

// remember lets stop close the connections, and returns what closes and forgets them.
func (f *forward) remember(conns ...net.Conn) (closeAll func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range conns {
		f.conns[conn] = true
		if f.stopped {
			_ = conn.Close()
		}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, conn := range conns {
			_ = conn.Close()
			delete(f.conns, conn)
		}
	}
}

// stop closes the listener and all connections, and returns when nothing is copied any more.
func (f *forward) stop() {
	f.mu.Lock()
	f.stopped = true
	_ = f.listener.Close()
	for conn := range f.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a plain close will do
		}
		_ = conn.Close()
	}
	f.mu.Unlock()
	<-f.done
}
