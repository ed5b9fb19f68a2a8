package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// listenRetry is how soon an address that was taken is tried again.
	listenRetry = 5 * time.Second
	// lockCheck is how soon a lock that was taken away is missed where no event tells.
	lockCheck = 30 * time.Second
)

// handler serves /metrics, /healthz and /readyz of this agent.
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !a.state.reported() {
			http.Error(w, "nothing is published yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}

// publicHandler is what the metrics' address serves. An agent that stands by answers with what the one that works says:
// who scrapes the DaemonSet's pods gets the node's numbers, whichever agent works for it.
func (a *Agent) publicHandler() http.Handler {
	own := a.handler()
	forward := func(name string, otherwise http.Handler) http.Handler {
		return &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "agent"}) },
			Transport: socketTransport(a.config.StateDir, name),
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) {
				otherwise.ServeHTTP(w, r)
			},
		}
	}
	standby := forward(a.ownSocket(), own)
	if machine := socketName(machineLock); machine != a.ownSocket() {
		standby = forward(a.ownSocket(), forward(machine, own))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.working.Load() || r.URL.Path == "/healthz" {
			own.ServeHTTP(w, r)
			return
		}
		standby.ServeHTTP(w, r)
	})
}

func newServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
}

// serveMetrics serves at the metrics' address until ctx ends. Nothing that goes wrong there ends anything else: it is
// said once, and tried again.
func (a *Agent) serveMetrics(ctx context.Context) {
	if a.config.Metrics.BindAddress == "0" {
		return
	}
	handler := a.publicHandler()
	told := false
	for ctx.Err() == nil {
		listeners, err := listenAll(ctx, a.config.Metrics.BindAddress)
		switch {
		case err != nil && !told && ctx.Err() == nil:
			told = true
			a.log.Info("metrics are not served yet, tries again: free metrics.bindAddress, choose another, or \"0\" for none",
				"address", a.config.Metrics.BindAddress, "cause", err.Error())
		case err == nil && told:
			told = false
			a.log.Info("metrics are served", "address", a.config.Metrics.BindAddress)
		}
		if err == nil {
			err = serveAll(ctx, handler, listeners)
			if err != nil && ctx.Err() == nil {
				a.log.Error(err, "serve metrics")
			}
		}
		timer := time.NewTimer(listenRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

// listenAll listens on an address. Where it means every address of the machine, and one of them is taken, it listens on
// the others: an agent of the host has the loopback address, and the DaemonSet's pod serves on the node's.
func listenAll(ctx context.Context, address string) ([]net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err == nil {
		return []net.Listener{listener}, nil
	}
	host, port, splitErr := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	if splitErr != nil || !errors.Is(err, syscall.EADDRINUSE) || host != "" && (ip == nil || !ip.IsUnspecified()) {
		return nil, err
	}
	addresses, addrErr := net.InterfaceAddrs()
	if addrErr != nil {
		return nil, err
	}
	var out []net.Listener
	for _, at := range addresses {
		network, ok := at.(*net.IPNet)
		if !ok || !network.IP.IsGlobalUnicast() {
			continue
		}
		if listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(network.IP.String(), port)); err == nil {
			out = append(out, listener)
		}
	}
	if len(out) == 0 {
		return nil, err
	}
	return out, nil
}

// serveAll serves until ctx ends or one of the listeners fails.
func serveAll(ctx context.Context, handler http.Handler, listeners []net.Listener) error {
	server := newServer(handler)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	errs := make([]error, len(listeners))
	var serving sync.WaitGroup
	for i, listener := range listeners {
		serving.Go(func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				errs[i] = err
			}
			_ = server.Close()
		})
	}
	serving.Wait()
	return errors.Join(errs...)
}

// serveSocket answers those that stand by, for as long as this agent works: that it lives, and what they pass on. Without
// it nobody can see that it hangs, and nothing else is lost.
func (a *Agent) serveSocket(ctx context.Context) {
	var listener net.Listener
	err := inDir(a.config.StateDir, a.ownSocket(), func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the socket of an earlier agent: %w", err)
		}
		var config net.ListenConfig
		var err error
		if listener, err = config.Listen(ctx, "unix", path); err != nil {
			return err
		}
		if unix, ok := listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false) // the path ends with this function, and the next agent removes it
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		a.log.Info("no agent that stands by can ask this one", "cause", err.Error())
		return
	}
	if err := serveAll(ctx, a.handler(), []net.Listener{listener}); err != nil && ctx.Err() == nil {
		a.log.Error(err, "serve agents that stand by")
	}
}

// watchLock ends the agent when another one has taken its lock, which it does where this one was stopped for long.
func (a *Agent) watchLock(ctx context.Context, locks *held, lost func(error)) {
	events, closeWatch := a.lockEvents(locks)
	defer closeWatch()
	// It is looked at now and then, too: a node may have no watch left to give.
	ticker := time.NewTicker(lockCheck)
	defer ticker.Stop()
	for {
		if !locks.current() {
			lost(errSuperseded)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-events:
		case <-ticker.C:
		}
	}
}

// lockEvents tells when a lock's file is touched; never, where it cannot be watched.
func (a *Agent) lockEvents(locks *held) (events <-chan fsnotify.Event, closeWatch func()) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		a.log.Info("cannot watch the lock, looks at it now and then", "cause", err.Error())
		return nil, func() {}
	}
	for _, file := range locks.files {
		if err := watcher.Add(file.Name()); err != nil {
			a.log.Info("cannot watch the lock, looks at it now and then", "cause", err.Error())
		}
	}
	return watcher.Events, func() { _ = watcher.Close() }
}
