package agent_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/agent"
)

// TestMain of this package runs an agent in place of the tests when this is set: a process that can be killed.
const childConfig = "HEADSTART_TEST_AGENT_CONFIG"

// startChild runs an agent as a process of its own.
func startChild(t *testing.T, s setup, name string) *exec.Cmd {
	t.Helper()
	config := filepath.Join(s.dir, "agent.yaml")
	text := fmt.Sprintf("%s\nnodeName: %s\nkubeconfig: %s\n", s.config, name, kubeletKubeconfig(name))
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self) //nolint:noctx // killed by the test
	cmd.Env = append(os.Environ(), childConfig+"="+config)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestAfterACrashTheOtherAgentTakesOver(t *testing.T) {
	name := nodeName(t)
	makeNode(t, name)
	s := newSetup(t)
	first := startChild(t, s, name)
	eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, appReady).Status == corev1.ConditionFalse })

	s.start(t, false, agent.Overrides{NodeName: name, Kubeconfig: kubeletKubeconfig(name)})
	require.Eventually(t, s.standsBy, settleTime, 10*time.Millisecond)
	require.NotContains(t, s.logs.String(), `"publishing"`)

	s.setReady(t)
	eventually(t, name, ready(appReady))
	require.NotContains(t, s.logs.String(), `"publishing"`, "exactly one publishes")
	require.NoError(t, first.Process.Kill())
	killed := time.Now()
	require.NoError(t, os.Remove(filepath.Join(s.dir, "ready")))
	eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, appReady).Status == corev1.ConditionFalse })
	took := time.Since(killed)
	t.Logf("took over %v after the crash", took.Round(time.Millisecond))
	require.Less(t, took, 2*time.Second)
	require.Contains(t, s.logs.String(), `"publishing"`)
}

func (s setup) standsBy() bool {
	return strings.Contains(s.logs.String(), "stands by")
}

func TestAgentsOfTwoNodesOnOneMachineDoNotWaitForEachOther(t *testing.T) {
	s := newSetup(t)
	s.setReady(t)
	for _, name := range []string{"two-nodes-a", "two-nodes-b"} {
		makeNode(t, name)
		s.start(t, false, agent.Overrides{NodeName: name, Kubeconfig: kubeletKubeconfig(name)})
	}
	for _, name := range []string{"two-nodes-a", "two-nodes-b"} {
		eventually(t, name, ready(appReady))
	}
}

// TestAnIdleAgentAsksForNothing counts the requests of the agent's own user at the API server.
func TestAnIdleAgentAsksForNothing(t *testing.T) {
	name := nodeName(t)
	makeNode(t, name)
	s := newSetup(t)
	s.setReady(t)
	s.start(t, false, agent.Overrides{NodeName: name, Kubeconfig: kubeletKubeconfig(name)})
	eventually(t, name, ready(appReady))
	// The last patch of a boot is that of lazy annotations.
	waitFor(t, 6*time.Second)
	client := admin(t)
	before := requests(t, client)
	waitFor(t, 3*time.Second)
	require.Equal(t, before, requests(t, client))
}

// requests is what the API server has counted of node writes and reads by anybody.
func requests(t *testing.T, client *kubernetes.Clientset) string {
	t.Helper()
	raw, err := client.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	require.NoError(t, err)
	out := ""
	for line := range strings.SplitSeq(string(raw), "\n") {
		if strings.Contains(line, "apiserver_request_total{") && strings.Contains(line, `resource="nodes"`) && !strings.Contains(line, `verb="WATCH"`) {
			out += line + "\n"
		}
	}
	return out
}

func waitFor(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}
