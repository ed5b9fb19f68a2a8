package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"headstart.dev/agent"
	"headstart.dev/agent/timeline"
	"headstart.dev/readiness"
)

const appReady = "headstart.dev/AppReady"

func TestOncePublishesEverythingInOnePatch(t *testing.T) {
	name := nodeName(t)
	before := makeNode(t, name)
	s := newSetup(t)
	s.setReady(t)
	writes := countWrites(t, name)
	wait, _ := s.start(t, true, agent.Overrides{Kubeconfig: kubeletKubeconfig(name)})
	require.NoError(t, wait())

	node := eventually(t, name, ready(appReady))
	require.Equal(t, corev1.ConditionTrue, conditionOf(node, readiness.ConditionImagesReady).Status)
	require.JSONEq(t, `{}`, node.Annotations[readiness.AnnotationImages])
	boot, err := timeline.Parse(node.Annotations[readiness.AnnotationTimeline])
	require.NoError(t, err)
	require.Equal(t, name, boot.Node)
	for _, phase := range []timeline.Name{timeline.Agent, timeline.Registered, timeline.Published} {
		_, ok := boot.Find(phase, "")
		require.True(t, ok, phase)
	}
	require.Equal(t, before.Spec, node.Spec)
	require.Equal(t, before.Labels, node.Labels)
	require.Equal(t, 1, writes(), "one burst, one patch")
}

func TestARestartWithNothingChangedWritesNothing(t *testing.T) {
	name := nodeName(t)
	makeNode(t, name)
	s := newSetup(t)
	s.setReady(t)
	wait, _ := s.start(t, true, agent.Overrides{Kubeconfig: kubeletKubeconfig(name)})
	require.NoError(t, wait())
	before := eventually(t, name, ready(appReady))

	wait, _ = s.start(t, true, agent.Overrides{Kubeconfig: kubeletKubeconfig(name)})
	require.NoError(t, wait())
	after := eventually(t, name, ready(appReady))
	require.Equal(t, before.ResourceVersion, after.ResourceVersion)
}

func TestAChangeIsPublishedBesideTheKubeletsOwnWrites(t *testing.T) {
	name := nodeName(t)
	makeNode(t, name)
	heartbeat(t, name, "False")
	s := newSetup(t)
	s.start(t, false, agent.Overrides{Kubeconfig: kubeletKubeconfig(name)})
	node := eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, appReady).Reason == "NotFound" })
	require.Equal(t, corev1.ConditionFalse, conditionOf(node, appReady).Status)
	require.Equal(t, corev1.ConditionTrue, conditionOf(node, "headstart.dev/AlwaysReady").Status)

	heartbeat(t, name, "True")
	s.setReady(t)
	node = eventually(t, name, ready(appReady))
	require.Equal(t, corev1.ConditionTrue, conditionOf(node, "Ready").Status)
}

func TestSomebodyElsesWriteToOurConditionIsPutRight(t *testing.T) {
	name := nodeName(t)
	makeNode(t, name)
	s := newSetup(t)
	s.setReady(t)
	s.start(t, false, agent.Overrides{Kubeconfig: kubeletKubeconfig(name)})
	node := eventually(t, name, ready(appReady))
	node.Status.Conditions = nil
	_, err := admin(t).CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	require.NoError(t, err)
	eventually(t, name, ready(appReady))
}

func TestItWaitsForANodeThatDoesNotExistYetAndFollowsItsReplacement(t *testing.T) {
	name := nodeName(t)
	s := newSetup(t)
	s.setReady(t)
	s.start(t, false, agent.Overrides{Kubeconfig: kubeletKubeconfig(name)})
	first := makeNode(t, name)
	eventually(t, name, ready(appReady))

	require.NoError(t, admin(t).CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}))
	second := makeNode(t, name)
	require.NotEqual(t, first.UID, second.UID)
	node := eventually(t, name, ready(appReady))
	require.Equal(t, second.UID, node.UID)
	boot, err := timeline.Parse(node.Annotations[readiness.AnnotationTimeline])
	require.NoError(t, err)
	registered, ok := boot.Find(timeline.Registered, "")
	require.True(t, ok)
	require.True(t, registered.Start.Equal(second.CreationTimestamp.Time))
}

func TestCredentialsOfAnotherNodeAreAnErrorThatSaysSo(t *testing.T) {
	s := newSetup(t)
	s.setReady(t)
	wait, stop := s.start(t, true, agent.Overrides{NodeName: "some-node", Kubeconfig: kubeletKubeconfig("another-node")})
	timer := time.AfterFunc(time.Second, stop)
	defer timer.Stop()
	require.ErrorContains(t, wait(), "stopped before everything was ready")
}

// countWrites counts the changes of a Node from now on. The returned function waits a moment for late ones.
func countWrites(t *testing.T, name string) func() int {
	t.Helper()
	client := admin(t).CoreV1().Nodes()
	node, err := client.Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	stream, err := client.Watch(t.Context(), metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(), ResourceVersion: node.ResourceVersion,
	})
	require.NoError(t, err)
	t.Cleanup(stream.Stop)
	return func() int {
		count := 0
		quiet := time.After(300 * time.Millisecond)
		for {
			select {
			case event := <-stream.ResultChan():
				if event.Type == watch.Modified {
					count++
				}
			case <-quiet:
				return count
			}
		}
	}
}

// TestAnAPIServerThatIsAwayCostsNothingButTime runs last in the file: it stops the shared API server.
func TestAnAPIServerThatIsAwayCostsNothingButTime(t *testing.T) {
	name := nodeName(t)
	makeNode(t, name)
	s := newSetup(t)
	s.start(t, false, agent.Overrides{Kubeconfig: kubeletKubeconfig(name)})
	eventually(t, name, func(n *corev1.Node) bool { return conditionOf(n, appReady).Status == corev1.ConditionFalse })

	require.NoError(t, plane.StopAPIServer())
	s.setReady(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	require.NoError(t, plane.StartAPIServer(ctx))
	eventually(t, name, ready(appReady))
}
