package readiness_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
)

const (
	// handoverTime bounds what passes between the signal and the standby's first release: it looks at the lease once a
	// second. The lease itself would run for 15 s more, so that even a busy machine tells the two apart.
	handoverTime = 12 * time.Second
	// warmTime bounds what passes between the standby's first moment as leader and the release of all that waits. That
	// nothing is listed first its log says; this is for what would wait for a timer.
	warmTime = 5 * time.Second
)

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

// probe is what a replica answers on /readyz or /healthz; 0 while it does not listen.
func (r *replica) probe(t *testing.T, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.probes+path, http.NoBody)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode
}

// logged is when a replica first logged a message; zero: never.
func (r *replica) logged(t *testing.T, message string) time.Time {
	t.Helper()
	text, err := os.ReadFile(r.log)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var entry struct {
			Time time.Time `json:"time"`
			Msg  string    `json:"msg"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == message {
			return entry.Time
		}
	}
	return time.Time{}
}

// TestLeaderThatStopsHandsOverAtOnce ends the leader as a rollout does. The lease is given back and not waited for, and
// the standby, whose rules are ready all the time, releases what became ready in between from what it knows already.
func TestLeaderThatStopsHandsOverAtOnce(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.drop(&coordinationv1.Lease{ObjectMeta: objectMeta(namespace, "headstart-controller")})
	replicas := e.startReplicas(2)
	for _, r := range replicas {
		require.Eventually(t, func() bool { return r.probe(t, "/readyz") == http.StatusOK }, settleTime, pollTime, "leader and standby are ready")
		require.Equal(t, http.StatusOK, r.probe(t, "/healthz"))
	}
	leader, standby := replicas[0], replicas[1]
	if standby.leads(t) {
		leader, standby = standby, leader
	}
	require.True(t, leader.leads(t))
	require.False(t, standby.leads(t))
	var nodes []string
	for range 20 {
		nodes = append(nodes, e.node(tainted(taintKey(rule))).Name)
	}
	e.report(nodes[0], testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(nodes[0], taintKey(rule), false)

	stopped := time.Now()
	require.NoError(t, leader.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, leader.cmd.Wait(), "it ends well")
	for _, n := range nodes[1:] {
		e.report(n, testCondition, corev1.ConditionTrue)
	}
	for _, n := range nodes[1:] {
		e.eventuallyTainted(n, taintKey(rule), false)
	}
	released := time.Now()
	began := standby.logged(t, "leading")
	t.Logf("the standby led %s after the signal, and all were free %s later", began.Sub(stopped), released.Sub(began))
	require.Less(t, began.Sub(stopped), handoverTime, "the lease is not waited for")
	require.Less(t, released.Sub(began), warmTime, "nothing is listed first")
	require.True(t, standby.logged(t, "caches are warm").Before(stopped))
	require.Equal(t, http.StatusOK, standby.probe(t, "/readyz/readiness"))
	// Prepull and warm pools list what they need only now: nobody waits for either.
	require.Eventually(t, func() bool { return standby.probe(t, "/readyz") == http.StatusOK }, settleTime, pollTime, "all of it is ready")
}
