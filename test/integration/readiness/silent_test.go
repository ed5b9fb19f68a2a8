package readiness_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness/connection"
	"headstart.dev/readiness/nodewatch"
)

// balancer passes connections on to one of several servers. Those that are open stay where they are.
type balancer struct {
	listener net.Listener

	mu     sync.Mutex
	server string
	open   []net.Conn
}

func balance(t *testing.T, server string) *balancer {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &balancer{listener: listener, server: server}
	ctx := context.WithoutCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { b.pass(ctx, from) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		b.mu.Lock()
		for _, c := range b.open {
			_ = c.Close()
		}
		b.mu.Unlock()
		running.Wait()
	})
	return b
}

func (b *balancer) sendTo(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server = server
}

func (b *balancer) pass(ctx context.Context, from net.Conn) {
	b.mu.Lock()
	server := b.server
	b.mu.Unlock()
	to, err := (&net.Dialer{}).DialContext(ctx, "tcp", server)
	if err != nil {
		_ = from.Close()
		return
	}
	b.mu.Lock()
	b.open = append(b.open, from, to)
	b.mu.Unlock()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
		})
	}
	both.Wait()
}

// TestAWatchOfAnAPIServerThatHangsIsBegunAnew has one of two API servers behind a balancer stop without closing its
// connections.
func TestAWatchOfAnAPIServerThatHangsIsBegunAnew(t *testing.T) {
	second, err := plane.StartSecondAPIServer(t.Context())
	require.NoError(t, err)
	config := plane.Config()
	first := strings.TrimPrefix(config.Host, "https://")
	b := balance(t, second)
	config.Host = "https://" + b.listener.Addr().String()
	// The bounds as shipped are minutes, because a bookmark comes once in one.
	config.Wrap(connection.Limits{Silent: 3 * time.Second, Unbookmarked: time.Minute, Answer: 3 * time.Second}.Bounded)
	nodes, err := nodewatch.New(config)
	require.NoError(t, err)
	seen := make(chan string, 1000)
	nodewatch.Follow(nodes, nodewatch.Handler[string]{
		Read: func(n *corev1.Node) string { return n.Name }, Set: func(name string) { seen <- name }, Delete: func(string) {},
	})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = nodes.Start(ctx) })
	t.Cleanup(running.Wait)
	t.Cleanup(stop)
	c, err := client.New(plane.Config(), client.Options{})
	require.NoError(t, err)
	appears := func(name string) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		require.NoError(t, c.Create(t.Context(), node))
		t.Cleanup(func() { _ = c.Delete(context.WithoutCancel(t.Context()), node) })
		require.Eventually(t, func() bool {
			select {
			case got := <-seen:
				return got == name
			default:
				return false
			}
		}, time.Minute, time.Millisecond, "nobody was told of %s", name)
	}
	appears("before-it-hangs")

	require.NoError(t, plane.FreezeSecondAPIServer())
	t.Cleanup(func() { require.NoError(t, plane.ThawSecondAPIServer()) })
	b.sendTo(first)
	appears("while-it-hangs")
	require.NoError(t, nodes.Ready(nil))
}
