package readiness_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// What no rule names, and no record can have taken away.
var quarantine = corev1.Taint{Key: "security.example.com/quarantine", Effect: corev1.TaintEffectNoExecute}

const tenantLabel = "node-restriction.kubernetes.io/tenant"

// clockTime is how long the rule waits that nothing meets.
const clockTime = time.Second

// begin makes what the troubles are about.
func (m *model) begin() {
	m.clock = m.e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.NodeSelector.MatchLabels = map[string]string{"clock": m.e.pool}
		r.Spec.Conditions, r.Spec.CSIDrivers = nil, []string{"never.example.com"}
		r.Spec.ReadinessTimeout = &metav1.Duration{Duration: clockTime}
	})
	m.e.t.Cleanup(func() { m.e.setRight("csinodes", true) })
}

// setTaints replaces the whole array by hand, but for what is not the test's to take away.
func (m *model) setTaints(node string, taints ...corev1.Taint) {
	m.e.setTaints(node, append(taints, quarantine)...)
}

// settleApart waits for what holds whatever has happened to rules, rights and records: time-outs have run, and what is no
// rule's is there.
func (m *model) settleApart(n *modelNode) {
	m.e.eventually(n.name, fmt.Sprintf("the time-out of %s ran on %+v after %v", m.clock.Name, *n, m.log), func(node *corev1.Node) bool {
		return !hasTaint(node, taintKey(m.clock))
	})
	node := m.e.get(n.name)
	require.True(m.e.t, hasTaint(node, quarantine.Key), "no rule names the taint, after %v", m.log)
	require.Equal(m.e.t, "true", node.Labels[tenantLabel], "no rule names the label, after %v", m.log)
}

// toggleNonsense gives the rule a selector that the API server lets through and nobody understands, or takes it away. It
// waits for the last good spec to be kept: what is edited twice before anybody looks has no last good form.
func (m *model) toggleNonsense() {
	if m.rule == nil || m.rule.Spec.DryRun || !m.nonsense && !m.claimed {
		return
	}
	if !m.nonsense {
		require.Eventually(m.e.t, func() bool { return m.e.keptMode(m.rule.Name) == m.rule.Spec.Mode }, settleTime, pollTime, "the spec is kept, after %v", m.log)
	}
	m.nonsense = !m.nonsense
	m.e.changeRule(m.rule, map[string]any{"nodeSelector": map[string]any{"matchLabels": map[string]any{"extra": map[bool]any{true: "not valid!"}[m.nonsense]}}})
}

// keptMode is the mode of the rule in the spec that the ledger keeps.
func (e *env) keptMode(rule string) v1alpha1.Mode {
	cm := &corev1.ConfigMap{}
	require.NoError(e.t, client.IgnoreNotFound(e.Get(e.t.Context(), client.ObjectKey{Namespace: namespace, Name: "headstart-readiness"}, cm)))
	var claims []struct {
		Name string                         `json:"name"`
		Spec v1alpha1.NodeReadinessRuleSpec `json:"spec"`
	}
	if cm.Data["claims"] != "" {
		require.NoError(e.t, json.Unmarshal([]byte(cm.Data["claims"]), &claims))
	}
	for i := range claims {
		if claims[i].Name == rule && claims[i].Spec.Mode != "" {
			return claims[i].Spec.Mode
		}
	}
	return ""
}

// badRule makes a rule for nobody's nodes that cannot be used, in one of the ways in which the schema lets one through.
func (m *model) badRule() {
	bad := []map[string]any{
		{"nodeSelector": map[string]any{"matchLabels": map[string]any{"pool": "not valid!"}}, "csiDrivers": []any{"a"}},
		{"nodeSelector": map[string]any{"matchLabels": map[string]any{"pool": "nobody's-" + m.e.pool}}, "requiredDaemonSets": []any{map[string]any{
			"namespace": "kube-system", "selector": map[string]any{"matchLabels": map[string]any{"a": "not valid!"}},
		}}},
	}
	m.e.rawRule(bad[m.rng.IntN(len(bad))])
}

// rawRule makes a rule that Go's types need not be able to hold.
func (e *env) rawRule(spec map[string]any) *unstructured.Unstructured {
	e.t.Helper()
	rule := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "NodeReadinessRule",
		"metadata": map[string]any{"name": fmt.Sprintf("%s-bad%d", e.pool, e.seq.Add(1))}, "spec": spec,
	}}
	require.NoError(e.t, e.Create(e.t.Context(), rule))
	e.t.Cleanup(func() { e.drop(rule) })
	return rule
}

func (m *model) toggleRight() {
	m.blind = !m.blind
	m.e.setRight("csinodes", !m.blind)
}

// setRight gives the controller the right to read a resource, or takes it away.
func (e *env) setRight(resource string, given bool) {
	e.t.Helper()
	ctx, cancel := e.afterTest()
	defer cancel()
	role := &rbacv1.ClusterRole{}
	require.NoError(e.t, e.Get(ctx, client.ObjectKey{Name: "headstart-controller-rules"}, role))
	for i := range role.Rules {
		for j, name := range role.Rules[i].Resources {
			if strings.TrimPrefix(name, "none-") == resource {
				role.Rules[i].Resources[j] = map[bool]string{true: resource, false: "none-" + resource}[given]
			}
		}
	}
	require.NoError(e.t, e.Update(ctx, role))
}

// forge writes a record as a node may that wants to be rid of what others have put there, or that wants to be a nuisance.
func (m *model) forge(n *modelNode) {
	uid := string(m.e.get(n.name).UID)
	entry := func(rule, state string) string {
		return fmt.Sprintf(`{"node":%q,"labels":[%q],"rules":{"forged":{"name":%q,"state":%q,"taint":"%s:NoExecute","at":99999999999}}}`, uid, tenantLabel, rule, state, quarantine.Key)
	}
	texts := []string{entry("x", "held"), entry(m.clock.Name, "timedOut"), `{"node":`, "null", "[]", strings.Repeat("x", readiness.MaxRecordBytes+1)}
	n.forged, n.done = true, false
	m.e.mergePatch(n.name, map[string]any{"metadata": map[string]any{"annotations": map[string]any{readiness.AnnotationReadiness: texts[m.rng.IntN(len(texts))]}}})
}
