package readiness_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/upstream"
	"headstart.dev/readiness/v1alpha1"
)

// ruleCondition waits until a rule's condition is as it should be, and returns it.
func (e *env) ruleCondition(rule, kind string, status metav1.ConditionStatus) metav1.Condition {
	e.t.Helper()
	var found *metav1.Condition
	require.Eventually(e.t, func() bool {
		r := &v1alpha1.NodeReadinessRule{}
		require.NoError(e.t, client.IgnoreNotFound(e.Get(e.t.Context(), client.ObjectKey{Name: rule}, r)))
		found = meta.FindStatusCondition(r.Status.Conditions, kind)
		return found != nil && found.Status == status
	}, settleTime, pollTime, "%s of %s: %s", kind, rule, status)
	return *found
}

// TestTheSchemaRefusesWhatCannotBeRead is of what Go's types refuse: an object that comes through stops more than itself.
func TestTheSchemaRefusesWhatCannotBeRead(t *testing.T) {
	e := newEnv(t)
	set := func(probe map[string]any) map[string]any {
		return map[string]any{"nodeSelector": map[string]any{"matchLabels": map[string]any{"pool": e.pool}}, "requiredDaemonSets": []any{map[string]any{"namespace": "a", "name": "b", "readinessProbe": probe}}}
	}
	for name, spec := range map[string]map[string]any{
		"a quantity":         {"nodeSelector": map[string]any{"matchLabels": map[string]any{"pool": e.pool}}, "resources": []any{map[string]any{"name": "nvidia.com/gpu", "min": "1e1.5"}}},
		"a port":             set(map[string]any{"httpGet": map[string]any{"port": int64(1) << 40}}),
		"a port of zero":     set(map[string]any{"tcpSocket": map[string]any{"port": int64(0)}}),
		"a port of gRPC":     set(map[string]any{"grpc": map[string]any{"port": int64(70000)}}),
		"a number too large": set(map[string]any{"periodSeconds": int64(1) << 40, "tcpSocket": map[string]any{"port": int64(80)}}),
	} {
		rule := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": v1alpha1.GroupVersion.String(), "kind": "NodeReadinessRule",
			"metadata": map[string]any{"name": fmt.Sprintf("%s-%d", e.pool, e.seq.Add(1))}, "spec": spec,
		}}
		err := e.Create(t.Context(), rule)
		if err == nil {
			e.drop(rule)
		}
		require.True(t, apierrors.IsInvalid(err), "%s: %v", name, err)
	}
}

// TestOneRuleThatNobodyUnderstandsStopsNothingElse has the objects there before the controller is, which reads them in one list.
func TestOneRuleThatNobodyUnderstandsStopsNothingElse(t *testing.T) {
	e := newEnv(t)
	bad := e.rawRule(map[string]any{"nodeSelector": map[string]any{"matchLabels": map[string]any{"pool": "not valid!"}}, "csiDrivers": []any{"a"}})
	rule := e.rule()
	e.startController()
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
	require.Contains(t, e.ruleCondition(bad.GetName(), "Accepted", metav1.ConditionFalse).Message, "nodeSelector")
}

func TestAMissingRightStopsOnlyTheRuleThatNeedsIt(t *testing.T) {
	e := newEnv(t)
	t.Cleanup(func() { e.setRight("csinodes", true) })
	e.setRight("csinodes", false)
	sighted := e.rule()
	blind := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.Conditions, r.Spec.CSIDrivers = nil, []string{"d"}
		r.Spec.ReadinessTimeout = &metav1.Duration{Duration: 4 * time.Second}
	})
	e.startController()
	node := e.node(tainted(taintKey(sighted)), tainted(taintKey(blind)))
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	got := e.eventuallyTainted(node.Name, taintKey(sighted), false)
	require.True(t, hasTaint(got, taintKey(blind)))
	require.Contains(t, e.ruleCondition(blind.Name, "Undecided", metav1.ConditionTrue).Message, "cannot list csinodes: forbidden")
	e.eventuallyTainted(node.Name, taintKey(blind), false)
	require.Eventually(t, func() bool {
		events := &corev1.EventList{}
		require.NoError(t, e.List(t.Context(), events, client.MatchingFields{"involvedObject.name": blind.Name, "reason": "ReadinessTimedOut"}))
		return len(events.Items) == 1 && strings.Contains(events.Items[0].Message, "1 nodes were not ready")
	}, settleTime, pollTime)
	e.setRight("csinodes", true)
	e.ruleCondition(blind.Name, "Undecided", metav1.ConditionFalse)
}

func TestARuleEditedToNonsenseStaysInForceOverARestart(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	c := e.startController()
	node := e.node()
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	require.Eventually(t, func() bool { return e.keptMode(rule.Name) != "" }, settleTime, pollTime)
	e.changeRule(rule, map[string]any{"nodeSelector": map[string]any{"matchLabels": map[string]any{"extra": "not valid!"}}})
	require.Contains(t, e.ruleCondition(rule.Name, "Accepted", metav1.ConditionFalse).Message, "stays in force")
	e.stays(node.Name, "it is held still", func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
	c.Stop()
	e.startController()
	e.stays(node.Name, "it is held still", func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
	e.eventuallyTainted(e.node().Name, taintKey(rule), true)
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
}

// TestANodeFreesItselfOfNothingThatNoRuleNames is of a node that writes its own record.
func TestANodeFreesItselfOfNothingThatNoRuleNames(t *testing.T) {
	e := newEnv(t)
	rule := e.rule()
	e.startController()
	node := e.node(func(n *corev1.Node) {
		n.Spec.Taints, n.Labels[tenantLabel] = []corev1.Taint{quarantine}, "true"
	})
	e.eventuallyTainted(node.Name, taintKey(rule), true)
	e.mergePatch(node.Name, map[string]any{"metadata": map[string]any{"annotations": map[string]any{readiness.AnnotationReadiness: fmt.Sprintf(
		`{"node":%q,"labels":[%q],"rules":{"x":{"name":"x","state":"held","taint":"%s:NoExecute"}}}`, node.UID, tenantLabel, quarantine.Key)}}})
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyTainted(node.Name, taintKey(rule), false)
	e.stays(node.Name, "what no rule names", func(n *corev1.Node) bool {
		return hasTaint(n, quarantine.Key) && n.Labels[tenantLabel] == "true"
	})
}

// TestALeaseInATenantsNamespaceStopsNothing is of one that has the name of upstream's.
func TestALeaseInATenantsNamespaceStopsNothing(t *testing.T) {
	e := newEnv(t)
	holder, renewed, seconds := "anybody", metav1.NowMicro(), int32(15)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: upstream.LeaseName},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &renewed, LeaseDurationSeconds: &seconds},
	}
	require.NoError(t, e.Create(t.Context(), lease))
	t.Cleanup(func() { e.drop(lease) })
	rule := e.upstreamRule()
	e.startController(upstreamForm)
	e.eventuallyTainted(e.node().Name, rule.Spec.Taint.Key, true)
}
