package readiness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness/v1alpha1"
)

// TestEveryNodeThatIsLetGoUnreadyHasAWarning has many nodes reach their time-out at once, as the README promises: a budget for
// events must not keep one of them silent.
func TestEveryNodeThatIsLetGoUnreadyHasAWarning(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Spec.ReadinessTimeout = &metav1.Duration{Duration: time.Second} })
	const many = 60
	silent := map[string]bool{}
	for range many {
		silent[e.node(tainted(taintKey(rule))).Name] = true
	}
	e.startController()
	require.Eventually(t, func() bool {
		events := &corev1.EventList{}
		if err := e.List(t.Context(), events, client.InNamespace("default")); err != nil {
			return false
		}
		for i := range events.Items {
			if event := &events.Items[i]; event.Reason == "ReadinessTimedOut" && event.Type == corev1.EventTypeWarning {
				delete(silent, event.InvolvedObject.Name)
			}
		}
		return len(silent) == 0
	}, time.Minute, pollTime, "of %d nodes these have none: %v", many, &silent)
}
