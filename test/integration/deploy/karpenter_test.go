package deploy_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestKarpenterExamples has the API server check them against Karpenter's own CRDs, their CEL rules included. It knows
// what the guide's manifests were refused for.
func TestKarpenterExamples(t *testing.T) {
	a := newAPI(t)
	pools := 0
	for file, objects := range readManifests(t, "deploy/karpenter/[^v]*.yaml") {
		t.Run(file, func(t *testing.T) {
			for _, obj := range objects {
				a.dryRun(t, obj)
				if obj.GetKind() != "NodePool" {
					continue
				}
				pools++
				taints, _, err := unstructured.NestedSlice(obj.Object, "spec", "template", "spec", "startupTaints")
				require.NoError(t, err)
				require.Contains(t, taints, map[string]any{"key": "readiness.k8s.io/headstart", "value": "pending", "effect": "NoSchedule"})
			}
		})
	}
	require.GreaterOrEqual(t, pools, 6)
}
