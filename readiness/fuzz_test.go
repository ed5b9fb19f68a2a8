package readiness

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness/v1alpha1"
)

// FuzzWhatNodesWrite is of the annotations that stand on a Node, where a node can write.
func FuzzWhatNodesWrite(f *testing.F) {
	f.Add(`{"node":"u","labels":["a/b"],"rules":{"x":{"name":"x","state":"held","taint":"readiness.k8s.io/x:NoSchedule","at":1}}}`, `{"bootID":"b"}`)
	f.Add(`{"rules":null}`, `[]`)
	f.Fuzz(func(t *testing.T, record, timeline string) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{UID: "u", Annotations: map[string]string{AnnotationReadiness: record, AnnotationTimeline: timeline}}}
		agentBoot(node)
		rec, err := DecodeRecord(node)
		require.Equal(t, node.UID, rec.Node)
		if err != nil {
			require.Empty(t, rec.Rules, "what cannot be read claims nothing")
			return
		}
		text, err := rec.Encode()
		require.NoError(t, err)
		if len(text) <= MaxRecordBytes {
			node.Annotations[AnnotationReadiness] = text
			_, err = DecodeRecord(node)
			require.NoError(t, err, "what is written can be read")
		}
	})
}

// FuzzRules is of rules that a CRD of another version, or none, has let through.
func FuzzRules(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"r"},"spec":{"nodeSelector":{"matchLabels":{"a":"b"}},"conditions":[{"type":"Ready","requiredStatus":"True"}],"taint":{"key":"readiness.k8s.io/r"}}}`))
	f.Add([]byte(`{"spec":{"requiredDaemonSets":[{"namespace":"*","name":"*","selector":{"matchExpressions":[{"key":"a","operator":"In"}]}}],"readinessTimeout":"-5m"}}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var in v1alpha1.NodeReadinessRule
		if json.Unmarshal(data, &in) != nil {
			return
		}
		_, _ = FromNative(&in)
	})
}
