package testenv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports come from below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one between its
// choice and its use, or while a server that keeps its port is restarted.
const firstPort, lastPort = 20000, 32000

var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// freePort returns a TCP port of loopback that nobody listens on and that this program has not given out before.
func freePort(ctx context.Context) (int, error) {
	given.Lock()
	defer given.Unlock()
	var config net.ListenConfig
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // no secret
		if given.ports[port] {
			continue
		}
		listener, err := config.Listen(ctx, "tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return 0, fmt.Errorf("give back port %d: %w", port, err)
		}
		given.ports[port] = true
		return port, nil
	}
	return 0, errors.New("find a free port: none of 1000 tried is free")
}

// twoFreePorts returns two different free ports.
func twoFreePorts(ctx context.Context) ([2]int, error) {
	var ports [2]int
	for i := range ports {
		port, err := freePort(ctx)
		if err != nil {
			return ports, err
		}
		ports[i] = port
	}
	return ports, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
