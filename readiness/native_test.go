package readiness_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// fromSpec converts a rule as a manifest has it.
func fromSpec(t *testing.T, spec string) (*readiness.Rule, error) {
	t.Helper()
	in := &v1alpha1.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: "r", UID: ruleUID}}
	require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &in.Spec))
	return readiness.FromNative(in)
}

// TestRulesThatAreRefused is of what the API server lets through where its CRD is an older one, or its schema cannot tell.
func TestRulesThatAreRefused(t *testing.T) {
	const (
		met   = "conditions: [{type: a}]\n"
		ebs   = "optionalDaemonSets: [{namespace: kube-system, name: ebs, readyLabel: %s}]\n"
		probe = "requiredDaemonSets: [{namespace: kube-system, name: a, readinessProbe: %s}]"
	)
	with := func(format, value string) string { return strings.ReplaceAll(format, "%s", value) }
	for name, tc := range map[string]struct{ spec, want string }{
		"nothing required":                   {"mode: continuous", "requires nothing"},
		"only optional parts":                {with(ebs, "headstart.dev/ebs-ready"), "requires nothing"},
		"a label of the topology":            {met + with(ebs, "topology.kubernetes.io/zone"), "kubernetes.io belong to others"},
		"a protected label":                  {met + with(ebs, "node-restriction.kubernetes.io/tenant"), "belong to others"},
		"a label of Karpenter":               {met + with(ebs, "karpenter.sh/nodepool"), "karpenter.sh belong to others"},
		"a label of a SIG":                   {met + with(ebs, "kueue.x-k8s.io/x"), ""},
		"a label of k8s.io":                  {met + with(ebs, "node.k8s.io/x"), "k8s.io belong to others"},
		"a label of our own that is derived": {met + with(ebs, "headstart.dev/cni-ready"), "keeps"},
		"a label of a PrepullPolicy":         {met + with(ebs, "prepull.headstart.dev/web"), "keeps"},
		"a label of the nodeSelector":        {met + with(ebs, "pool") + "nodeSelector: {matchLabels: {pool: a}}", "selects by"},
		"a label of an expression":           {met + with(ebs, "pool") + "nodeSelector: {matchExpressions: [{key: pool, operator: Exists}]}", "selects by"},
		"a label of one's own":               {met + with(ebs, "example.com/ebs"), ""},
		"a taint of Kubernetes":              {met + "taint: {key: node.kubernetes.io/unschedulable}", "belong to others"},
		"a taint of Karpenter":               {met + "taint: {key: karpenter.sh/disrupted}", "belong to others"},
		"Cluster Autoscaler's prefix":        {met + "taint: {key: startup-taint.cluster-autoscaler.kubernetes.io/cni}", ""},
		"Cilium's taint":                     {met + "taint: {key: node.cilium.io/agent-not-ready}", ""},
		"a taint of the nodeSelector":        {met + "taint: {key: dedicated}\nnodeSelector: {matchLabels: {dedicated: gpu}}", "there to stay"},
		"a negative resource":                {`resources: [{name: cpu, min: "-1"}]`, "not above 0"},
		"a budget of nothing":                {met + "budget: {reholds: 0}", "neither a number"},
		"a budget without a sign":            {met + `budget: {reholds: "20"}`, "neither a number"},
		"a budget of too much":               {met + "budget: {nodeClaimDeletions: 101%}", "neither a number"},
		"a window of nothing":                {met + "budget: {window: 0s}", "budget.window"},
		"a damping before its time":          {met + "damping: {holdAfter: -1s}", "negative"},
		"a probe of another host":            {with(probe, "{httpGet: {host: 169.254.169.254, port: 80}}"), "not the node itself"},
		"a probe of this host":               {with(probe, "{httpGet: {host: 127.0.0.1, port: 80}}"), ""},
		"a probe of no port":                 {with(probe, "{tcpSocket: {port: 0}}"), "from 1 to 65535"},
		"a probe of a port by nonsense":      {with(probe, `{tcpSocket: {port: "not a port"}}`), "neither a number"},
		"a probe of an unknown scheme":       {with(probe, "{httpGet: {port: 80, scheme: FTP}}"), "HTTP or HTTPS"},
		"a probe of a bad header":            {with(probe, `{httpGet: {port: 80, httpHeaders: [{name: "a b", value: x}]}}`), "not a header"},
		"a probe of nothing":                 {with(probe, "{periodSeconds: 1}"), "exactly one"},
		"a probe of two things":              {with(probe, "{tcpSocket: {port: 1}, grpc: {port: 1}}"), "exactly one"},
		"a command without words":            {with(probe, "{exec: {}}"), "exec.command is empty"},
		"Cilium's own probe":                 {with(probe, "{httpGet: {host: 127.0.0.1, path: /healthz, port: 9879, scheme: HTTP, httpHeaders: [{name: brief, value: 'true'}]}}"), ""},
		"EBS's own probe":                    {with(probe, "{httpGet: {path: /healthz, port: healthz}}"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fromSpec(t, tc.spec)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestBudgetDefaults(t *testing.T) {
	bootstrap, err := fromSpec(t, "conditions: [{type: a}]")
	require.NoError(t, err)
	require.Equal(t, readiness.Budget{Window: 10 * time.Minute, Deletions: readiness.Share{Percent: 10}}, bootstrap.Budget)
	require.True(t, bootstrap.Budget.Reholds.Unbounded())
	continuous, err := fromSpec(t, "{mode: continuous, conditions: [{type: a}], budget: {window: 1m, nodeClaimDeletions: 3}}")
	require.NoError(t, err)
	require.Equal(t, readiness.Budget{Window: time.Minute, Deletions: readiness.Share{Nodes: 3}, Reholds: readiness.Share{Percent: 20}}, continuous.Budget)
	for nodes, want := range map[int]int{0: 1, 4: 1, 5: 1, 10: 2, 99: 19} {
		require.Equal(t, want, continuous.Budget.Reholds.Of(nodes))
	}
	require.Equal(t, 3, continuous.Budget.Deletions.Of(1000))
}

func TestBrakeCountsSubjectsWithinItsWindow(t *testing.T) {
	var b readiness.Brake
	at := func(seconds int) time.Time { return born.Add(time.Duration(seconds) * time.Second) }
	allow := func(subject string, seconds int) bool {
		allowed, _ := b.Allow(subject, 2, time.Minute, at(seconds))
		if allowed {
			b.Note(subject, at(seconds))
		}
		return allowed
	}
	require.True(t, allow("a", 0))
	require.True(t, allow("b", 10))
	require.False(t, allow("c", 20))
	_, retry := b.Allow("c", 2, time.Minute, at(20))
	require.Equal(t, at(60), retry, "when the first one no longer counts")
	require.True(t, allow("b", 30), "the same again is nothing more")
	require.True(t, allow("c", 60))
	require.False(t, allow("a", 61))
}

// TestVirtualNodes is of nodes on which no DaemonSet runs.
func TestVirtualNodes(t *testing.T) {
	spec := func(s string) *readiness.Rule {
		r, err := fromSpec(t, "conditions: [{type: a}]\n"+s)
		require.NoError(t, err)
		return r
	}
	linux := spec("nodeSelector: {matchLabels: {kubernetes.io/os: linux}}")
	meant := spec("nodeSelector: {matchLabels: {eks.amazonaws.com/compute-type: fargate}}")
	node := func(labels map[string]string, taints ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}}
		n.Labels["kubernetes.io/os"] = "linux"
		for _, key := range taints {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key})
		}
		return n
	}
	fargate := node(map[string]string{"eks.amazonaws.com/compute-type": "fargate"})
	require.False(t, linux.Binds(fargate))
	require.True(t, meant.Binds(fargate))
	require.False(t, linux.Binds(node(map[string]string{"type": "virtual-kubelet"})))
	require.False(t, linux.Binds(node(map[string]string{}, "virtual-kubelet.io/provider")))
	require.True(t, linux.Binds(node(map[string]string{"eks.amazonaws.com/compute-type": "auto"})))
	require.True(t, linux.Binds(node(map[string]string{"type": "kwok"})))
	fargate.Annotations = map[string]string{readiness.AnnotationRule: "r"}
	require.True(t, linux.Binds(fargate), "by its own annotation")
}

func TestPodWait(t *testing.T) {
	const want = "kubectl wait --for=condition=Initialized pod -l k8s-app=aws-node -n kube-system"
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	for name, command := range map[string][]string{
		"the guide's":         sh("kubectl wait --for=condition=Initialized \\\n  pod -l k8s-app=aws-node \\\n  -n kube-system \\\n  --timeout=30s\n"),
		"words":               {"kubectl", "wait", "--for=condition=Initialized", "pod", "-l", "k8s-app=aws-node", "-n", "kube-system"},
		"other spellings":     {"/usr/bin/kubectl", "-nkube-system", "wait", "pods", "--selector=k8s-app=aws-node", "--for", "condition=Initialized=True", "--timeout", "5s"},
		"exec in a shell":     {"/bin/bash", "-ec", `exec kubectl wait po --namespace "kube-system" -l 'k8s-app=aws-node' --for=condition=Initialized`},
		"the value in one":    sh("kubectl wait pod -lk8s-app=aws-node --namespace=kube-system --for=condition=Initialized"),
		"lines that are void": sh("\n\n  kubectl wait pod -l k8s-app=aws-node -n kube-system --for=condition=Initialized\n\n"),
	} {
		t.Run(name, func(t *testing.T) {
			wait, err := readiness.ParsePodWait(command)
			require.NoError(t, err)
			require.Equal(t, want, wait.String())
		})
	}
	for name, command := range map[string][]string{
		"another program":      {"/bin/true"},
		"another verb":         {"kubectl", "get", "pod", "-l", "a=b", "-n", "x"},
		"another kind":         {"kubectl", "wait", "--for=condition=Available", "deployment", "-l", "a=b", "-n", "x"},
		"a pod by name":        {"kubectl", "wait", "--for=condition=Ready", "pod", "a", "-n", "x"},
		"no namespace":         {"kubectl", "wait", "--for=condition=Ready", "pod", "-l", "a=b"},
		"all namespaces":       {"kubectl", "wait", "--for=condition=Ready", "pod", "-l", "a=b", "-A"},
		"a deletion":           {"kubectl", "wait", "--for=delete", "pod", "-l", "a=b", "-n", "x"},
		"a false condition":    {"kubectl", "wait", "--for=condition=Ready=false", "pod", "-l", "a=b", "-n", "x"},
		"a bad selector":       {"kubectl", "wait", "--for=condition=Ready", "pod", "-l", "!!", "-n", "x"},
		"a second command":     sh("kubectl wait pod -l a=b -n x --for=condition=Ready\nreboot"),
		"a pipe":               sh("kubectl wait pod -l a=b -n x --for=condition=Ready | cat"),
		"a substitution":       sh("kubectl wait pod -l a=$(id) -n x --for=condition=Ready"),
		"a quoted one":         sh(`kubectl wait pod -l "a=$(id)" -n x --for=condition=Ready`),
		"a list":               sh("kubectl wait pod -l a=b -n x --for=condition=Ready && reboot"),
		"an open quote":        sh("kubectl wait pod -l 'a=b -n x --for=condition=Ready"),
		"an unknown argument":  {"kubectl", "wait", "--for=condition=Ready", "pod", "-l", "a=b", "-n", "x", "--as=root"},
		"a flag without value": {"kubectl", "wait", "--for=condition=Ready", "pod", "-l", "a=b", "-n"},
		"nothing":              nil,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readiness.ParsePodWait(command)
			require.Error(t, err)
		})
	}
}

// TestTheGuidesSecondManifest is answered from the API, running nothing.
func TestTheGuidesSecondManifest(t *testing.T) {
	manifests, err := os.ReadFile("../test/integration/readiness/testdata/guide-rules.yaml")
	require.NoError(t, err)
	_, second, _ := strings.Cut(string(manifests), "\n---\n")
	in := &v1alpha1.NodeReadinessRule{}
	require.NoError(t, yaml.Unmarshal([]byte(second), in))
	r, err := readiness.FromNative(in)
	require.NoError(t, err)
	require.False(t, r.HasExec())
	require.Empty(t, r.DaemonSets[0].ProbeCondition)
	facts := makeFacts(func(f *readiness.Facts) { f.Node.Labels["karpenter.sh/nodepool"] = "fast-scaling-nrc" })
	pod := readiness.Pod{Namespace: "kube-system", Name: "aws-node-x", Labels: map[string]string{"k8s-app": "aws-node"}, Ready: true, True: "Ready"}
	states := map[string]readiness.State{}
	now := born.Add(2 * time.Minute)
	for name, pods := range map[string][]readiness.Pod{"none": nil, "not initialised": {pod}} {
		facts.Pods = pods
		states[name] = readiness.Evaluate(r, facts, facts.Node.CreationTimestamp.Time).State
	}
	pod.True = readiness.JoinTrue([]corev1.PodCondition{{Type: "Ready", Status: "True"}, {Type: "Initialized", Status: "True"}, {Type: "X", Status: "False"}})
	facts.Pods = []readiness.Pod{pod}
	states["there"] = readiness.Evaluate(r, facts, now).State
	require.Equal(t, map[string]readiness.State{"none": readiness.StateHeld, "not initialised": readiness.StateHeld, "there": readiness.StateReleased}, states)
}

func TestCheckProbeNamesPorts(t *testing.T) {
	require.NoError(t, readiness.CheckProbe(&corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("healthz")}}}))
}
