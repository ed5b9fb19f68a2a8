package readiness_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/test/testenv"
)

// replica is a controller in a process of its own.
type replica struct {
	cmd *exec.Cmd
	log string
	// probes is the address of /healthz and /readyz.
	probes string
}

// startReplicas builds the controller and starts so many of them, with leader election, until the test ends.
func (e *env) startReplicas(n int) []*replica {
	e.t.Helper()
	dir := e.t.TempDir()
	binary, err := testenv.BuildCommand(e.t.Context(), "headstart-controller")
	require.NoError(e.t, err)
	var all []*replica
	for i := range n {
		r := &replica{log: filepath.Join(dir, string(rune('a'+i))+".log"), probes: freeAddress(e.t)}
		logs, err := os.Create(r.log)
		require.NoError(e.t, err)
		// Two replicas on one machine cannot both have the default ports.
		r.cmd = exec.CommandContext(e.t.Context(), binary, "--kubeconfig", e.plane.Kubeconfig("replica", "system:masters"),
			"--leader-elect-namespace="+namespace, "--metrics-bind-address=0", "--health-probe-bind-address="+r.probes)
		r.cmd.Stdout, r.cmd.Stderr = logs, logs
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		require.NoError(e.t, r.cmd.Start())
		e.t.Cleanup(func() { r.kill(); require.NoError(e.t, logs.Close()) })
		all = append(all, r)
	}
	return all
}

// kill is SIGKILL: the process says goodbye to nobody.
func (r *replica) kill() {
	if r.cmd.ProcessState == nil {
		_ = r.cmd.Process.Kill() // it may have ended
		_ = r.cmd.Wait()         // it was killed
	}
}

// leads says whether the replica has begun to lead.
func (r *replica) leads(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile(r.log)
	require.NoError(t, err)
	return strings.Contains(string(text), `"msg":"leading"`)
}

// TestLeaderKilledInTheMiddleOfAWave takes the leader's process away with SIGKILL while nodes are being released: the
// standby goes on when the lease has run out, loses none and holds none again.
func TestLeaderKilledInTheMiddleOfAWave(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.drop(&coordinationv1.Lease{ObjectMeta: objectMeta(namespace, "headstart-controller")})
	replicas := e.startReplicas(2)
	leader := replicas[0]
	require.Eventually(t, func() bool {
		for _, r := range replicas {
			if r.leads(t) {
				leader = r
				return true
			}
		}
		return false
	}, settleTime, pollTime, "one leads")
	history := e.watchTaint(taintKey(rule))
	var nodes []string
	for range 100 {
		nodes = append(nodes, e.node(tainted(taintKey(rule))).Name)
	}
	for i, n := range nodes {
		e.report(n, testCondition, corev1.ConditionTrue)
		if i == len(nodes)/2 {
			leader.kill()
		}
	}
	for _, n := range nodes {
		e.eventuallyTainted(n, taintKey(rule), false)
	}
	for _, n := range nodes {
		require.Eventually(t, func() bool { return len(history.of(n)) == 2 }, settleTime, pollTime)
		require.Equal(t, []bool{true, false}, history.of(n))
		require.Equal(t, "done", string(e.record(n).Rules[rule.UID].State))
	}
}

// TestKubeletsFirstStatusWriteRacesTheAgents lets a kubelet write the whole status of a node that has just registered
// while the agent patches its condition, from both sides of each other, many times.
func TestKubeletsFirstStatusWriteRacesTheAgents(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	for range 20 {
		node := e.node(tainted(taintKey(rule)))
		wrote := make(chan error, 1)
		go func() {
			// The kubelet sends what it knows: its own conditions, and the node's facts.
			status := `{"status":{"nodeInfo":{"bootID":"boot-1"},"allocatable":{"cpu":"4"},"capacity":{"cpu":"4"},"conditions":[` +
				`{"type":"MemoryPressure","status":"False","reason":"KubeletHasSufficientMemory"},{"type":"Ready","status":"True","reason":"KubeletReady"}]}}`
			target := &corev1.Node{ObjectMeta: objectMeta("", node.Name)}
			wrote <- e.Status().Patch(t.Context(), target, client.RawPatch("application/strategic-merge-patch+json", []byte(status)))
		}()
		e.report(node.Name, testCondition, corev1.ConditionTrue)
		require.NoError(t, <-wrote)
		freed := e.eventuallyTainted(node.Name, taintKey(rule), false)
		require.Equal(t, "done", string(e.record(freed.Name).Rules[rule.UID].State))
		live := e.get(node.Name)
		require.Len(t, live.Status.Conditions, 3, "neither has overwritten the other")
	}
}

// TestKilledBetweenRegistrationAndTheFirstLook: a node that registers with its taint while nobody looks is held and
// released like any other.
func TestKilledBetweenRegistrationAndTheFirstLook(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	first := e.startController()
	require.Eventually(t, func() bool {
		return e.Get(t.Context(), client.ObjectKeyFromObject(rule), rule) == nil && rule.Status.ObservedGeneration == rule.Generation
	}, settleTime, pollTime)
	first.Stop()
	node := e.node(tainted(taintKey(rule)))
	e.startController()
	e.stays(node.Name, "held", func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
}
