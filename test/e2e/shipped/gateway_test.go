package shipped_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"k8s.io/client-go/rest"

	"headstart.dev/test/testenv"
)

// shortestWatch is for how many seconds client-go's watches ask, at least. Source: k8s.io/client-go/tools/cache/reflector.go.
const shortestWatch = 300

// gateway is the API server's Service, as kube-proxy would make it lead to the API server, from this machine and from its
// pods. It counts what each account asks, and can be slow.
type gateway struct {
	mu     sync.Mutex
	counts map[string]int
	delay  time.Duration
	slow   int // lists that were slow and answered
	// ended counts watches that lived as long as their clients had asked: each is begun anew, and that is not counted.
	ended map[string]int
}

func startGateway(t *testing.T, cp *testenv.ControlPlane) *gateway {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	addr, err := netlink.ParseAddr(serviceIP + "/32")
	require.NoError(t, err)
	if err := netlink.AddrAdd(lo, addr); err == nil {
		t.Cleanup(func() { _ = netlink.AddrDel(lo, addr) })
	}
	var listener net.Listener
	eventually(t, func() bool {
		var lc net.ListenConfig
		listener, err = lc.Listen(t.Context(), "tcp", serviceIP+":443")
		return err == nil
	}, "another test has the address")
	certificate, err := cp.ServingCertificate()
	require.NoError(t, err)
	backend, err := url.Parse(cp.Config().Host)
	require.NoError(t, err)
	// Who asks is told by the token; the gateway has no right of its own.
	transport, err := rest.TransportFor(&rest.Config{Host: backend.String(), TLSClientConfig: rest.TLSClientConfig{CAData: cp.Config().CAData}})
	require.NoError(t, err)
	g := &gateway{counts: map[string]int{}, ended: map[string]int{}}
	proxy := httputil.NewSingleHostReverseProxy(backend)
	proxy.Transport, proxy.FlushInterval, proxy.ErrorLog = transport, -1, log.New(io.Discard, "", 0)
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(proxy, w, r) }),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	return g
}

func (g *gateway) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	list := r.Method == http.MethodGet && (r.URL.Query().Has("limit") || r.URL.Query().Has("sendInitialEvents") || r.URL.Query().Get("resourceVersion") == "0" && !r.URL.Query().Has("watch"))
	delay := g.count(r)
	if list && delay > 0 {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
		g.mu.Lock()
		g.slow++
		g.mu.Unlock()
	}
	began := time.Now()
	next.ServeHTTP(w, r)
	g.watched(r, time.Since(began))
}

// count counts a request and returns by how long lists are late now.
func (g *gateway) count(r *http.Request) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if key := key(r); g.ended[key] > 0 {
		g.ended[key]--
	} else {
		g.counts[key]++
	}
	return g.delay
}

// watched takes note of a watch that has ended when its client wanted it to.
func (g *gateway) watched(r *http.Request, lived time.Duration) {
	seconds, err := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	if err != nil || seconds < shortestWatch || lived < time.Duration(seconds)*time.Second-time.Second {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended[key(r)]++
}

// key is a request as it is counted.
func key(r *http.Request) string { return account(r) + " " + r.Method + " " + what(r) }

// what is the resource that is asked for, watches apart.
func what(r *http.Request) string {
	if r.URL.Query().Get("watch") != "" && r.URL.Query().Get("watch") != "false" {
		return "watch " + r.URL.Path
	}
	return r.URL.Path
}

// account is the name in the request's token, unverified: the API server verifies it.
func account(r *http.Request) string {
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	if len(parts) != 3 {
		return "nobody"
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Subject string `json:"sub"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return "nobody"
	}
	return claims.Subject[strings.LastIndex(claims.Subject, ":")+1:]
}

// reset forgets the counts.
func (g *gateway) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.counts)
}

// of returns what an account has asked since reset, without what may be: its lease.
func (g *gateway) of(account string) map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := maps.Clone(g.counts)
	maps.DeleteFunc(out, func(key string, _ int) bool {
		return !strings.HasPrefix(key, account+" ") || strings.Contains(key, "/leases/headstart-controller")
	})
	return out
}

func (g *gateway) setDelay(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.delay, g.slow = d, 0
}

// answeredSlowly is how many lists were answered since setDelay.
func (g *gateway) answeredSlowly() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slow
}

func (g *gateway) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Sprint(g.counts)
}
