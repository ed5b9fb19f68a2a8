package readiness_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestValidationSaysWhatToWriteInstead needs no webhook and no controller.
func TestValidationSaysWhatToWriteInstead(t *testing.T) {
	e := newEnv(t)
	cases := map[string]struct{ spec, want string }{
		"an empty selector":                   {`{"nodeSelector":{}}`, "kubernetes.io/os: linux"},
		"a selector with an unknown operator": {`{"nodeSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}`, "must be one of In, NotIn, Exists, DoesNotExist"},
		"In without values":                   {`{"nodeSelector":{"matchExpressions":[{"key":"a","operator":"In"}]}}`, "matchExpressions.values"},
		"an unknown mode":                     {`{"mode":"sometimes"}`, "supported values"},
		"anyOf at bootstrap":                  {`{"conditionPolicy":"anyOf"}`, "anyOf needs mode continuous"},
		"defaultStatus at bootstrap":          {`{"conditions":[{"type":"a","defaultStatus":"True"}]}`, "defaultStatus needs mode continuous"},
		"a status that is none":               {`{"conditions":[{"type":"a","requiredStatus":"Maybe"}]}`, "supported values"},
		"a duration without a unit":           {`{"readinessTimeout":"60"}`, "readinessTimeout"},
		"no time at all":                      {`{"readinessTimeout":"0s"}`, "onTimeout: Hold"},
		"an unknown timeout action":           {`{"onTimeout":"Panic"}`, "supported values"},
		"a taint of another prefix":           {`{"taint":{"key":"example.com/x"}}`, "spec.taint.key"},
		"an unknown effect":                   {`{"taint":{"effect":"Never"}}`, "supported values"},
		"a daemon set without a name":         {`{"requiredDaemonSets":[{"namespace":"a"}]}`, "name the DaemonSet"},
		"a probe of all daemon sets":          {`{"requiredDaemonSets":[{"namespace":"a","name":"*","readinessProbe":{"exec":{"command":["x"]}}}]}`, "readinessProbe needs a name"},
		"an unknown field":                    {`{"taints":[]}`, "unknown field"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var spec map[string]any
			require.NoError(t, json.Unmarshal([]byte(tc.spec), &spec))
			rule := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "headstart.dev/v1alpha1", "kind": "NodeReadinessRule",
				"metadata": map[string]any{"name": e.pool}, "spec": spec,
			}}
			err := e.Create(t.Context(), rule, client.FieldValidation("Strict"), client.DryRunAll)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestDefaults(t *testing.T) {
	e := newEnv(t)
	rule := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "headstart.dev/v1alpha1", "kind": "NodeReadinessRule",
		"metadata": map[string]any{"name": e.pool}, "spec": map[string]any{"conditions": []any{map[string]any{"type": "a"}}},
	}}
	require.NoError(t, e.Create(t.Context(), rule, client.DryRunAll))
	spec, err := json.Marshal(rule.Object["spec"])
	require.NoError(t, err)
	require.JSONEq(t, `{
		"mode":"bootstrap-only","conditionPolicy":"allOf","conditions":[{"type":"a","requiredStatus":"True"}],
		"taint":{"value":"pending","effect":"NoSchedule"},"readinessTimeout":"10m","onTimeout":"Release",
		"rearmOnReboot":false,"existingNodes":"Ignore","dryRun":false
	}`, string(spec))
}
