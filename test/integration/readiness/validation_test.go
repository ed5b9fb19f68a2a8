package readiness_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// optional is a spec with an optional DaemonSet.
func optional(of string, more ...string) string {
	parts := append([]string{`"conditions":[{"type":"a"}]`, `"optionalDaemonSets":[{"namespace":"a","name":"b",` + of + `}]`}, more...)
	return "{" + strings.Join(parts, ",") + "}"
}

// probing is a spec with a readinessProbe.
func probing(probe string) string {
	return `{"requiredDaemonSets":[{"namespace":"a","name":"b","readinessProbe":` + probe + `}]}`
}

// TestValidationLetsThrough is of what rules of the field say.
func TestValidationLetsThrough(t *testing.T) {
	e := newEnv(t)
	for name, text := range map[string]string{
		"Cluster Autoscaler's prefix": `{"conditions":[{"type":"a"}],"taint":{"key":"startup-taint.cluster-autoscaler.kubernetes.io/cni"}}`,
		"a key that fleets have":      `{"conditions":[{"type":"a"}],"taint":{"key":"node.cilium.io/agent-not-ready"}}`,
		"a label of one's own":        optional(`"readyLabel":"headstart.dev/ebs-ready"`),
		"every DaemonSet but some":    `{"requiredDaemonSets":[{"namespace":"*","name":"*","except":["kube-proxy","logs/agent","dev/*"]}]}`,
		"DRA":                         `{"resourceSlices":[{"driver":"gpu.nvidia.com","min":8}]}`,
		"an object":                   `{"objects":[{"apiVersion":"v1","kind":"ConfigMap","namespace":"a","name":"b","expression":"object.data.ready == 'true'"}],"suspend":true}`,
		"damping and budget":          `{"mode":"continuous","conditions":[{"type":"a"}],"damping":{"holdAfter":"30s","releaseAfter":"0s"},"budget":{"window":"5m","nodeClaimDeletions":"10%","reholds":3}}`,
		"Cilium's own probe":          probing(`{"httpGet":{"host":"127.0.0.1","path":"/healthz","port":9879,"httpHeaders":[{"name":"brief","value":"true"}]}}`),
		"EBS's own probe":             probing(`{"httpGet":{"path":"/healthz","port":"healthz"}}`),
		"a share of a resource":       `{"resources":[{"name":"memory","min":"8Gi"}]}`,
	} {
		for _, apiVersion := range []string{"headstart.dev/v1alpha1", "nodereadiness.k8s.io/v1alpha1"} {
			t.Run(name+" "+apiVersion, func(t *testing.T) {
				var spec map[string]any
				require.NoError(t, json.Unmarshal([]byte(text), &spec))
				rule := &unstructured.Unstructured{Object: map[string]any{
					"apiVersion": apiVersion, "kind": "NodeReadinessRule", "metadata": map[string]any{"name": e.pool}, "spec": spec,
				}}
				require.NoError(t, e.Create(t.Context(), rule, client.FieldValidation("Strict"), client.DryRunAll))
			})
		}
	}
}

// TestValidationSaysWhatToWriteInstead needs no webhook and no controller.
func TestValidationSaysWhatToWriteInstead(t *testing.T) {
	e := newEnv(t)
	cases := map[string]struct{ spec, want string }{
		"an empty selector":                   {`{"nodeSelector":{}}`, "kubernetes.io/os: linux"},
		"nothing required":                    {`{"nodeSelector":{"matchLabels":{"a":"b"}}}`, "the rule requires nothing"},
		"empty requirements":                  {`{"requiredDaemonSets":[],"conditions":[],"csiDrivers":[]}`, "the rule requires nothing"},
		"a selector with an unknown operator": {`{"nodeSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}`, "must be one of In, NotIn, Exists, DoesNotExist"},
		"In without values":                   {`{"nodeSelector":{"matchExpressions":[{"key":"a","operator":"In"}]}}`, "matchExpressions.values"},
		"an unknown mode":                     {`{"mode":"sometimes"}`, "supported values"},
		"anyOf at bootstrap":                  {`{"conditionPolicy":"anyOf"}`, "anyOf needs mode continuous"},
		"defaultStatus at bootstrap":          {`{"conditions":[{"type":"a","defaultStatus":"True"}]}`, "defaultStatus needs mode continuous"},
		"a status that is none":               {`{"conditions":[{"type":"a","requiredStatus":"Maybe"}]}`, "supported values"},
		"a duration without a unit":           {`{"readinessTimeout":"60"}`, "readinessTimeout"},
		"no time at all":                      {`{"readinessTimeout":"0s"}`, "onTimeout: Hold"},
		"an unknown timeout action":           {`{"onTimeout":"Panic"}`, "supported values"},
		"a taint of Kubernetes":               {`{"taint":{"key":"node.kubernetes.io/not-ready"}}`, "belong to others"},
		"a taint of a SIG":                    {`{"taint":{"key":"other.k8s.io/x"}}`, "belong to others"},
		"a taint of Karpenter":                {`{"taint":{"key":"karpenter.sh/disrupted"}}`, "belong to others"},
		"a taint that is a label":             {`{"taint":{"key":"dedicated"},"nodeSelector":{"matchLabels":{"dedicated":"x"}}}`, "such a taint is there to stay"},
		"a label of the topology":             {optional(`"readyLabel":"topology.kubernetes.io/zone"`), "belong to others"},
		"a label of Karpenter":                {optional(`"readyLabel":"karpenter.sh/nodepool"`), "belong to others"},
		"a label that Headstart keeps":        {optional(`"readyLabel":"headstart.dev/cni-ready"`), "keeps for itself"},
		"a label of the selector":             {optional(`"readyLabel":"pool"},{"namespace":"b","name":"c"`, `"nodeSelector":{"matchLabels":{"pool":"x"}}`), "nodeSelector uses"},
		"a resource that is no quantity":      {`{"resources":[{"name":"nvidia.com/gpu","min":"1e1.5"}]}`, "spec.resources[0].min"},
		"a negative resource":                 {`{"resources":[{"name":"nvidia.com/gpu","min":-1}]}`, "above 0"},
		"no resource":                         {`{"resources":[{"name":"nvidia.com/gpu","min":"0"}]}`, "spec.resources[0].min"},
		"no devices":                          {`{"resourceSlices":[{"driver":"gpu.example.com","min":0}]}`, "greater than or equal to 1"},
		"an object in plural":                 {`{"objects":[{"apiVersion":"v1","kind":"configmaps","name":"a"}]}`, "ConfigMap, not configmaps"},
		"a damping of less than nothing":      {`{"damping":{"holdAfter":"-1s"}}`, "spec.damping.holdAfter"},
		"a budget of nothing":                 {`{"budget":{"reholds":0}}`, "from 1% to 100%"},
		"a budget of too much":                {`{"budget":{"nodeClaimDeletions":"200%"}}`, "from 1% to 100%"},
		"a window of nothing":                 {`{"budget":{"window":"0s"}}`, "at least 1s"},
		"all namespaces by one name":          {`{"requiredDaemonSets":[{"namespace":"*","name":"a"}]}`, "name: '*'"},
		"an exception to one":                 {`{"requiredDaemonSets":[{"namespace":"a","name":"b","except":["c"]}]}`, "except needs name"},
		"a pattern of names":                  {`{"requiredDaemonSets":[{"namespace":"a","name":"aws-*"}]}`, "spec.requiredDaemonSets[0].name"},
		"a selector of all pods":              {`{"requiredDaemonSets":[{"namespace":"a","selector":{}}]}`, "selects every pod"},
		"a probe of nothing":                  {probing(`{"periodSeconds":1}`), "exactly one of"},
		"a probe of two things":               {probing(`{"tcpSocket":{"port":1},"grpc":{"port":1}}`), "exactly one of"},
		"a probe of no port":                  {probing(`{"httpGet":{"port":0}}`), "from 1 to 65535"},
		"a probe of a port beyond":            {probing(`{"tcpSocket":{"port":65536}}`), "from 1 to 65535"},
		"a probe of an empty command":         {probing(`{"exec":{"command":[]}}`), "exec.command is empty"},
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
		"rearmOnReboot":false,"suspend":false,"existingNodes":"Ignore","dryRun":false
	}`, string(spec))
}
