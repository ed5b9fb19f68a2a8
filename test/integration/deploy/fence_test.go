package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const (
	controllerName = "system:serviceaccount:headstart-system:headstart-controller"
	fenced         = "headstart-system"
)

// applyShipped makes the objects of shipped files and removes them after the test.
func applyShipped(t *testing.T, files ...string) {
	t.Helper()
	a := newAPI(t)
	a.namespace(t, fenced)
	for _, file := range files {
		for _, objects := range readManifests(t, file) {
			for _, obj := range objects {
				resource := a.resource(t, obj)
				_, err := resource.Create(t.Context(), obj, metav1.CreateOptions{})
				require.NoError(t, err, "%s %s", obj.GetKind(), obj.GetName())
				t.Cleanup(func() { _ = resource.Delete(context.WithoutCancel(t.Context()), obj.GetName(), metav1.DeleteOptions{}) })
			}
		}
	}
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	out := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &out.Object), text)
	return out
}

const ownerOfPool = `ownerReferences: [{apiVersion: headstart.dev/v1alpha1, kind: WarmPool, name: web, uid: u, controller: true}]`

// pause is a replica of a warm pool as the controller makes it, with something added to the pod and to its container.
func pause(pod, container string) string {
	return `{automountServiceAccountToken: false, terminationGracePeriodSeconds: 0,
  securityContext: {runAsNonRoot: true, runAsUser: 65534, seccompProfile: {type: RuntimeDefault}}, ` + pod + `
  containers: [{name: pause, image: registry.k8s.io/pause:3.10, ` + container + `
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}}]}`
}

func deployment(name, owner, spec string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {namespace: default, name: %s, %s},
 spec: {replicas: 1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: %s}}}`, name, owner, spec)
}

// attempt is one thing that whoever has the controller's token might try; "" for why is what it must be able to do.
type attempt struct {
	do  func(client.Client) error
	why string
}

func creates(t *testing.T, text string) func(client.Client) error {
	t.Helper()
	return func(c client.Client) error { return c.Create(t.Context(), object(t, text), client.DryRunAll) }
}

func patches(t *testing.T, text, patch string) func(client.Client) error {
	t.Helper()
	return func(c client.Client) error {
		return c.Patch(t.Context(), object(t, text), client.RawPatch(types.MergePatchType, []byte(patch)), client.DryRunAll)
	}
}

func deletes(t *testing.T, text string) func(client.Client) error {
	t.Helper()
	return func(c client.Client) error { return c.Delete(t.Context(), object(t, text), client.DryRunAll) }
}

// TestTheControllersTokenIsFenced is of somebody who has it, with the rights that all features together give.
func TestTheControllersTokenIsFenced(t *testing.T) {
	applyShipped(t, "deploy/rbac/controller/*.yaml", "deploy/admission/controller.yaml", "deploy/admission/gates.yaml")
	admin, err := client.New(cp.Config(), client.Options{})
	require.NoError(t, err)
	robot, err := client.New(cp.ConfigFor(controllerName, "system:serviceaccounts"), client.Options{})
	require.NoError(t, err)
	node := `{apiVersion: v1, kind: Node, metadata: {name: fenced}}`
	makeFenced(t, admin)
	claim := func(name string) string {
		return fmt.Sprintf(`{apiVersion: karpenter.sh/v1, kind: NodeClaim, metadata: {name: %s}}`, name)
	}
	pool := func(name string) string {
		return fmt.Sprintf(`{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: %s}}`, name)
	}
	taints := func(list string) string { return `{"spec":{"taints":[` + list + `]}}` }
	const quarantine = `{"key":"security.example.com/quarantine","effect":"NoExecute"}`
	eight := grantEight(t, admin, quarantine)
	pod := func(owner, spec string) string {
		return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {namespace: kube-system, name: x, %s}, spec: %s}`, owner, spec)
	}
	attempts := map[string]attempt{
		"own taint":               {patches(t, node, taints(quarantine+`,{"key":"readiness.k8s.io/x","effect":"NoSchedule"}`)), ""},
		"foreign taint taken off": {patches(t, node, taints("")), "may not write the taint security.example.com/quarantine"},
		"foreign taint changed":   {patches(t, node, taints(`{"key":"security.example.com/quarantine","effect":"NoSchedule"}`)), "may not write the taint"},
		"node of Kubernetes' own": {patches(t, node, taints(quarantine+`,{"key":"node.kubernetes.io/unreachable","effect":"NoExecute"}`)), "may not write the taint"},
		"eight granted at once":   {patches(t, node, eight), ""},
		"nine granted at once":    {patches(t, node, strings.Replace(eight, `"taints":[`, `"taints":[{"key":"granted.example.com/8","effect":"NoSchedule"},`, 1)), "at most 8 taints"},
		"the eighth not granted":  {patches(t, node, strings.Replace(eight, "granted.example.com/7", "other.example.com/7", 1)), "other.example.com/7"},
		"own labels":              {patches(t, node, `{"metadata":{"labels":{"headstart.dev/cni-ready":"true","prepull.headstart.dev/web":"true"}}}`), ""},
		"protected label":         {patches(t, node, `{"metadata":{"labels":{"node-restriction.kubernetes.io/tenant":null}}}`), "may not write the label"},
		"foreign label":           {patches(t, node, `{"metadata":{"labels":{"example.com/pool":"secret"}}}`), "may not write the label"},
		"own annotation":          {patches(t, node, `{"metadata":{"annotations":{"headstart.dev/readiness":"{}"}}}`), ""},
		"foreign annotation":      {patches(t, node, `{"metadata":{"annotations":{"example.com/x":"y"}}}`), "may write annotations"},
		"cordon":                  {patches(t, node, `{"spec":{"unschedulable":true}}`), "nothing of the spec"},
		"node finalizer":          {patches(t, node, `{"metadata":{"finalizers":["example.com/x"]}}`), "finalizers of nodes"},

		"eight gates lifted at once": {patches(t, gatedPod("gated-8", 0), `{"spec":{"schedulingGates":null}}`), ""},
		"nine gates lifted at once":  {patches(t, gatedPod("gated-9", 0), `{"spec":{"schedulingGates":null}}`), "at most 8 scheduling gates"},

		"pause pods":                       {creates(t, deployment("web", ownerOfPool, pause("", ""))), ""},
		"pause pods with requests":         {creates(t, deployment("web", ownerOfPool, pause("priorityClassName: x, tolerations: [{operator: Exists}], nodeSelector: {a: b},", "resources: {requests: {cpu: 1}},"))), ""},
		"deployment of nobody":             {creates(t, deployment("web", "", pause("", ""))), "belongs to a WarmPool"},
		"deployment of the host's paths":   {creates(t, deployment("web", ownerOfPool, pause("volumes: [{name: v, hostPath: {path: /}}],", ""))), "pause pods only"},
		"deployment of the host's network": {creates(t, deployment("web", ownerOfPool, pause("hostNetwork: true,", ""))), "pause pods only"},
		"deployment with a command":        {creates(t, deployment("web", ownerOfPool, pause("", "command: [sh],"))), "pause pods only"},
		"deployment with a token":          {creates(t, deployment("web", ownerOfPool, strings.Replace(pause("serviceAccountName: powerful,", ""), "Token: false", "Token: true", 1))), "pause pods only"},
		"privileged deployment":            {creates(t, deployment("web", ownerOfPool, strings.Replace(pause("", ""), "allowPrivilegeEscalation: false", "privileged: true", 1))), "pause pods only"},
		"deployment as root":               {creates(t, deployment("web", ownerOfPool, strings.Replace(pause("", ""), "runAsNonRoot: true, runAsUser: 65534", "runAsUser: 0", 1))), "pause pods only"},
		"somebody's deployment changed":    {patches(t, deployment("theirs", "", pause("", "")), `{"spec":{"replicas":0}}`), "belongs to a WarmPool"},
		"somebody's deployment taken":      {patches(t, deployment("theirs", "", pause("", "")), `{"metadata":{"ownerReferences":[{"apiVersion":"headstart.dev/v1alpha1","kind":"WarmPool","name":"web","uid":"u","controller":true}]}}`), "belongs to a WarmPool"},
		"somebody's deployment deleted":    {deletes(t, deployment("theirs", "", pause("", ""))), "belongs to a WarmPool"},
		"wake pod":                         {creates(t, pod(ownerOfPool, pause("nodeName: fenced,", ""))), ""},
		"privileged pod in kube-system":    {creates(t, pod(ownerOfPool, strings.Replace(pause("", ""), "allowPrivilegeEscalation: false", "privileged: true", 1))), "pause pods only"},
		"somebody's pod deleted":           {deletes(t, `{apiVersion: v1, kind: Pod, metadata: {namespace: kube-system, name: theirs}}`), "belongs to a WarmPool"},

		"state of a pool":      {creates(t, `{apiVersion: v1, kind: ConfigMap, metadata: {namespace: default, name: headstart-warmpool-web, `+ownerOfPool+`}}`), ""},
		"aws-auth":             {patches(t, `{apiVersion: v1, kind: ConfigMap, metadata: {namespace: kube-system, name: aws-auth}}`, `{"data":{"mapUsers":"me"}}`), "belongs to a WarmPool"},
		"ConfigMap of a name":  {creates(t, `{apiVersion: v1, kind: ConfigMap, metadata: {namespace: kube-system, name: other, `+ownerOfPool+`}}`), "headstart-warmpool-"},
		"policy of a tenant":   {creates(t, `{apiVersion: headstart.dev/v1alpha1, kind: PrepullPolicy, metadata: {name: x}, spec: {images: [{image: evil.example/x}]}}`), "belongs to a GatePolicy"},
		"opted in NodePool":    {patches(t, pool("opted"), `{"spec":{"replicas":3}}`), ""},
		"NodePool of others":   {patches(t, pool("prod-static"), `{"spec":{"replicas":0}}`), "names its WarmPool"},
		"NodePool opted in":    {patches(t, pool("prod-static"), `{"metadata":{"annotations":{"headstart.dev/warm-pool":"a/b"}},"spec":{"replicas":0}}`), "names its WarmPool"},
		"limits of a NodePool": {patches(t, pool("opted"), `{"spec":{"limits":{"nodes":"9"}}}`), "nothing of a NodePool but"},
		"NodeClaim that boots": {deletes(t, claim("booting")), ""},
		"NodeClaim that works": {deletes(t, claim("working")), "initialized"},
		"bound NodeClaim":      {deletes(t, claim("bound")), ""},
	}
	// The policies are in force a moment after they are made; the last of the file is the last to be.
	for _, name := range []string{"foreign label", "deployment of nobody", "aws-auth", "NodePool of others", "NodeClaim that works"} {
		require.Eventually(t, func() bool { return attempts[name].do(robot) != nil }, time.Minute, 50*time.Millisecond, name)
	}
	for name, a := range attempts {
		t.Run(name, func(t *testing.T) {
			err := a.do(robot)
			if a.why == "" {
				require.NoError(t, err)
				return
			}
			require.True(t, apierrors.IsForbidden(err) || apierrors.IsInvalid(err), "%v", err)
			require.ErrorContains(t, err, a.why)
		})
	}
}

// gatedPod waits for so many gates.
func gatedPod(name string, gates int) string {
	var list []string
	for i := range gates {
		list = append(list, fmt.Sprintf("{name: example.com/gate-%d}", i))
	}
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {namespace: default, name: %s}, spec: {containers: [{name: a, image: b}], schedulingGates: [%s]}}`,
		name, strings.Join(list, ", "))
}

// makeFenced makes what others have in the cluster.
func makeFenced(t *testing.T, c client.Client) {
	t.Helper()
	for _, text := range []string{
		`{apiVersion: v1, kind: Node, metadata: {name: fenced, labels: {node-restriction.kubernetes.io/tenant: a}},
		  spec: {taints: [{key: security.example.com/quarantine, effect: NoExecute}]}}`,
		deployment("theirs", "", pause("", "")),
		`{apiVersion: v1, kind: Pod, metadata: {namespace: kube-system, name: theirs}, spec: {containers: [{name: a, image: b}]}}`,
		`{apiVersion: v1, kind: ConfigMap, metadata: {namespace: kube-system, name: aws-auth}}`,
		gatedPod("gated-8", 8), gatedPod("gated-9", 9),
	} {
		obj := object(t, text)
		require.NoError(t, c.Create(t.Context(), obj))
		t.Cleanup(func() { _ = c.Delete(context.WithoutCancel(t.Context()), obj) })
	}
	// A new Node is given node.kubernetes.io/not-ready, whatever it says of its taints.
	require.NoError(t, c.Patch(t.Context(), object(t, `{apiVersion: v1, kind: Node, metadata: {name: fenced}}`), client.RawPatch(types.MergePatchType,
		[]byte(`{"spec":{"taints":[{"key":"security.example.com/quarantine","effect":"NoExecute"}]}}`))))
	for _, text := range []string{
		nodePool("opted", "annotations: {headstart.dev/warm-pool: team/web}"), nodePool("prod-static", ""),
		nodeClaim("booting", ""), nodeClaim("working", ""), nodeClaim("bound", "annotations: {headstart.dev/rule: gpu}"),
	} {
		obj := object(t, text)
		require.NoError(t, c.Create(t.Context(), obj), text)
		t.Cleanup(func() { _ = c.Delete(context.WithoutCancel(t.Context()), obj) })
		if obj.GetKind() == "NodeClaim" && obj.GetName() != "booting" {
			require.NoError(t, unstructured.SetNestedSlice(obj.Object, []any{map[string]any{
				"type": "Initialized", "status": "True", "reason": "Initialized", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
			}}, "status", "conditions"))
			require.NoError(t, c.Status().Update(t.Context(), obj))
		}
	}
}

const nodeSpec = `nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default},
 requirements: [{key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}]`

func nodePool(name, meta string) string {
	return fmt.Sprintf(`{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: %s, %s}, spec: {replicas: 2, template: {spec: {%s}}}}`, name, meta, nodeSpec)
}

func nodeClaim(name, meta string) string {
	return fmt.Sprintf(`{apiVersion: karpenter.sh/v1, kind: NodeClaim, metadata: {name: %s, %s}, spec: {%s}}`, name, meta, nodeSpec)
}

// grantEight gives the controller eight foreign taints and labels of nodes, as the chart's values do, and returns a patch that
// writes all of them at once.
func grantEight(t *testing.T, admin client.Client, taint string) string {
	t.Helper()
	var names, labels []string
	list := []string{taint}
	for i := range 8 {
		name := fmt.Sprintf("granted.example.com/%d", i)
		names, labels = append(names, name), append(labels, fmt.Sprintf("%q:%q", name, "x"))
		list = append(list, fmt.Sprintf(`{"key":%q,"effect":"NoSchedule"}`, name))
	}
	all := strings.Join(names, ",")
	for _, obj := range template(t, "controller.nodeTaints={"+all+",granted.example.com/8}", "controller.nodeLabels={"+all+"}") {
		if obj.GetName() != "headstart-controller-nodes" || !strings.HasPrefix(obj.GetKind(), "ClusterRole") {
			continue
		}
		if obj.GetKind() == "ClusterRoleBinding" {
			require.NoError(t, unstructured.SetNestedSlice(obj.Object, []any{map[string]any{
				"kind": "ServiceAccount", "name": "headstart-controller", "namespace": fenced,
			}}, "subjects"))
		}
		require.NoError(t, admin.Create(t.Context(), obj))
		t.Cleanup(func() { _ = admin.Delete(context.WithoutCancel(t.Context()), obj) })
	}
	return `{"metadata":{"labels":{` + strings.Join(labels, ",") + `}},"spec":{"taints":[` + strings.Join(list, ",") + `]}}`
}

// TestRulesNameWhatTheControllerMayWrite has the same policies refuse a rule before it can hold up a node.
func TestRulesNameWhatTheControllerMayWrite(t *testing.T) {
	applyShipped(t, "deploy/admission/rules.yaml")
	c, err := client.New(cp.Config(), client.Options{})
	require.NoError(t, err)
	rule := func(taint string, labels ...string) error {
		var optional []string
		for _, label := range labels {
			optional = append(optional, "{namespace: default, name: x, selector: {matchLabels: {a: b}}, readyLabel: "+label+"}")
		}
		return c.Create(t.Context(), object(t, fmt.Sprintf(`{apiVersion: headstart.dev/v1alpha1, kind: NodeReadinessRule, metadata: {name: named},
 spec: {nodeSelector: {matchLabels: {a: b}}, conditions: [{type: Ready, requiredStatus: "True"}], taint: {key: %s},
 optionalDaemonSets: [%s]}}`, taint, strings.Join(optional, ", "))), client.DryRunAll)
	}
	require.Eventually(t, func() bool { return rule("example.com/taint", "headstart.dev/x-ready") != nil }, time.Minute, 50*time.Millisecond)
	require.ErrorContains(t, rule("example.com/taint", "headstart.dev/x-ready"), "controller.nodeTaints")
	require.ErrorContains(t, rule("readiness.k8s.io/x", "example.com/label"), "controller.nodeLabels")
	require.NoError(t, rule("readiness.k8s.io/x", "headstart.dev/x-ready"))

	for _, obj := range template(t, "controller.nodeTaints={example.com/taint}", "controller.nodeLabels={example.com/label,example.com/second,example.com/third}") {
		if obj.GetName() != "headstart-controller-nodes" {
			continue
		}
		if obj.GetKind() == "ClusterRoleBinding" {
			require.NoError(t, unstructured.SetNestedSlice(obj.Object, []any{map[string]any{
				"kind": "ServiceAccount", "name": "headstart-controller", "namespace": fenced,
			}}, "subjects"))
		}
		require.NoError(t, c.Create(t.Context(), obj))
		t.Cleanup(func() { _ = c.Delete(context.WithoutCancel(t.Context()), obj) })
	}
	require.Eventually(t, func() bool { return rule("example.com/taint", "example.com/label") == nil }, time.Minute, 50*time.Millisecond)
	require.NoError(t, rule("example.com/taint", "example.com/label", "example.com/second", "example.com/third"))
}
