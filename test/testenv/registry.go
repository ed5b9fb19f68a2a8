package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"headstart.dev/test/testenv/faultproxy"
	"headstart.dev/test/testenv/internal/binaries"
	"headstart.dev/test/testenv/internal/process"
	"headstart.dev/test/testenv/internal/workspace"
)

// RegistryConfig says how the registry behaves. The zero value is an open registry.
type RegistryConfig struct {
	// Username and Password, when set, are asked of every request by basic authentication.
	Username, Password string
	// Progress receives lines while servers are built; nil means stderr.
	Progress io.Writer
}

// Registry is a distribution registry on loopback, plain HTTP, behind a proxy that counts and breaks.
type Registry struct {
	// Proxy counts what is pulled and injects faults.
	Proxy *faultproxy.Proxy

	work    *workspace.Workspace
	server  *process.Process
	port    int
	backend string // host and port of the real registry

	mu    sync.Mutex
	front *http.Server // nil while the registry is down
	done  chan struct{}
}

// StartRegistry starts a registry that is stopped when the test ends.
func StartRegistry(t testing.TB, cfg RegistryConfig) *Registry {
	t.Helper()
	r, err := NewRegistry(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start registry: %v", err)
	}
	cleanUp(t, r)
	return r
}

const registryConfig = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http:
  addr: %q
  secret: testenv
`

// NewRegistry starts a registry. The caller must Stop it; on error nothing is left running. ctx bounds the start.
func NewRegistry(ctx context.Context, cfg RegistryConfig) (*Registry, error) {
	if cfg.Progress == nil {
		cfg.Progress = os.Stderr
	}
	binDir, err := binaries.Ensure(ctx, cfg.Progress, binaries.Registry)
	if err != nil {
		return nil, err
	}
	work, err := workspace.New()
	if err != nil {
		return nil, err
	}
	r := &Registry{work: work}
	if err := r.start(ctx, cfg, binDir); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

func (r *Registry) start(ctx context.Context, cfg RegistryConfig, binDir string) error {
	ports, err := twoFreePorts(ctx)
	if err != nil {
		return err
	}
	r.port = ports[0]
	r.backend = loopback(ports[1])
	config, err := r.work.Write(fmt.Appendf(nil, registryConfig, r.work.Path("data"), r.backend), "config.yml")
	if err != nil {
		return err
	}
	upstream := &url.URL{Scheme: "http", Host: r.backend}
	r.server, err = process.Start(ctx, process.Config{
		Name: binaries.Registry, Path: binDir + "/" + binaries.Registry, Args: []string{"serve", config},
		// Without this the registry sends traces to localhost:4318.
		Env:     []string{r.work.Env(), "OTEL_TRACES_EXPORTER=none"},
		LogPath: r.work.Path("registry.log"), Ready: answersOK(upstream.String()+"/v2/", nil),
	})
	if err != nil {
		return err
	}
	r.Proxy = faultproxy.New(upstream, cfg.Username, cfg.Password)
	return r.Up(ctx)
}

// Host is the registry's host and port, as image references begin.
func (r *Registry) Host() string { return loopback(r.port) }

// Port is the registry's port.
func (r *Registry) Port() int { return r.port }

// Image returns a reference in this registry, for example Image("team/app:v1").
func (r *Registry) Image(name string) string { return r.Host() + "/" + name }

// Down refuses connections and cuts those that are open. What is stored stays. Down again is no error.
func (r *Registry) Down() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.front == nil {
		return nil
	}
	err := r.front.Close()
	<-r.done
	r.front = nil
	return err
}

// Up serves again after Down, on the same port.
func (r *Registry) Up(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.front != nil {
		return nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", r.Host())
	if err != nil {
		return fmt.Errorf("serve the registry: %w", err)
	}
	front := &http.Server{Handler: r.Proxy, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = front.Serve(listener) // Close ends it with an error by design
	}()
	r.front, r.done = front, done
	return nil
}

// Stop ends the registry and removes what it stored. It is safe to call again.
func (r *Registry) Stop() error {
	errs := []error{r.Down()}
	if r.Proxy != nil {
		r.Proxy.Close()
	}
	if r.server != nil {
		errs = append(errs, r.server.Stop())
	}
	return errors.Join(append(errs, r.work.Close())...)
}

func (r *Registry) processes() []*process.Process {
	if r.server == nil {
		return nil
	}
	return []*process.Process{r.server}
}
