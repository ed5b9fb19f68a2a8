package readiness_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness/controller"
	"headstart.dev/readiness/v1alpha1"
)

// TestABrokenReporterHoldsAFewNodesAgain is of a reporter that says False everywhere at once.
func TestABrokenReporterHoldsAFewNodesAgain(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Spec.Mode = v1alpha1.ModeContinuous })
	registry := prometheus.NewRegistry()
	e.startController(func(_ *ctrl.Options, c *controller.Config, _ *rest.Config) { c.Registerer = registry })
	nodes := make([]string, 10)
	for i := range nodes {
		nodes[i] = e.node(tainted(taintKey(rule))).Name
		e.report(nodes[i], testCondition, corev1.ConditionTrue)
	}
	for _, node := range nodes {
		e.eventuallyTainted(node, taintKey(rule), false)
	}
	require.NotContains(t, engaged(t, registry), rule.Name)
	for _, node := range nodes {
		e.report(node, testCondition, corev1.ConditionFalse)
	}
	e.eventuallyCondition(rule, "Braked", metav1.ConditionTrue, "8 nodes are left as they are")
	require.Equal(t, 2, e.held(nodes, rule), "20% of 10")
	require.Contains(t, engaged(t, registry), rule.Name)
	require.Eventually(t, func() bool {
		events := &corev1.EventList{}
		require.NoError(t, e.List(t.Context(), events, client.InNamespace("default")))
		for i := range events.Items {
			if event := &events.Items[i]; event.Reason == "Braked" && event.InvolvedObject.UID == rule.UID {
				return event.Type == corev1.EventTypeWarning
			}
		}
		return false
	}, settleTime, pollTime)
	for _, node := range nodes {
		e.report(node, testCondition, corev1.ConditionTrue)
		e.eventuallyTainted(node, taintKey(rule), false)
	}
	e.eventuallyCondition(rule, "Braked", metav1.ConditionFalse, "")
}

// engaged are the rules whose budget the metrics say is used up.
func engaged(t *testing.T, registry *prometheus.Registry) (rules []string) {
	t.Helper()
	problems, err := testutil.GatherAndLint(registry, "headstart_brake_engaged")
	require.NoError(t, err)
	require.Empty(t, problems)
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != "headstart_brake_engaged" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetGauge().GetValue() == 1 {
				rules = append(rules, m.GetLabel()[0].GetValue())
			}
		}
	}
	return rules
}

func (e *env) held(nodes []string, rule *v1alpha1.NodeReadinessRule) (held int) {
	e.t.Helper()
	for _, node := range nodes {
		if hasTaint(e.get(node), taintKey(rule)) {
			held++
		}
	}
	return held
}

// installNodeClaims makes the CRD of NodeClaims, which stays for the tests that come after.
func (e *env) installNodeClaims() {
	e.t.Helper()
	objects, err := readObjects("testdata/nodeclaim-crd.yaml")
	require.NoError(e.t, err)
	for _, o := range objects {
		require.NoError(e.t, client.IgnoreAlreadyExists(e.Create(e.t.Context(), o)))
	}
}

// TestNodeClaimsAreDeletedAFewAtATime is of nodes that time out together, under one controller after another.
func TestNodeClaimsAreDeletedAFewAtATime(t *testing.T) {
	e := newEnv(t)
	e.installNodeClaims()
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.OnTimeout, r.Spec.ReadinessTimeout = v1alpha1.TimeoutDeleteNodeClaim, &metav1.Duration{Duration: time.Second}
	})
	claims := make([]*unstructured.Unstructured, 6)
	for i := range claims {
		claims[i] = &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": map[string]any{"name": fmt.Sprintf("%s-%d", e.pool, i)},
		}}
		require.Eventually(t, func() bool { return e.Create(t.Context(), claims[i]) == nil }, settleTime, pollTime, "the CRD is served")
		t.Cleanup(func() { e.drop(claims[i]) })
		e.node(tainted(taintKey(rule)), func(n *corev1.Node) {
			n.OwnerReferences = []metav1.OwnerReference{{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: claims[i].GetName(), UID: claims[i].GetUID()}}
		})
	}
	left := func() (there int) {
		for _, claim := range claims {
			err := e.Get(t.Context(), client.ObjectKeyFromObject(claim), claim.DeepCopy())
			require.NoError(t, client.IgnoreNotFound(err))
			if err == nil {
				there++
			}
		}
		return there
	}
	for range 2 {
		c := e.startController()
		require.Eventually(t, func() bool { return left() == 5 }, settleTime, pollTime)
		e.eventuallyCondition(rule, "Braked", metav1.ConditionTrue, "NodeClaims deleted")
		require.Equal(t, 5, left(), "10% of 6 is one, and a controller that comes next knows of it")
		c.Stop()
	}
}
