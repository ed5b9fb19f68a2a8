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
	"sigs.k8s.io/yaml"

	"headstart.dev/readiness"
	"headstart.dev/test/testenv"
)

// nodeReport is what a program reads of a node.
type nodeReport struct {
	Name, State, Notice string
	Rules               []struct{ Rule, State, Deadline string }
}

// kubectl runs "kubectl headstart" as a cluster administrator, with the answer on stdout, or with both that and stderr where
// it fails.
func kubectl(t *testing.T) func(args ...string) (string, error) {
	t.Helper()
	of := kubectlOf(t, cp)
	return func(args ...string) (string, error) {
		var out, errs strings.Builder
		cmd := of(args...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return out.String() + errs.String(), err
		}
		return out.String(), nil
	}
}

// kubectlOf makes commands of "kubectl headstart" for a cluster.
func kubectlOf(t *testing.T, of *testenv.ControlPlane) func(args ...string) *exec.Cmd {
	t.Helper()
	bin, err := testenv.BuildCommand(t.Context(), "kubectl-headstart")
	require.NoError(t, err)
	kubeconfig := of.Kubeconfig("admin", "system:masters")
	return func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), bin, append(args, "--kubeconfig", kubeconfig)...)
	}
}

// cannotPull makes a pod on a node as the kubelet reports one whose image is not to be had.
func cannotPull(t *testing.T, client *kubernetes.Clientset, node string, at time.Time) {
	t.Helper()
	pods := client.CoreV1().Pods("default")
	pod, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "cannot-pull"},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "web:none"}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}
	_, err = pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
	require.NoError(t, err)
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
		if obj.GetKind() != "Pod" {
			takeUp(t, a, obj)
		}
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
	cannotPull(t, client, "kubectl-1", time.Now().Add(9*time.Second))
	run := kubectl(t)

	t.Run("status", func(t *testing.T) {
		out, err := run("status", "kubectl-1", "-o", "json")
		require.NoError(t, err, out)
		var object nodeReport
		require.NoError(t, json.Unmarshal([]byte(out), &object))
		require.Equal(t, "Held", object.State)
		require.Equal(t, "boot", object.Rules[0].Rule)
		why, err := run("why", "node", "kubectl-1", "-o", "json")
		require.NoError(t, err, why)
		require.Equal(t, out, why, "one shape for one thing")
		out, err = run("status", "-l", "pool=kubectl", "-o", "yaml")
		require.NoError(t, err, out)
		var list struct{ Items []nodeReport }
		require.NoError(t, yaml.Unmarshal([]byte(out), &list))
		require.Equal(t, []nodeReport{object}, list.Items)
	})
	t.Run("why a node", func(t *testing.T) {
		out, err := run("why", "node/kubectl-1")
		require.NoError(t, err, out)
		require.Contains(t, out, "rule boot (native): Held")
		require.Contains(t, out, "no conflist")
	})
	t.Run("why a pod", func(t *testing.T) {
		lead(t, client, 0)
		out, err := run("why", "pod/web", "-n", "default")
		require.NoError(t, err, out)
		spaced, err := run("why", "pod", "web")
		require.NoError(t, err, spaced)
		require.Equal(t, strings.Count(out, "\n"), strings.Count(spaced, "\n"))
		require.Contains(t, out, "ConfigMap default/flags does not exist")
		require.Contains(t, out, "policy config lifts it at the latest in")
		require.Contains(t, out, "no node where it could run has all of its images")
	})
	t.Run("timeline", func(t *testing.T) {
		for _, form := range []string{"text", "json", "html"} {
			out, err := run("timeline", "kubectl-1", "-o", form)
			require.NoError(t, err, out)
			require.Contains(t, out, "kernel")
			require.Contains(t, out, "ImagePullBackOff", "a pod that cannot pull does not run")
			require.NotContains(t, out, "running")
		}
		out, err := run("timeline", "node/kubectl-1", "--window", "0s")
		require.NoError(t, err, out)
		require.NotContains(t, out, "cannot-pull")
	})
	t.Run("a node that is not there", func(t *testing.T) {
		out, err := run("why", "node/none")
		require.Error(t, err)
		require.Contains(t, out, `nodes "none" not found`)
		require.Equal(t, 1, strings.Count(strings.TrimSpace(out), "\n")+1, "one line, no stack trace")
	})
	t.Run("a form that nobody knows", func(t *testing.T) {
		_, err := run("status", "-o", "xml")
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 2, exit.ExitCode())
	})
}
