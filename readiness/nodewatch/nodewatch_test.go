package nodewatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness/health"
)

func node(name, version string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version, Labels: map[string]string{"a": "b"}}}
}

// told is what a follower was told, in order.
type told []string

func (l *told) handler(name string, replaces bool) Handler[string] {
	h := Handler[string]{
		Read:   func(n *corev1.Node) string { return n.Name + "@" + n.ResourceVersion },
		Set:    func(view string) { *l = append(*l, fmt.Sprintf("%s set %s", name, view)) },
		Delete: func(node string) { *l = append(*l, fmt.Sprintf("%s delete %s", name, node)) },
	}
	if replaces {
		h.Replace = func(views []string) { *l = append(*l, fmt.Sprintf("%s replace %v", name, views)) }
	}
	return h
}

func TestFollowersAreToldOfEveryNode(t *testing.T) {
	var log told
	w := newWatch()
	Follow(w, log.handler("lists", true))
	Follow(w, log.handler("steps", false))
	s := sink{w}
	require.False(t, w.HasSynced())

	// A first list comes Node by Node, is read at once, and told of whole.
	first, err := s.Transformer()(node("a", "1"))
	require.NoError(t, err)
	again, err := s.Transformer()(first)
	require.NoError(t, err)
	require.Same(t, first, again)
	require.Empty(t, log)
	require.NoError(t, s.Replace([]any{first, node("b", "2")}, "2"))
	require.True(t, w.HasSynced())
	require.Equal(t, told{"lists replace [a@1 b@2]", "steps set a@1", "steps set b@2"}, log)

	log = nil
	require.NoError(t, s.Add(node("c", "3")))
	require.NoError(t, s.Update(node("c", "4")))
	require.NoError(t, s.Delete(node("a", "5")))
	require.Equal(t, told{
		"lists set c@3", "steps set c@3", "lists set c@4", "steps set c@4", "lists delete a", "steps delete a",
	}, log)

	// A watch that was lost may have missed a deletion: who cannot take a list is told of it.
	log = nil
	require.NoError(t, s.Replace([]any{node("c", "9")}, "9"))
	require.Equal(t, told{"lists replace [c@9]", "steps delete b", "steps set c@9"}, log)
	require.NoError(t, s.Replace(nil, "10"))
	require.NoError(t, s.Replace([]any{node("c", "11")}, "11"))
	require.Equal(t, "steps set c@11", log[len(log)-1])
}

func TestWhatIsNoNodeIsRefused(t *testing.T) {
	s := sink{newWatch()}
	require.Error(t, s.Add(&corev1.Pod{}))
	require.Error(t, s.Delete(&corev1.Pod{}))
	require.Error(t, s.Replace([]any{&corev1.Pod{}}, "1"))
}

func TestFollowerThatDoesNotReturnIsUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, release := newWatch(), make(chan struct{})
		Follow(w, Handler[string]{
			Read: func(n *corev1.Node) string { return n.Name }, Set: func(string) { <-release }, Delete: func(string) {},
		})
		require.Error(t, w.Ready(nil), "nothing has been listed")
		require.NoError(t, sink{w}.Replace(nil, "1"))
		require.NoError(t, w.Ready(nil))
		<-time.After(2 * health.StuckAfter)
		require.NoError(t, w.Healthy(nil), "no event, no trouble")
		told := make(chan error)
		go func() { told <- sink{w}.Add(node("a", "2")) }()
		<-time.After(health.StuckAfter + time.Second)
		require.Error(t, w.Healthy(nil))
		close(release)
		require.NoError(t, <-told)
		require.NoError(t, w.Healthy(nil))
	})
}
