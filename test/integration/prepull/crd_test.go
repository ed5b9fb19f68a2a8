package prepull_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

func TestPolicyIsValidatedWithWordsOfHelp(t *testing.T) {
	c, err := client.New(plane.Config(), client.Options{})
	require.NoError(t, err)
	c = client.WithFieldValidation(c, "Strict")
	cases := map[string]struct{ spec, wantErr string }{
		"as it is documented": {spec: `
nodeSelector: {matchLabels: {a: b}}
images: [{image: "registry.example/app:v1", priority: 100, required: true}]
fromWorkloads: [{kind: Deployment, namespace: prod, selector: {matchLabels: {app: web}}}]
learn: {window: 168h, top: 10}
mode: Auto
pin: true
maxBytes: 40Gi
maxNodes: 0`},
		"a Rollout":                      {spec: `fromWorkloads: [{apiVersion: argoproj.io/v1alpha1, kind: Rollout, namespace: prod}]`},
		"learn alone, with its defaults": {spec: `learn: {}`},
		"a size as a number":             {spec: `{learn: {}, maxBytes: 1000000}`},
		"a gate's candidates":            {spec: `{images: [{image: a}], nodeSelector: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [n1, n2]}]}}`},
		"lazy":                           {spec: `{learn: {}, mode: Lazy}`},
		"eager":                          {spec: `{learn: {}, mode: Eager}`},
		"a mode that is none":            {spec: `{learn: {}, mode: lazy}`, wantErr: `supported values: "Eager", "Lazy", "Auto"`},
		"nothing to pull":                {spec: `mode: Auto`, wantErr: "nothing to prepull: set images, fromWorkloads or learn"},
		"empty lists are nothing":        {spec: `{images: [], fromWorkloads: []}`, wantErr: "nothing to prepull: set images, fromWorkloads or learn"},
		"an unknown field":               {spec: `{images: [{image: a, pull: always}]}`, wantErr: `unknown field "spec.images[0].pull"`},
		"a URL":                          {spec: `{images: [{image: "https://registry.example/app"}]}`, wantErr: "write the image as a pod names it"},
		"a name with a space":            {spec: `{images: [{image: "app v1"}]}`, wantErr: "an image name has no spaces"},
		"an image twice":                 {spec: `{images: [{image: a}, {image: a}]}`, wantErr: "Duplicate value"},
		"a foreign kind alone":           {spec: `fromWorkloads: [{kind: Rollout}]`, wantErr: "set it, for example argoproj.io/v1alpha1 for kind Rollout"},
		"days":                           {spec: `learn: {window: 7d}`, wantErr: "there is no unit for days"},
		"a window of nothing":            {spec: `learn: {window: 1s}`, wantErr: "window must be between 1m and 2160h"},
		"too many learned images":        {spec: `learn: {top: 101}`, wantErr: "less than or equal to 100"},
		"an interval without unit":       {spec: `{learn: {}, resolveInterval: "60"}`, wantErr: "must be a duration with a unit"},
		"an interval that is an attack":  {spec: `{learn: {}, resolveInterval: 1s}`, wantErr: "resolveInterval must be at least 10s"},
		"no room":                        {spec: `{learn: {}, maxBytes: "0"}`, wantErr: "maxBytes must be a size above 0"},
		"no size":                        {spec: `{learn: {}, maxBytes: lots}`, wantErr: "maxBytes"},
		"a negative number of nodes":     {spec: `{learn: {}, maxNodes: -1}`, wantErr: "greater than or equal to 0"},
		"an operator that is none":       {spec: `{learn: {}, nodeSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}`, wantErr: "operator must be one of In, NotIn, Exists, DoesNotExist"},
		"In without values":              {spec: `{learn: {}, nodeSelector: {matchExpressions: [{key: a, operator: In}]}}`, wantErr: "values must be set for In and NotIn"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var spec map[string]any
			require.NoError(t, yaml.Unmarshal([]byte(tc.spec), &spec))
			policy := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "headstart.dev/v1alpha1", "kind": "PrepullPolicy",
				"metadata": map[string]any{"generateName": "crd-"}, "spec": spec,
			}}
			err := c.Create(t.Context(), policy, client.DryRunAll)
			if tc.wantErr == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.wantErr)
		})
	}
}
