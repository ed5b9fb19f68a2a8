package prepull_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/test/testenv"
)

// TestGateHasItsImagePulled gates a pod on an image that no node has: headstart-controller asks the node's agent for it,
// the pod waits as long as it comes, and starts without a pull of the kubelet's. What was asked for goes with the wait.
func TestGateHasItsImagePulled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	testenv.RequireRoot(t)
	c := newCluster(t)
	require.NoError(t, gatesv1alpha1.AddToScheme(c.Scheme()))
	ref := c.push("team/gated:v1")
	program, err := testenv.BuildCommand(t.Context(), "headstart-controller")
	require.NoError(t, err)
	testenv.StartProgram(t, testenv.ProgramConfig{Path: program, Args: []string{
		"--kubeconfig=" + c.cp.Kubeconfig("controller", "system:masters"),
		// Another program of this machine may have the default ports.
		"--metrics-bind-address=0", "--health-probe-bind-address=0",
	}})
	c.runAgent()

	const gate = "example.com/image-preload"
	require.NoError(t, c.Create(t.Context(), &gatesv1alpha1.GatePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "image-preload"},
		Spec: gatesv1alpha1.GatePolicySpec{
			GateName: gate, Requires: []gatesv1alpha1.Requirement{{Images: &gatesv1alpha1.ImagesRequirement{
				MinNodes: 1, Pull: true, Allow: []string{c.reg.Host()}, // nobody in this cluster has used it yet
			}}},
		},
	}))
	c.reg.Proxy.SetBandwidth(64 << 10)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "gated", Namespace: "default", Labels: map[string]string{"app": "gated"}},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: gate}}, Containers: []corev1.Container{{Name: "c", Image: ref}},
		},
	}
	require.NoError(t, c.Create(t.Context(), pod))
	asked := func() bool {
		var policies v1alpha1.PrepullPolicyList
		require.NoError(t, c.List(t.Context(), &policies))
		return len(policies.Items) > 0
	}
	c.eventually("the agents are asked for the image", asked)
	c.eventually("the agent fetches it", func() bool { return c.reg.Proxy.Pulled().Bytes > 128<<10 })
	require.False(t, c.warm(ref))
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(pod), pod))
	require.Len(t, pod.Spec.SchedulingGates, 1, "the pod waits for the image")
	c.reg.Proxy.SetBandwidth(0)

	c.eventually("the pod runs", func() bool { return c.running(client.MatchingLabels{"app": "gated"}, ref) })
	// The node tells of the image for as long as somebody wants it there, which may be over by now.
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(pod), pod))
	require.NotNil(t, pod.Spec.Affinity, "it was led to the node that had told of its image")
	c.eventually("the kubelet has told of its image", func() bool { return len(c.events(ref)) > 0 })
	for _, message := range c.events(ref) {
		require.Contains(t, message, "already present on machine")
	}
	c.eventually("what was asked for has gone", func() bool { return !asked() })
}
