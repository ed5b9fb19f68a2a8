package prepull_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/prepull/controller"
	"headstart.dev/prepull/learn"
	"headstart.dev/prepull/v1alpha1"
)

// start runs a pod as a kubelet reports it.
func (c *cluster) start(node, image string) {
	c.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "learn-", Namespace: "default"},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
	c.create(pod)
	now := metav1.Now()
	pod.Status.StartTime = &now
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}
	require.NoError(c.t, c.Status().Update(c.t.Context(), pod))
}

// forge writes an Event as anybody may who has a namespace.
func (c *cluster) forge(image string, bytes int64) {
	c.t.Helper()
	c.create(&corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pulled-", Namespace: "default"}, Reason: "Pulled", Type: corev1.EventTypeNormal,
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "any"},
		Source:         corev1.EventSource{Component: "kubelet"}, ReportingController: "kubelet",
		Message: fmt.Sprintf("Successfully pulled image %q in 9s (9s including waiting). Image size: %d bytes.", image, bytes),
	})
}

// ranking reads what a policy has stored, as kubectl does.
func (c *cluster) ranking(policy string) map[string]learn.Ranked {
	c.t.Helper()
	var cm corev1.ConfigMap
	if c.Get(c.t.Context(), client.ObjectKey{Namespace: namespace, Name: learn.ConfigMapName(policy)}, &cm) != nil {
		return nil
	}
	w, err := learn.Decode(cm.BinaryData[learn.Key], 168*time.Hour)
	require.NoError(c.t, err)
	out := map[string]learn.Ranked{}
	for _, r := range w.Rank(time.Now()) {
		out[strings.TrimPrefix(r.Image, "docker.io/library/")] = r
	}
	return out
}

func TestLearnsWhatPodsStartWith(t *testing.T) {
	c := newCluster(t)
	nodes := c.nodes(2)
	c.node("not-"+nodes[0], map[string]string{"test": "another"})
	// Started before there is a policy: what runs is the first that can be learned.
	c.start(nodes[0], "big:v1")
	reg := newRegistry()
	reg.sizes["docker.io/library/big:v1"], reg.sizes["docker.io/library/small:v1"] = 900*mib, 10*mib
	stop := startController(t, controller.Config{Resolver: reg})
	c.policy("learner", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Learn: &v1alpha1.Learn{Top: 2}})
	c.eventually("learner", "what runs already is learned", func(s v1alpha1.PrepullPolicyStatus) bool {
		return strings.Join(names(s), " ") == "big:v1" && s.Images[0].Source == v1alpha1.SourceLearned
	})
	for range 3 {
		c.start(nodes[0], "small:v1")
	}
	c.start(nodes[1], "small:v1")
	c.start("not-"+nodes[0], "elsewhere:v1")
	c.eventually("learner", "the top two, the one that saves most first", func(s v1alpha1.PrepullPolicyStatus) bool {
		return strings.Join(names(s), " ") == "big:v1 small:v1"
	})
	// What anybody says of an image's size changes nothing.
	c.forge("small:v1", 1<<50)
	c.forge("elsewhere:v1", 1<<50)
	require.True(t, poll(t, func() bool { return c.ranking("learner")["big:v1"].Bytes == 900*mib }), "it is stored soon, with what the registry says")
	stop()
	stored := c.ranking("learner")
	require.Len(t, stored, 2, "pods on nodes of others are not counted")
	require.Equal(t, int64(4), stored["small:v1"].Starts)
	require.Equal(t, int64(2), stored["small:v1"].Pulls, "the first on each node")
	require.Equal(t, int64(900*mib), stored["big:v1"].Bytes)
	require.Equal(t, int64(10*mib), stored["small:v1"].Bytes)

	stop = startController(t, controller.Config{Resolver: reg})
	// Starts are known to the second: one in the second of the last that is stored would be taken for that.
	last := time.Now().Unix()
	require.True(t, poll(t, func() bool { return time.Now().Unix() > last }))
	c.start(nodes[1], "big:v1")
	require.True(t, poll(t, func() bool { return c.ranking("learner")["big:v1"].Starts == 2 }), "learning goes on")
	stop()
	after := c.ranking("learner")
	require.Equal(t, int64(4), after["small:v1"].Starts, "what was counted before a restart is not counted again")
	require.Equal(t, int64(2), after["big:v1"].Pulls)
	t.Logf("two images are stored in %d bytes", c.storedBytes("learner"))
}

func (c *cluster) storedBytes(policy string) int {
	c.t.Helper()
	var cm corev1.ConfigMap
	require.NoError(c.t, c.Get(c.t.Context(), client.ObjectKey{Namespace: namespace, Name: learn.ConfigMapName(policy)}, &cm))
	require.Len(c.t, cm.OwnerReferences, 1, "it goes with its policy")
	return len(cm.BinaryData[learn.Key])
}
