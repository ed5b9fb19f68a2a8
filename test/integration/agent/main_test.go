// Package agent_test runs the agent against a real kube-apiserver and etcd.
package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/agent"
	"headstart.dev/test/testenv"
)

// settleTime bounds what happens within milliseconds on an idle machine.
const settleTime = 30 * time.Second

var plane *testenv.ControlPlane

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run shares one control plane among all tests.
func run(m *testing.M) int {
	if config := os.Getenv(childConfig); config != "" {
		return runChild(config)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var err error
	if plane, err = testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := plane.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// runChild runs an agent until it is killed.
func runChild(config string) int {
	cfg, err := agent.Load(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	a, err := agent.New(agent.Options{Config: cfg, Log: logr.Discard(), Registry: prometheus.NewRegistry()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := a.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func admin(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(plane.Config())
	require.NoError(t, err)
	return client
}

func kubeletKubeconfig(node string) string {
	return plane.Kubeconfig("system:node:"+node, "system:nodes")
}

// makeNode registers a Node as a kubelet would, and removes it after the test.
func makeNode(t *testing.T, name string) *corev1.Node {
	t.Helper()
	node, err := admin(t).CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), settleTime)
		defer cancel()
		_ = admin(t).CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	})
	return node
}

// heartbeat writes the kubelet's own condition, as a kubelet does.
func heartbeat(t *testing.T, name, status string) {
	t.Helper()
	patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q,"reason":"KubeletReady","message":"x","lastHeartbeatTime":%q,"lastTransitionTime":%[2]q}]}}`,
		status, time.Now().UTC().Format(time.RFC3339))
	_, err := admin(t).CoreV1().Nodes().Patch(t.Context(), name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	require.NoError(t, err)
}

// setup is one agent's surroundings: a file that it probes, and where it keeps its state.
type setup struct {
	dir, config string
	logs        *logs
}

// logs keeps what an agent has logged.
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (l *logs) add(prefix, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, prefix+" "+line)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func newSetup(t *testing.T) setup {
	t.Helper()
	s := setup{dir: t.TempDir(), logs: &logs{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the agent's log:\n%s", s.logs)
		}
	})
	s.config = fmt.Sprintf(`
apiVersion: agent.headstart.dev/v1alpha1
kind: AgentConfig
stateDir: %[1]s/state
probes:
- {name: app, type: file, path: %[1]s/ready, failureThreshold: 1, period: 50ms}
- {name: always, type: file, path: %[1]s}
metrics: {bindAddress: "0"}
`, s.dir)
	return s
}

func (s setup) setReady(t *testing.T) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "ready"), nil, 0o600))
}

// start runs an agent and returns a function that stops it and returns what Run returned.
func (s setup) start(t *testing.T, once bool, overrides agent.Overrides) (wait func() error, stop context.CancelFunc) {
	t.Helper()
	cfg, err := agent.Parse([]byte(s.config))
	require.NoError(t, err)
	cfg, err = cfg.With(overrides)
	require.NoError(t, err)
	a, err := agent.New(agent.Options{Config: cfg, Log: funcr.New(s.logs.add, funcr.Options{Verbosity: 1}), Registry: prometheus.NewRegistry(), Once: once})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var result error
	waited := false
	wait = func() error {
		if !waited {
			select {
			case result = <-done:
			case <-time.After(settleTime):
				cancel()
				result = <-done
				t.Errorf("the agent did not end by itself: %v", result)
			}
			waited = true
		}
		return result
	}
	t.Cleanup(func() { cancel(); _ = wait() })
	return wait, cancel
}

func conditionOf(node *corev1.Node, conditionType string) corev1.NodeCondition {
	for _, c := range node.Status.Conditions {
		if string(c.Type) == conditionType {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// eventually waits until the Node is as the test wants it.
func eventually(t *testing.T, name string, want func(*corev1.Node) bool) *corev1.Node {
	t.Helper()
	client := admin(t)
	var last *corev1.Node
	require.Eventually(t, func() bool {
		node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		last = node
		return want(node)
	}, settleTime, 20*time.Millisecond, "node %s: %v", name, &last)
	return last
}

func ready(conditionType string) func(*corev1.Node) bool {
	return func(n *corev1.Node) bool { return conditionOf(n, conditionType).Status == corev1.ConditionTrue }
}

func nodeName(t *testing.T) string {
	t.Helper()
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
}
