package readiness_test

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness/compat/upstream"
)

// TestUpstreamValidationMessages are upstream's, those of its webhook too.
func TestUpstreamValidationMessages(t *testing.T) {
	e := newEnv(t)
	cases := map[string]struct{ spec, want string }{
		"another prefix":                  {`{"taint":{"key":"example.com/x","effect":"NoSchedule"}}`, "taint key must start with 'readiness.k8s.io/'"},
		"two separators":                  {`{"taint":{"key":"readiness.k8s.io/a/b","effect":"NoSchedule"}}`, "taint key must have exactly one '/' separator (prefix/name format)"},
		"no name":                         {`{"taint":{"key":"readiness.k8s.io/","effect":"NoSchedule"}}`, "taint key name part must be 1-63 characters"},
		"a name of wrong characters":      {`{"taint":{"key":"readiness.k8s.io/-a","effect":"NoSchedule"}}`, "taint key name part must consist of alphanumeric characters"},
		"a value of wrong characters":     {`{"taint":{"key":"readiness.k8s.io/a","value":"a b","effect":"NoSchedule"}}`, "taint value must consist of alphanumeric characters"},
		"an effect that is none":          {`{"taint":{"key":"readiness.k8s.io/a","effect":"Never"}}`, "taint effect must be one of 'NoSchedule', 'PreferNoSchedule', 'NoExecute'"},
		"an empty selector":               {`{"nodeSelector":{}}`, "nodeSelector must not be empty"},
		"no conditions":                   {`{"conditions":[]}`, "spec.conditions"},
		"a condition twice":               {`{"conditions":[{"type":"a","requiredStatus":"True"},{"type":"a","requiredStatus":"False"}]}`, "Duplicate value"},
		"a status that is none":           {`{"conditions":[{"type":"a","requiredStatus":"Maybe"}]}`, "supported values"},
		"no required status":              {`{"conditions":[{"type":"a"}]}`, "requiredStatus"},
		"no mode":                         {`{"enforcementMode":null}`, "spec.enforcementMode"},
		"anyOf at bootstrap":              {`{"conditionPolicy":"anyOf"}`, "anyOf conditionPolicy is not supported with bootstrap-only enforcementMode"},
		"a default at bootstrap":          {`{"conditions":[{"type":"a","requiredStatus":"True","defaultStatus":"True"}]}`, "defaultStatus should not be used with bootstrap-only enforcementMode"},
		"a default where one is enough":   {`{"enforcementMode":"continuous","conditionPolicy":"anyOf","conditions":[{"type":"a","requiredStatus":"True","defaultStatus":"True"}]}`, "defaultStatus is not supported when conditionPolicy is anyOf"},
		"a field that upstream has not":   {`{"readinessTimeout":"1m"}`, "unknown field"},
		"a default where all must be met": {`{"enforcementMode":"continuous","conditions":[{"type":"a","requiredStatus":"True","defaultStatus":"True"}]}`, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := e.Create(t.Context(), rawUpstreamRule(t, e.pool, tc.spec), client.FieldValidation("Strict"), client.DryRunAll)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// rawUpstreamRule is a valid rule with some fields of its spec replaced.
func rawUpstreamRule(t *testing.T, name, change string) *unstructured.Unstructured {
	t.Helper()
	var spec, changed map[string]any
	require.NoError(t, json.Unmarshal([]byte(`{
		"conditions":[{"type":"a","requiredStatus":"True"}], "enforcementMode":"bootstrap-only",
		"taint":{"key":"readiness.k8s.io/a","effect":"NoSchedule"}, "nodeSelector":{"matchLabels":{"a":"b"}}
	}`), &spec))
	require.NoError(t, json.Unmarshal([]byte(change), &changed))
	maps.Copy(spec, changed)
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "readiness.node.x-k8s.io/v1alpha1", "kind": "NodeReadinessRule",
		"metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

func TestUpstreamFieldsThatAreFixed(t *testing.T) {
	e := newEnv(t)
	rule := e.upstreamRule()
	cases := map[string]struct{ spec, want string }{
		"conditions":      {`{"conditions":[{"type":"b","requiredStatus":"True"}]}`, "conditions is immutable"},
		"mode":            {`{"enforcementMode":"continuous"}`, "enforcementMode is immutable"},
		"policy":          {`{"conditionPolicy":"anyOf"}`, "conditionPolicy is immutable"},
		"selector":        {`{"nodeSelector":{"matchLabels":{"x":"y"}}}`, "nodeSelector is immutable"},
		"taint key":       {`{"taint":{"key":"readiness.k8s.io/other"}}`, "taint key is immutable"},
		"taint value":     {`{"taint":{"value":"other"}}`, "taint value is immutable"},
		"taint effect":    {`{"taint":{"effect":"NoExecute"}}`, "taint effect is immutable"},
		"explicit policy": {`{"conditionPolicy":"allOf"}`, ""},
		"dryRun":          {`{"dryRun":true}`, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			target := &upstream.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: rule.Name}}
			err := e.Patch(t.Context(), target, client.RawPatch(types.MergePatchType, []byte(`{"spec":`+tc.spec+`}`)), client.DryRunAll)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// TestUpstreamRulesAreListedAsUpstreamListsThem covers print columns and selectable fields.
func TestUpstreamRulesAreListedAsUpstreamListsThem(t *testing.T) {
	e := newEnv(t)
	once := e.upstreamRule()
	always := e.upstreamRule(continuousMode, func(r *upstream.NodeReadinessRule) { r.Spec.DryRun = true })
	for selector, want := range map[string]string{
		"spec.enforcementMode=continuous": always.Name, "spec.dryRun=true": always.Name, "spec.taint.key=" + once.Spec.Taint.Key: once.Name,
	} {
		list := &upstream.NodeReadinessRuleList{}
		require.NoError(t, e.List(t.Context(), list, &client.ListOptions{Raw: &metav1.ListOptions{FieldSelector: selector}}))
		require.Len(t, list.Items, 1, selector)
		require.Equal(t, want, list.Items[0].Name, selector)
	}
	c, err := kubernetes.NewForConfig(plane.Config())
	require.NoError(t, err)
	text, err := c.RESTClient().Get().AbsPath("/apis/readiness.node.x-k8s.io/v1alpha1/nodereadinessrules/"+always.Name).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	require.NoError(t, err)
	table := &metav1.Table{}
	require.NoError(t, json.Unmarshal(text, table))
	var columns []string
	for _, c := range table.ColumnDefinitions {
		columns = append(columns, c.Name)
	}
	require.Equal(t, []string{"Name", "Mode", "Taint", "Effect", "DryRun", "Age"}, columns)
	require.Equal(t, []any{always.Name, "continuous", always.Spec.Taint.Key, string(corev1.TaintEffectNoSchedule), true}, table.Rows[0].Cells[:5])
}
