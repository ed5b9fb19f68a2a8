package deploy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/readiness/inspect"
	"headstart.dev/test/testenv"
)

// statusCluster has a rule and nodes of a pool: "done" is released, with a probe of the user's that is False; "held" has the
// rule's taint; "bare" would be held, but nobody has put the taint on it.
func statusCluster(t *testing.T, pool string) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(cp.Config())
	require.NoError(t, err)
	a := newAPI(t)
	for _, obj := range decode(t, fmt.Appendf(nil, `
apiVersion: headstart.dev/v1alpha1
kind: NodeReadinessRule
metadata: {name: %[1]s}
spec:
  nodeSelector: {matchLabels: {pool: %[1]s}}
  conditions: [{type: headstart.dev/CNIReady}]
`, pool)) {
		_, err := a.resource(t, obj).Create(t.Context(), obj, metav1.CreateOptions{})
		require.NoError(t, err)
		takeUp(t, a, obj)
		t.Cleanup(func() { _ = a.resource(t, obj).Delete(cleanUpContext(t), obj.GetName(), metav1.DeleteOptions{}) })
	}
	taint := []corev1.Taint{{Key: "readiness.k8s.io/" + pool, Value: "pending", Effect: corev1.TaintEffectNoSchedule}}
	for name, taints := range map[string][]corev1.Taint{"done": nil, "held": taint, "bare": nil} {
		node, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: pool + "-" + name, Labels: map[string]string{"pool": pool}}, Spec: corev1.NodeSpec{Taints: taints},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.CoreV1().Nodes().Delete(cleanUpContext(t), node.Name, metav1.DeleteOptions{}) })
		setCNI(t, client, node.Name, name == "done")
	}
	return client
}

// takeUp says in the status of a rule or a policy that a controller has looked at it.
func takeUp(t *testing.T, a api, obj *unstructured.Unstructured) {
	t.Helper()
	const status = `{"status":{"observedGeneration":1,"matchedNodes":0,"heldNodes":0,"releasedNodes":0,"timedOutNodes":0,"wouldHoldNodes":0,` +
		`"waitingPods":0,"liftedTotal":0,"deadlineTotal":0}}` // those that the kind does not have are left out by the API server
	_, err := a.resource(t, obj).Patch(t.Context(), obj.GetName(), types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status")
	require.NoError(t, err)
}

// setCNI reports the network of a node, and a probe of the user's that is always False.
func setCNI(t *testing.T, client *kubernetes.Clientset, name string, ready bool) {
	t.Helper()
	node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	status := map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}[ready]
	node.Status.Conditions = []corev1.NodeCondition{
		{Type: "headstart.dev/CNIReady", Status: status, Reason: "R"}, {Type: "headstart.dev/MyAgentReady", Status: corev1.ConditionFalse, Reason: "R"},
	}
	_, err = client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	require.NoError(t, err)
}

// lead takes the lease as a controller would that renewed it so long ago.
func lead(t *testing.T, client *kubernetes.Clientset, ago time.Duration) {
	t.Helper()
	newAPI(t).namespace(t, "elsewhere")
	leases := client.CoordinationV1().Leases("elsewhere")
	holder, seconds, renewed := "controller-1", int32(15), metav1.NewMicroTime(time.Now().Add(-ago))
	_ = leases.Delete(t.Context(), inspect.LeaseName, metav1.DeleteOptions{})
	_, err := leases.Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: inspect.LeaseName},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &renewed},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = leases.Delete(cleanUpContext(t), inspect.LeaseName, metav1.DeleteOptions{}) })
}

func TestStatusOfAFleet(t *testing.T) {
	client := statusCluster(t, "fleet")
	lead(t, client, 0)
	run := kubectl(t)
	rows := func(args ...string) []string {
		out, err := run(append([]string{"status"}, args...)...)
		require.NoError(t, err, out)
		return strings.Split(strings.TrimSpace(out), "\n")
	}
	t.Run("a selector, and a probe of the user's", func(t *testing.T) {
		lines := rows("-l", "pool=fleet")
		require.Len(t, lines, 4)
		require.Regexp(t, `^NODE +STATE +AGE +READY`, lines[0])
		require.Regexp(t, `^fleet-bare +Held +\S+ +0/2 +MyAgent=False,CNI=False +fleet: `, lines[1])
		require.Regexp(t, `^fleet-done +Released +\S+ +1/2 +MyAgent=False +-$`, lines[2])
		for _, line := range rows() {
			require.LessOrEqual(t, utf8.RuneCountInString(line), 100, line)
		}
	})
	t.Run("only what is held", func(t *testing.T) {
		require.Equal(t, []string{"node/fleet-bare", "node/fleet-held"}, rows("-l", "pool=fleet", "--held", "-o", "name"))
	})
	t.Run("rows alone", func(t *testing.T) { require.Len(t, rows("-l", "pool=fleet", "--no-headers"), 3) })
	t.Run("wide has all", func(t *testing.T) {
		require.Regexp(t, `^fleet-done +Released +\S+ +True +- +- +- +MyAgent=False +- +-$`, rows("-l", "pool=fleet", "-o", "wide")[2])
	})
	t.Run("nobody is selected", func(t *testing.T) {
		out, err := run("status", "-l", "pool=none", "-o", "json")
		require.NoError(t, err, out)
		require.JSONEq(t, `{"items":[]}`, out)
		out, err = run("status", "-l", "pool=none")
		require.NoError(t, err)
		require.Empty(t, out)
	})
}

func TestNobodyIsAlive(t *testing.T) {
	client := statusCluster(t, "orphans")
	run := kubectl(t)
	for name, told := range map[string]string{"none ever was": "there is no lease", "it died": "elsewhere/headstart-controller was last renewed 10m ago, by controller-1"} {
		t.Run(name, func(t *testing.T) {
			if name == "it died" {
				lead(t, client, 10*time.Minute)
			}
			out, err := run("status", "-l", "pool=orphans")
			require.NoError(t, err, out)
			require.Contains(t, strings.Join(strings.Fields(out), " "), "no controller is alive: ")
			require.Contains(t, strings.Join(strings.Fields(out), " "), told)
			require.Regexp(t, `orphans-bare +WouldHold `, out)
			require.Regexp(t, `orphans-held +Held `, out)
			out, err = run("status", "-l", "pool=orphans", "-o", "json")
			require.NoError(t, err, out)
			var list struct {
				Notice string
				Items  []nodeReport
			}
			require.NoError(t, json.Unmarshal([]byte(out), &list))
			require.Contains(t, list.Notice, told)
			require.Len(t, list.Items, 3)
			for _, node := range list.Items {
				require.Empty(t, node.Rules[0].Deadline, "nobody keeps it")
			}
			out, err = run("why", "node/orphans-held")
			require.NoError(t, err, out)
			require.Contains(t, out, "no controller is alive")
			require.NotContains(t, out, "then Release")
		})
	}
	lead(t, client, 0)
	out, err := run("why", "node/orphans-held")
	require.NoError(t, err, out)
	require.Contains(t, out, "then Release")
}

// A cluster without our CRDs is no cluster without nodes.
func TestTheCRDsAreNotInstalled(t *testing.T) {
	bare := testenv.StartControlPlane(t, testenv.ControlPlaneConfig{})
	run := kubectlOf(t, bare)
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"why", "pod", "web"}, {"why", "node/n"}} {
		out, err := run(args...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", out)
		require.Equal(t, 1, exit.ExitCode())
		require.Contains(t, string(out), "the CRDs are not installed: gatepolicies.headstart.dev, prepullpolicies.headstart.dev, warmpools.headstart.dev, nodereadinessrules.headstart.dev")
		require.Contains(t, string(out), "kubectl apply --server-side -f deploy/crd")
	}
	applyKustomizeCRDs(t, bare)
	var last string
	require.Eventually(t, func() bool {
		out, err := run("status").CombinedOutput()
		last = string(out)
		return err == nil
	}, time.Minute, 200*time.Millisecond, "%s", last)
	require.Contains(t, last, "No nodes found")
}

// applyKustomizeCRDs applies them as "kubectl apply -k" does without --server-side: with all of the object in an annotation.
func applyKustomizeCRDs(t *testing.T, to *testenv.ControlPlane) {
	t.Helper()
	client, err := dynamic.NewForConfig(to.Config())
	require.NoError(t, err)
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for _, obj := range build(t, filepath.Join(root, "deploy/kustomize/crds")) {
		annotations := obj.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[corev1.LastAppliedConfigAnnotation] = string(marshal(t, obj))
		obj.SetAnnotations(annotations)
		_, err := crds.Create(t.Context(), obj, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
		require.NoError(t, err, obj.GetName())
	}
}

// A watch lasts longer than a request may, and shows each node whose row changes.
func TestStatusIsWatched(t *testing.T) {
	client := statusCluster(t, "watched")
	lead(t, client, 0)
	cmd := kubectlOf(t, cp)("status", "-l", "pool=watched", "--held", "-w", "--no-headers", "--request-timeout", "2s")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	next := func(want string) {
		t.Helper()
		select {
		case line := <-lines:
			require.Regexp(t, want, line)
		case <-time.After(30 * time.Second):
			require.Fail(t, "no line", want)
		}
	}
	next("^watched-bare +Held ")
	next("^watched-held +Held ")
	<-time.After(3 * time.Second) // longer than a request may take
	setCNI(t, client, "watched-bare", true)
	next("^watched-bare +Released .*MyAgent=False")
	require.NoError(t, client.CoreV1().Nodes().Delete(t.Context(), "watched-held", metav1.DeleteOptions{}))
	next("^watched-held +Deleted")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait(), "to stop looking is no failure")
}
