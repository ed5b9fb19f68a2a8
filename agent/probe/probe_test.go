package probe_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"headstart.dev/agent/probe"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == nvmlChild {
		os.Exit(runNVMLChild(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == unitChild {
		fmt.Fprintln(os.Stderr, runUnitChild(os.Args[2:]))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// shortLook is long enough for anything on loopback, and short enough to wait for what hangs.
const shortLook = 300 * time.Millisecond

// look checks once with a deadline, and fails the test when the check does not keep to it.
func look(t *testing.T, checker probe.Checker, timeout time.Duration) probe.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	started := time.Now()
	result := checker.Check(ctx)
	require.Less(t, time.Since(started), timeout+10*time.Second)
	return result
}

// socketDir is a folder whose path is short enough for a unix socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hs") //nolint:usetesting // t.TempDir has the name of the test, which is too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	if network == "unix" {
		require.NoError(t, os.MkdirAll(filepath.Dir(address), 0o755))
	}
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), network, address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// serve runs a gRPC server until the test ends.
func serve(t *testing.T, listener net.Listener, register func(*grpc.Server)) *grpc.Server {
	t.Helper()
	server := grpc.NewServer()
	register(server)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return server
}

// silent accepts connections and never says a word. It closes its end when the other has.
func silent(t *testing.T, listener net.Listener) {
	t.Helper()
	var serving sync.WaitGroup
	ended := make(chan struct{})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				heard := make(chan struct{})
				go func() { defer close(heard); _, _ = io.Copy(io.Discard, conn) }()
				select {
				case <-heard:
				case <-ended:
				}
				_ = conn.Close()
				<-heard
			})
		}
	})
	t.Cleanup(func() { close(ended); _ = listener.Close(); serving.Wait() })
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/not", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	secure := httptest.NewTLSServer(mux)
	t.Cleanup(secure.Close)
	for name, tc := range map[string]struct {
		url    string
		status probe.Status
		reason string
	}{
		"a good answer":                             {server.URL + "/ok", probe.True, probe.ReasonReady},
		"a good answer behind an unknown CA":        {secure.URL + "/ok", probe.True, probe.ReasonReady},
		"a bad answer":                              {server.URL + "/not", probe.False, probe.ReasonUnhealthy},
		"no answer":                                 {server.URL + "/hang", probe.False, probe.ReasonTimeout},
		"a redirect elsewhere, which counts":        {server.URL + "/away", probe.True, probe.ReasonReady},
		"an answer without end, of which enough is": {server.URL + "/endless", probe.True, probe.ReasonReady},
		"nobody there":                              {"http://127.0.0.1:1/", probe.False, probe.ReasonUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			result := look(t, &probe.HTTP{URL: tc.url}, shortLook)
			require.Equal(t, tc.status, result.Status, result.Message)
			require.Equal(t, tc.reason, result.Reason, result.Message)
		})
	}
}

func TestTCP(t *testing.T) {
	listener := listen(t, "tcp", "127.0.0.1:0")
	require.Equal(t, probe.True, look(t, &probe.TCP{Address: listener.Addr().String()}, shortLook).Status)
	require.NoError(t, listener.Close())
	require.Equal(t, probe.ReasonUnreachable, look(t, &probe.TCP{Address: listener.Addr().String()}, shortLook).Reason)
}

func TestUnix(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	checker := &probe.Unix{Path: path}
	require.Equal(t, probe.ReasonNotFound, look(t, checker, shortLook).Reason)

	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.Equal(t, probe.ReasonUnreachable, look(t, checker, shortLook).Reason, "a FIFO in place of the socket")
	require.NoError(t, os.Remove(path))

	listen(t, "unix", path)
	require.Equal(t, probe.True, look(t, checker, shortLook).Status)
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	checker := &probe.File{Path: path}
	require.Equal(t, probe.ReasonNotFound, look(t, checker, shortLook).Reason)
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.Equal(t, probe.True, look(t, checker, shortLook).Status, "a FIFO exists, and is not opened")
	require.Equal(t, probe.ReasonInvalid, look(t, &probe.File{Path: path + "/below"}, shortLook).Reason)
}

func TestGRPC(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	checker := &probe.GRPC{Address: "unix://" + path, Service: "app"}
	require.Equal(t, probe.ReasonNotFound, look(t, checker, shortLook).Reason)

	states := health.NewServer()
	server := serve(t, listen(t, "unix", path), func(s *grpc.Server) { healthpb.RegisterHealthServer(s, states) })
	require.Equal(t, probe.ReasonInvalid, look(t, checker, shortLook).Reason, "the service is not known")
	states.SetServingStatus("app", healthpb.HealthCheckResponse_NOT_SERVING)
	require.Equal(t, probe.ReasonUnhealthy, look(t, checker, shortLook).Reason)
	states.SetServingStatus("app", healthpb.HealthCheckResponse_SERVING)
	require.Equal(t, probe.True, look(t, checker, shortLook).Status)
	server.Stop()

	silent(t, listen(t, "unix", path))
	require.Equal(t, probe.ReasonTimeout, look(t, checker, shortLook).Reason, "a server that hangs")
}

func TestGRPCFollowsTheServersOwnHealthStream(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	states := health.NewServer()
	states.SetServingStatus("app", healthpb.HealthCheckResponse_NOT_SERVING)
	serve(t, listen(t, "unix", path), func(s *grpc.Server) { healthpb.RegisterHealthServer(s, states) })
	results := start(t, &probe.GRPC{Address: "unix://" + path, Service: "app"}, probe.Settings{
		Period: time.Hour, Timeout: time.Second, SuccessThreshold: 1, FailureThreshold: 1, Pending: time.Hour,
	})
	require.Equal(t, probe.ReasonUnhealthy, next(t, results).Reason)
	states.SetServingStatus("app", healthpb.HealthCheckResponse_SERVING)
	require.Equal(t, probe.True, next(t, results).Status)
	states.SetServingStatus("app", healthpb.HealthCheckResponse_NOT_SERVING)
	require.Equal(t, probe.ReasonUnhealthy, next(t, results).Reason)
}

// start runs a probe until the test ends and returns its results.
func start(t *testing.T, checker probe.Checker, settings probe.Settings) <-chan probe.Result {
	t.Helper()
	results := make(chan probe.Result, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	runner := probe.Runner{
		Checker: checker, Settings: settings,
		Report:      func(r probe.Result) { results <- r },
		WatchFailed: func(err error) { t.Errorf("watch: %v", err) },
	}
	go func() { defer close(done); runner.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return results
}

// next waits for a result. Only a broken probe lets it wait for long.
func next(t *testing.T, results <-chan probe.Result) probe.Result {
	t.Helper()
	select {
	case result := <-results:
		return result
	case <-time.After(20 * time.Second):
		t.Fatal("the probe reports nothing")
		return probe.Result{}
	}
}

// eventsOnly are settings under which only an event makes a probe look again.
var eventsOnly = probe.Settings{Period: time.Hour, Timeout: time.Second, SuccessThreshold: 1, FailureThreshold: 1, Pending: time.Hour}

func TestAnEventInAFolderThatIsMadeLaterWakesTheProbe(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "f")
	results := start(t, &probe.File{Path: path}, eventsOnly)
	require.Equal(t, probe.False, next(t, results).Status)
	for range 3 {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.Equal(t, probe.True, next(t, results).Status)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "a")))
		require.Equal(t, probe.False, next(t, results).Status)
	}
}
