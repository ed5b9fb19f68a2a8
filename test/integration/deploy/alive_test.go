package deploy_test

import (
	"encoding/json"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/test/testenv"
)

// aliveTimeout covers a start of the controller on a busy machine, and the time that a lease outlives its holder.
const aliveTimeout = 90 * time.Second

// What a real controller writes is what the plugin looks for: while it lives nothing is amiss, and once it is killed nothing
// is foretold.
func TestTheControllerThatLivesIsSeen(t *testing.T) {
	own := testenv.StartControlPlane(t, testenv.ControlPlaneConfig{CRDDirs: []string{"deploy/crd"}})
	client, err := dynamic.NewForConfig(own.Config())
	require.NoError(t, err)
	typed, err := kubernetes.NewForConfig(own.Config())
	require.NoError(t, err)
	objects := decode(t, []byte(`
apiVersion: headstart.dev/v1alpha1
kind: NodeReadinessRule
metadata: {name: boot}
spec:
  nodeSelector: {matchLabels: {pool: web}}
  conditions: [{type: headstart.dev/CNIReady}]
---
apiVersion: headstart.dev/v1alpha1
kind: NodeReadinessRule
metadata: {name: nobodys}
spec:
  nodeSelector: {matchLabels: {pool: none}}
  conditions: [{type: headstart.dev/CNIReady}]
---
apiVersion: headstart.dev/v1alpha1
kind: GatePolicy
metadata: {name: config}
spec: {gateName: example.com/config, requires: [{references: {}}]}
`))
	resource := map[string]string{"NodeReadinessRule": "nodereadinessrules", "GatePolicy": "gatepolicies"}
	of := func(kind string) dynamic.ResourceInterface {
		return client.Resource(schema.GroupVersionResource{Group: "headstart.dev", Version: "v1alpha1", Resource: resource[kind]})
	}
	for _, obj := range objects {
		_, err := of(obj.GetKind()).Create(t.Context(), obj, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	bin, err := testenv.BuildCommand(t.Context(), "headstart-controller")
	require.NoError(t, err)
	// Another program of this machine may have the default ports.
	controller := exec.CommandContext(t.Context(), bin, "--kubeconfig", own.Kubeconfig("admin", "system:masters"),
		"--leader-elect-namespace", "somewhere", "--metrics-bind-address", "0", "--health-probe-bind-address", "0")
	require.NoError(t, controller.Start())
	t.Cleanup(func() { _ = controller.Process.Kill(); _ = controller.Wait() })
	for _, obj := range objects {
		require.Eventually(t, func() bool {
			got, err := of(obj.GetKind()).Get(t.Context(), obj.GetName(), metav1.GetOptions{})
			status, _ := got.Object["status"].(map[string]any)
			return err == nil && status["observedGeneration"] == int64(1)
		}, aliveTimeout, 100*time.Millisecond, "%s %s is not taken up", obj.GetKind(), obj.GetName())
	}
	_, err = typed.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"pool": "web"}}}, metav1.CreateOptions{})
	require.NoError(t, err)

	run := kubectlOf(t, own)
	look := func() nodeReport {
		out, err := run("status", "n", "-o", "json").Output()
		require.NoError(t, err)
		var node nodeReport
		require.NoError(t, json.Unmarshal(out, &node))
		return node
	}
	require.Eventually(t, func() bool {
		node := look()
		return node.State == "Held" && node.Notice == "" && node.Rules[0].Deadline != ""
	}, aliveTimeout, 200*time.Millisecond)
	require.NoError(t, controller.Process.Kill())
	require.Eventually(t, func() bool {
		node := look()
		return node.Notice != "" && node.Rules[0].Deadline == ""
	}, aliveTimeout, time.Second, "who is killed is not alive")
	require.Contains(t, look().Notice, "the lease somewhere/headstart-controller was last renewed")
}
