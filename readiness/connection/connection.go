// Package connection says how a process talks to the API server: over which connections, and how soon it notices that
// one of them is dead or silent. Start from WatchesApart.
package connection

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
)

// WatchesApart returns a copy of config whose watches go over HTTP/1.1, a connection each, and whose other requests go
// as before. Every client that is made from the copy does so, whoever makes it: typed, dynamic, metadata, a cache.
//
// On HTTP/2 a watch shares its connection with the answers to all other requests, and beside many short ones it was seen
// to stall for minutes (golang.org/x/net v0.59 on the server's side, v0.60 on ours). TCP's keep-alive probes take the
// place of HTTP/2's pings. What watches a few objects and writes seldom, such as an agent, does not need it: a second
// connection for each of 5,000 nodes would cost the API server more than it saves. Its watches are Bounded all the same, as
// these are.
func WatchesApart(config *rest.Config) (*rest.Config, error) {
	watching := rest.CopyConfig(config)
	watching.NextProtos = []string{"http/1.1"}
	if watching.Dial == nil {
		watching.Dial = Dialer().DialContext
	}
	watches, err := rest.TransportFor(watching)
	if err != nil {
		return nil, fmt.Errorf("make connection for watches: %w", err)
	}
	apart := rest.CopyConfig(config)
	apart.Wrap(func(next http.RoundTripper) http.RoundTripper { return split{watches: Bounded(watches), others: next} })
	return apart, nil
}

// Dialer notices within half a minute that the API server's machine is gone.
func Dialer() *net.Dialer {
	return &net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4,
	}}
}

const dialTimeout = 10 * time.Second

// split sends watches one way and all else another.
type split struct{ watches, others http.RoundTripper }

// RoundTrip sends one request.
func (s split) RoundTrip(r *http.Request) (*http.Response, error) {
	if isWatch(r) {
		return s.watches.RoundTrip(r)
	}
	return s.others.RoundTrip(r)
}

func isWatch(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	switch r.URL.Query().Get("watch") {
	case "true", "1":
		return true
	}
	return false
}
