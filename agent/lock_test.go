package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// childState makes the test's own program an agent that works for a state folder until it is killed.
const childState = "HEADSTART_TEST_LOCK_STATE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childState); dir != "" {
		a, err := newLockAgent(dir, "", "0", logr.Discard())
		if err == nil {
			err = a.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// newLockAgent is an agent with nothing to do but to hold the lock, and to serve.
func newLockAgent(stateDir, nodeName, metrics string, log logr.Logger) (*Agent, error) {
	cfg, err := Parse(fmt.Appendf(nil, "apiVersion: %s\nkind: %s\nstateDir: %s\nnodeName: %q\nmetrics: {bindAddress: %q}\nkubeconfig: /nonexistent\n",
		APIVersion, Kind, stateDir, nodeName, metrics))
	if err != nil {
		return nil, err
	}
	a, err := New(Options{Config: cfg, Log: log, Registry: prometheus.NewRegistry()})
	if err != nil {
		return nil, err
	}
	a.patience = patience{period: 10 * time.Millisecond, timeout: 500 * time.Millisecond, failures: 3}
	return a, nil
}

// lockTime bounds what takes milliseconds on an idle machine.
const lockTime = time.Minute

// standby is an agent that runs in this process.
type standby struct {
	*Agent
	stop func()

	mu   sync.Mutex
	logs strings.Builder
}

func runLockAgent(t *testing.T, stateDir, nodeName, metrics string) *standby {
	t.Helper()
	s := &standby{}
	var err error
	s.Agent, err = newLockAgent(stateDir, nodeName, metrics, funcr.New(func(_, args string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logs.WriteString(args + "\n")
	}, funcr.Options{}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			s.log.Error(err, "run")
		}
	})
	s.stop = func() { cancel(); running.Wait() }
	t.Cleanup(s.stop)
	return s
}

func (s *standby) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs.String()
}

func (s *standby) works(t *testing.T) {
	t.Helper()
	require.Eventually(t, s.working.Load, lockTime, 5*time.Millisecond)
}

func (s *standby) standsBy(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(s.logged(), "stands by") }, lockTime, 5*time.Millisecond)
	require.False(t, s.working.Load())
}

// The host's agent starts before the kubelet and guesses its name; the DaemonSet's is told, and it is another.
func TestOneAgentWorksForAMachineWhateverItsNodeIsCalled(t *testing.T) {
	for name, tc := range map[string]struct{ first, second string }{
		"the host's agent is first":       {"", "i-0123456789abcdef0.ec2.internal"},
		"the DaemonSet's agent is first":  {"ip-10-0-0-1.corp.example", ""},
		"two that were not told":          {"", ""},
		"two that were told the same one": {"a", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			first := runLockAgent(t, dir, tc.first, "0")
			first.works(t)
			second := runLockAgent(t, dir, tc.second, "0")
			second.standsBy(t)
			first.stop()
			second.works(t)
		})
	}
}

func TestAgentsThatWereToldOfTwoNodesWorkSideBySide(t *testing.T) {
	dir := t.TempDir()
	a, b := runLockAgent(t, dir, "a", "0"), runLockAgent(t, dir, strings.Repeat("b", 63)+"."+strings.Repeat("b", 63), "0")
	a.works(t)
	b.works(t)
	runLockAgent(t, dir, "", "0").standsBy(t)
}

func TestAnAgentThatIsStoppedLosesItsPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 30)) // longer than a socket's path may be
	self, err := os.Executable()
	require.NoError(t, err)
	holder := exec.CommandContext(t.Context(), self)
	holder.Env = append(os.Environ(), childState+"="+dir)
	var stderr bytes.Buffer
	holder.Stderr = &stderr
	require.NoError(t, holder.Start())
	var failure error
	ended := make(chan struct{})
	go func() { failure = holder.Wait(); close(ended) }()
	t.Cleanup(func() { _ = holder.Process.Kill(); <-ended })
	socket := filepath.Join(dir, socketName(machineLock))
	require.Eventually(t, func() bool { _, err := os.Stat(socket); return err == nil }, lockTime, 5*time.Millisecond)

	second := runLockAgent(t, dir, "i-0123456789abcdef0", "0")
	second.standsBy(t)
	require.NoError(t, holder.Process.Signal(syscall.SIGSTOP))
	second.works(t)
	require.Contains(t, second.logged(), "takes over")
	require.NoError(t, holder.Process.Signal(syscall.SIGCONT))
	select {
	case <-ended:
		require.Error(t, failure)
	case <-time.After(lockTime):
		t.Fatal("the agent that was stopped works beside the one that took over")
	}
	require.Contains(t, stderr.String(), errSuperseded.Error())
	require.True(t, second.working.Load())
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener := listenAt(t, "127.0.0.1:0")
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

func listenAt(t *testing.T, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func scrape(t *testing.T, address, path string) (code int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

func TestATakenMetricsPortKeepsNobodyFromWorking(t *testing.T) {
	squatter := listenAt(t, "127.0.0.1:0")
	a := runLockAgent(t, t.TempDir(), "a", squatter.Addr().String())
	a.works(t)
	said := func() int { return strings.Count(a.logged(), "metrics are not served yet") }
	require.Eventually(t, func() bool { return said() == 1 }, lockTime, 5*time.Millisecond)
	require.NoError(t, squatter.Close())
	require.Eventually(t, func() bool {
		code, _ := scrape(t, squatter.Addr().String(), "/metrics")
		return code == http.StatusOK
	}, lockTime, 50*time.Millisecond, "the port is tried again")
	require.Equal(t, 1, said())
}

// A PodMonitor scrapes the DaemonSet's pod; on a node whose userData started an agent that pod stands by.
func TestAnAgentThatStandsByServesWhatTheOneThatWorksSays(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	first := runLockAgent(t, dir, "", "0")
	first.works(t)
	first.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "of_the_first", Help: "Of the first."}, func() float64 { return 1 }))
	second := runLockAgent(t, dir, "a", address)
	second.standsBy(t)
	require.Eventually(t, func() bool {
		_, body := scrape(t, address, "/metrics")
		return strings.Contains(body, "of_the_first 1")
	}, lockTime, 5*time.Millisecond)
	code, _ := scrape(t, address, "/healthz")
	require.Equal(t, http.StatusOK, code)

	first.stop()
	second.works(t)
	_, body := scrape(t, address, "/metrics")
	require.NotContains(t, body, "of_the_first")
	require.Contains(t, body, "headstart_build_info")
}

func TestWhereTheLoopbackAddressIsTakenTheOthersServe(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	others := 0
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.IsGlobalUnicast() {
			others++
		}
	}
	squatter := listenAt(t, "127.0.0.1:0")
	_, port, err := net.SplitHostPort(squatter.Addr().String())
	require.NoError(t, err)
	listeners, err := listenAll(t.Context(), ":"+port)
	require.Len(t, listeners, others)
	if others == 0 {
		require.ErrorIs(t, err, syscall.EADDRINUSE)
	}
	for _, listener := range listeners {
		require.NoError(t, listener.Close())
	}
	_, err = listenAll(t.Context(), squatter.Addr().String())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}
