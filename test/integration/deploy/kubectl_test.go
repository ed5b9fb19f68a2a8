package deploy_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/readiness"
	"headstart.dev/test/testenv"
)

// kubectl runs "kubectl headstart" as a cluster administrator.
func kubectl(t *testing.T) func(args ...string) (string, error) {
	t.Helper()
	bin, err := testenv.BuildCommand(t.Context(), "kubectl-headstart")
	require.NoError(t, err)
	kubeconfig := cp.Kubeconfig("admin", "system:masters")
	return func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), bin, append(args, "--kubeconfig", kubeconfig)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

func TestKubectlAnswersFromTheCluster(t *testing.T) {
	client, err := kubernetes.NewForConfig(cp.Config())
	require.NoError(t, err)
	a := newAPI(t)
	for _, obj := range decode(t, []byte(`
apiVersion: headstart.dev/v1alpha1
kind: NodeReadinessRule
metadata: {name: boot}
spec:
  nodeSelector: {matchLabels: {pool: kubectl}}
  conditions: [{type: headstart.dev/CNIReady}]
---
apiVersion: headstart.dev/v1alpha1
kind: GatePolicy
metadata: {name: config}
spec: {gateName: example.com/config, requires: [{references: {}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  schedulingGates: [{name: example.com/config}]
  containers: [{name: c, image: web, envFrom: [{configMapRef: {name: flags}}]}]
`)) {
		_, err := a.resource(t, obj).Create(t.Context(), obj, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
		require.NoError(t, err)
	}
	node, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "kubectl-1", Labels: map[string]string{"pool": "kubectl"}, Annotations: map[string]string{
			readiness.AnnotationTimeline: `{"zero":"` + time.Now().UTC().Format(time.RFC3339) + `","phases":[{"name":"kernel","start":0,"end":4}]}`,
		}},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "readiness.k8s.io/boot", Value: "pending", Effect: corev1.TaintEffectNoSchedule}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	node.Status.Conditions = []corev1.NodeCondition{{Type: readiness.ConditionCNIReady, Status: corev1.ConditionFalse, Reason: "NoConfig", Message: "no conflist"}}
	_, err = client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	require.NoError(t, err)
	run := kubectl(t)

	t.Run("status", func(t *testing.T) {
		out, err := run("status", "kubectl-1", "-o", "json")
		require.NoError(t, err, out)
		var nodes []struct {
			Name, State string
			Rules       []struct{ Rule string }
		}
		require.NoError(t, json.Unmarshal([]byte(out), &nodes))
		require.Len(t, nodes, 1)
		require.Equal(t, "Held", nodes[0].State)
		require.Equal(t, "boot", nodes[0].Rules[0].Rule)
	})
	t.Run("why a node", func(t *testing.T) {
		out, err := run("why", "node/kubectl-1")
		require.NoError(t, err, out)
		require.Contains(t, out, "rule boot (native): Held")
		require.Contains(t, out, "no conflist")
	})
	t.Run("why a pod", func(t *testing.T) {
		out, err := run("why", "pod/web", "-n", "default")
		require.NoError(t, err, out)
		require.Contains(t, out, "ConfigMap default/flags does not exist")
		require.Contains(t, out, "policy config lifts it at the latest in")
		require.Contains(t, out, "no node where it could run has all of its images")
	})
	t.Run("timeline", func(t *testing.T) {
		for _, form := range []string{"text", "json", "html"} {
			out, err := run("timeline", "kubectl-1", "-o", form)
			require.NoError(t, err, out)
			require.Contains(t, out, "kernel")
		}
	})
	t.Run("a node that is not there", func(t *testing.T) {
		out, err := run("why", "node/none")
		require.Error(t, err)
		require.Contains(t, out, `nodes "none" not found`)
		require.Equal(t, 1, strings.Count(strings.TrimSpace(out), "\n")+1, "one line, no stack trace")
	})
	t.Run("a form that nobody knows", func(t *testing.T) {
		_, err := run("status", "-o", "wide")
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 2, exit.ExitCode())
	})
}
