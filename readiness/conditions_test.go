package readiness_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness"
)

func TestPackedConditionsKeepWhatRulesRead(t *testing.T) {
	at := metav1.NewTime(born)
	packed := readiness.PackConditions([]corev1.NodeCondition{
		{Type: "A", Status: corev1.ConditionTrue, LastHeartbeatTime: at, Reason: "R", Message: "m"},
		{Type: "B", Status: "Strange", LastTransitionTime: at},
	})
	a, b := packed.Find("A"), packed.Find("B")
	require.Equal(t, corev1.ConditionTrue, a.Status)
	require.True(t, at.Equal(&a.LastHeartbeatTime))
	require.True(t, a.LastTransitionTime.IsZero())
	require.Equal(t, corev1.ConditionStatus("Strange"), b.Status)
	require.True(t, at.Equal(&b.LastTransitionTime))
	require.Nil(t, packed.Find("C"))
	require.Nil(t, readiness.PackConditions(nil))

	turned := readiness.Conditions{packed[1], packed[0]}
	require.Equal(t, &packed[0], turned.Same(&packed[0], 0))
	require.Nil(t, turned[:1].Same(&packed[0], 0))
}
