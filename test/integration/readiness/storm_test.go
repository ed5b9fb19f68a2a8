package readiness_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness/controller"
	"headstart.dev/readiness/v1alpha1"
)

// TestAnotherWriterReplacesTheWholeArray plays Karpenter, which writes taints from its cache without a lock, in the very
// instant of the release.
func TestAnotherWriterReplacesTheWholeArray(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	ours := corev1.Taint{Key: taintKey(rule), Value: "pending", Effect: corev1.TaintEffectNoSchedule}
	foreign := corev1.Taint{Key: "example.com/foreign", Effect: corev1.TaintEffectNoSchedule}
	node := e.node(tainted(taintKey(rule)))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		for i := 0; ctx.Err() == nil && i < 40; i++ {
			e.setTaints(node.Name, ours, foreign) //nolint:contextcheck // the test's own context
		}
		stop()
	}()
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	<-ctx.Done()
	e.eventually(node.Name, "ours goes, the other's stays", func(n *corev1.Node) bool {
		return !hasTaint(n, ours.Key) && hasTaint(n, foreign.Key)
	})
}

func TestFlipStormWritesAtMostOnceASecond(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Spec.Mode = v1alpha1.ModeContinuous })
	var patches atomic.Int32
	e.startController(onRequest(func(r *http.Request) {
		if r.Method == http.MethodPatch && r.URL.Path == "/api/v1/nodes/"+e.pool+"-2" {
			patches.Add(1)
		}
	}))
	node := e.node(tainted(taintKey(rule)))
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
	patches.Store(0)
	begin := time.Now()
	for status := corev1.ConditionFalse; time.Since(begin) < 4*time.Second; {
		e.report(node.Name, testCondition, status)
		status = map[corev1.ConditionStatus]corev1.ConditionStatus{corev1.ConditionFalse: corev1.ConditionTrue, corev1.ConditionTrue: corev1.ConditionFalse}[status]
	}
	seconds := int32(time.Since(begin)/time.Second) + 1
	require.LessOrEqual(t, patches.Load(), seconds)
	e.report(node.Name, testCondition, corev1.ConditionFalse)
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
}

// onRequest sees every request of the controller.
func onRequest(see func(*http.Request)) option {
	return func(_ *ctrl.Options, _ *controller.Config, rc *rest.Config) {
		rc.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				see(r)
				return next.RoundTrip(r)
			})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// failingAPIServer answers a third of the controller's requests with errors, some of them after the write took effect.
func failingAPIServer() option {
	var count atomic.Int32
	codes := []int{http.StatusConflict, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusGatewayTimeout}
	return func(_ *ctrl.Options, _ *controller.Config, rc *rest.Config) {
		rc.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				n := count.Add(1)
				if r.Method == http.MethodGet && r.URL.Query().Get("watch") != "" || n%3 != 0 {
					return next.RoundTrip(r)
				}
				code := codes[int(n/3)%len(codes)]
				if code == http.StatusGatewayTimeout {
					if resp, err := next.RoundTrip(r); err == nil {
						resp.Body.Close() //nolint:errcheck // its answer is lost on purpose
					}
				}
				return &http.Response{
					StatusCode: code, Status: http.StatusText(code), Header: http.Header{"Content-Type": {"application/json"}},
					Body: http.NoBody, Request: r, ProtoMajor: 1, ProtoMinor: 1,
				}, nil
			})
		})
	}
}

func TestFailingAPIServer(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController(failingAPIServer())
	var nodes []string
	for range 20 {
		nodes = append(nodes, e.node().Name)
	}
	for _, n := range nodes {
		e.eventuallyTainted(n, taintKey(rule), true)
		e.report(n, testCondition, corev1.ConditionTrue)
	}
	for _, n := range nodes {
		e.eventuallyTainted(n, taintKey(rule), false)
	}
}

// TestRestartWithNothingChangedWritesNothing covers the ledger and the rule's status too.
func TestRestartWithNothingChangedWritesNothing(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	c := e.startController()
	done, held := e.node(), e.node()
	e.eventuallyTainted(held.Name, taintKey(rule), true)
	e.report(done.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(done.Name, taintKey(rule), false)
	e.eventuallyClaimed(rule.Name)
	require.Eventually(t, func() bool {
		got := &v1alpha1.NodeReadinessRule{}
		require.NoError(t, e.Get(t.Context(), client.ObjectKeyFromObject(rule), got))
		return got.Status.ReleasedNodes == 1 && got.Status.HeldNodes == 1
	}, settleTime, pollTime)
	c.Stop()
	var writes atomic.Int32
	e.startController(onRequest(func(r *http.Request) {
		if r.Method != http.MethodGet {
			t.Logf("%s %s", r.Method, r.URL.Path)
			writes.Add(1)
		}
	}))
	e.stays(held.Name, "held", func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
	e.stays(done.Name, "free", func(n *corev1.Node) bool { return !hasTaint(n, taintKey(rule)) })
	e.stays(done.Name, "free", func(n *corev1.Node) bool { return !hasTaint(n, taintKey(rule)) })
	require.Zero(t, writes.Load())
}

// TestTwoLeadersForAMoment runs two that both believe to lead.
func TestTwoLeadersForAMoment(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	e.startController()
	var nodes []string
	for range 20 {
		nodes = append(nodes, e.node(tainted(taintKey(rule))).Name)
	}
	for _, n := range nodes {
		e.report(n, testCondition, corev1.ConditionTrue)
	}
	for _, n := range nodes {
		e.eventuallyTainted(n, taintKey(rule), false)
	}
}

// TestLeaderStoppedInTheMiddleOfAWave hands over to a warm standby, by the lease.
func TestLeaderStoppedInTheMiddleOfAWave(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	elected := func(o *ctrl.Options, _ *controller.Config, _ *rest.Config) {
		lease, renew, retry := 15*time.Second, 10*time.Second, time.Second
		o.LeaderElection, o.LeaderElectionID, o.LeaderElectionNamespace = true, "headstart-controller", namespace
		o.LeaderElectionReleaseOnCancel = true
		o.LeaseDuration, o.RenewDeadline, o.RetryPeriod = &lease, &renew, &retry
	}
	first := e.startController(elected)
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.startController(elected)
	var nodes []string
	for range 30 {
		nodes = append(nodes, e.node(tainted(taintKey(rule))).Name)
	}
	for i, n := range nodes {
		e.report(n, testCondition, corev1.ConditionTrue)
		if i == len(nodes)/2 {
			go first.Stop()
		}
	}
	begin := time.Now()
	for _, n := range nodes {
		e.eventuallyTainted(n, taintKey(rule), false)
	}
	require.Less(t, time.Since(begin), 12*time.Second, "the lease was given back, not waited for")
}

// TestAPIServerAway stops the API server under the controller, which needs no restart of its own.
func TestAPIServerAway(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	require.NoError(t, plane.StopAPIServer())
	require.NoError(t, plane.StartAPIServer(t.Context()))
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
}

// TestSlowAPIServer answers every write only after a while: writes to other nodes go on meanwhile.
func TestSlowAPIServer(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController(onRequest(func(r *http.Request) {
		if r.Method == http.MethodPatch {
			select {
			case <-r.Context().Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}))
	var nodes []string
	for range 32 {
		nodes = append(nodes, e.node(tainted(taintKey(rule))).Name)
	}
	for _, n := range nodes {
		e.report(n, testCondition, corev1.ConditionTrue)
	}
	for _, n := range nodes {
		e.eventuallyTainted(n, taintKey(rule), false)
	}
}

// TestNodesClockIsAnHourOff reports with timestamps of a clock that is wrong, under a rule that asks for fresh reports.
func TestNodesClockIsAnHourOff(t *testing.T) {
	for name, skew := range map[string]time.Duration{"behind": -time.Hour, "ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
				r.Spec.Mode = v1alpha1.ModeContinuous
				r.Spec.Conditions[0].MaxAge = &metav1.Duration{Duration: 3 * time.Second}
			})
			e.startController()
			node := e.node(tainted(taintKey(rule)))
			e.reportAt(node.Name, testCondition, corev1.ConditionTrue, time.Now().Add(skew))
			e.eventuallyTainted(node.Name, taintKey(rule), false)
			e.eventuallyTainted(node.Name, taintKey(rule), true)
			e.reportAt(node.Name, testCondition, corev1.ConditionTrue, time.Now().Add(skew))
			e.eventuallyTainted(node.Name, taintKey(rule), false)
		})
	}
}
