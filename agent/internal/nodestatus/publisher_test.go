package nodestatus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
)

// server is an API server that holds one Node: it applies patches as the real one does, sends events, and fails on
// demand.
type server struct {
	mu      sync.Mutex
	node    *corev1.Node
	version int
	streams []*watch.FakeWatcher
	fail    error
	slow    time.Duration // of a patch, whose context ends unheard
	patches int
	at      []time.Time
}

func (s *server) Get(context.Context) (*corev1.Node, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, "", s.fail
	}
	return s.node.DeepCopy(), fmt.Sprint(s.version), nil
}

func (s *server) Watch(ctx context.Context, _ string) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	stream := watch.NewFakeWithChanSize(64, false)
	s.streams = append(s.streams, stream)
	return stream, nil
}

func (s *server) PatchStatus(_ context.Context, patch []byte) (*corev1.Node, error) {
	<-time.After(s.slow)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	if s.node == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, "n")
	}
	before, err := json.Marshal(s.node)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Node{})
	if err != nil {
		return nil, err
	}
	updated := &corev1.Node{}
	if err := json.Unmarshal(after, updated); err != nil {
		return nil, err
	}
	if updated.UID != s.node.UID {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "nodes"}, "n", errors.New("uid"))
	}
	s.patches++
	s.at = append(s.at, time.Now())
	s.store(updated)
	return s.node.DeepCopy(), nil
}

// store keeps a new state and sends it. The caller holds mu.
func (s *server) store(node *corev1.Node) {
	s.version++
	if node != nil {
		node.ResourceVersion = fmt.Sprint(s.version)
	}
	s.node = node
	for _, stream := range s.streams {
		switch {
		case stream.IsStopped():
		case node == nil:
			stream.Delete(&corev1.Node{})
		default:
			stream.Modify(node.DeepCopy())
		}
	}
}

func (s *server) set(node *corev1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(node)
}

func (s *server) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
	for _, stream := range s.streams {
		stream.Stop()
	}
	s.streams = nil
}

func (s *server) state() (node *corev1.Node, patches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node.DeepCopy(), s.patches
}

// source wants what the test sets.
type source struct {
	mu   sync.Mutex
	want Desired
	done int
}

func (s *source) Desired(time.Time) Desired {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want
}

func (s *source) Published(Desired, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
}

func (s *source) NodeSeen(*corev1.Node) {}

func (s *source) set(status corev1.ConditionStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want.Conditions = []Condition{{Type: "headstart.dev/CNIReady", Status: status, Reason: "R", Message: "m"}}
}

func newNode(uid string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", UID: types.UID(uid)},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}},
	}
}

// publish runs a publisher in a synctest bubble.
func publish(t *testing.T, s *server, src *source) *Publisher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := New(src, logr.Discard(), func(error) {})
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx, s) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return p
}

func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the fake clock of a synctest bubble
	synctest.Wait()
}

func statusOf(node *corev1.Node) corev1.ConditionStatus {
	if c := find(node, "headstart.dev/CNIReady"); c != nil {
		return c.Status
	}
	return ""
}

func TestABurstIsOnePatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src := &server{node: newNode("1"), version: 1}, &source{}
		src.set(corev1.ConditionFalse)
		p := publish(t, s, src)
		pass(time.Second)
		_, before := s.state()
		require.Equal(t, 1, before)
		for range 5 {
			src.set(corev1.ConditionTrue)
			p.Notify()
			pass(time.Millisecond)
		}
		pass(20 * time.Millisecond)
		node, patches := s.state()
		require.Equal(t, corev1.ConditionTrue, statusOf(node))
		require.Equal(t, 1, patches-before)
		require.Equal(t, corev1.ConditionFalse, find(node, "Ready").Status, "the kubelet's is its own")
		pass(time.Hour)
		_, later := s.state()
		require.Equal(t, patches, later, "nothing changes, nothing is written")
	})
}

func TestTenMinutesWithoutAServerEndInOnePatchOfTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src := &server{node: newNode("1"), version: 1}, &source{}
		src.set(corev1.ConditionFalse)
		p := publish(t, s, src)
		pass(time.Second)
		_, before := s.state()
		s.setFail(errors.New("connection refused"))
		for i := range 600 {
			src.set([]corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse}[i%2])
			p.Notify()
			pass(time.Second)
		}
		src.set(corev1.ConditionTrue)
		p.Notify()
		s.setFail(nil)
		pass(lastDelay + burst)
		node, patches := s.state()
		require.Equal(t, corev1.ConditionTrue, statusOf(node))
		require.Equal(t, 1, patches-before)
	})
}

func TestANodeThatComesLateAndOneThatReplacesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src := &server{version: 1}, &source{}
		src.set(corev1.ConditionTrue)
		publish(t, s, src)
		pass(time.Minute)
		s.set(newNode("1"))
		pass(time.Second)
		node, _ := s.state()
		require.Equal(t, corev1.ConditionTrue, statusOf(node))
		s.set(nil)
		pass(time.Second)
		s.set(newNode("2"))
		pass(time.Second)
		node, _ = s.state()
		require.Equal(t, types.UID("2"), node.UID)
		require.Equal(t, corev1.ConditionTrue, statusOf(node))
	})
}

func TestLazyAnnotationsRideAlongOrWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src := &server{node: newNode("1"), version: 1}, &source{}
		src.set(corev1.ConditionFalse)
		src.want.Lazy = map[string]string{"headstart.dev/timeline": "1"}
		p := publish(t, s, src)
		pass(time.Second)
		node, before := s.state()
		require.Equal(t, 1, before)
		require.Equal(t, "1", node.Annotations["headstart.dev/timeline"])

		src.mu.Lock()
		src.want.Lazy = map[string]string{"headstart.dev/timeline": "2"}
		src.mu.Unlock()
		p.Notify()
		pass(lazyDelay - 2*time.Second)
		_, patches := s.state()
		require.Equal(t, before, patches)
		pass(2 * time.Second)
		node, patches = s.state()
		require.Equal(t, before+1, patches)
		require.Equal(t, "2", node.Annotations["headstart.dev/timeline"])
	})
}

func TestAConditionThatIsGivenUpIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src := &server{node: newNode("1"), version: 1}, &source{}
		src.set(corev1.ConditionTrue)
		p := publish(t, s, src)
		pass(time.Second)
		src.mu.Lock()
		src.want = Desired{Gone: []string{"headstart.dev/CNIReady", "headstart.dev/NeverThere"}}
		src.mu.Unlock()
		p.Notify()
		pass(time.Second)
		node, patches := s.state()
		require.Equal(t, corev1.ConditionStatus(""), statusOf(node))
		require.Equal(t, 2, patches)
		require.NotNil(t, find(node, "Ready"))
	})
}

func TestTheEndIsAnEndWhoeverSeesItFirst(t *testing.T) {
	// Publisher and watch both end with ctx; which of them the publisher hears of first is a coin's toss.
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			s, src := &server{node: newNode("1"), version: 1, slow: time.Minute}, &source{}
			src.set(corev1.ConditionTrue)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- New(src, logr.Discard(), func(error) {}).Run(ctx, s) }()
			pass(time.Second) // inside the patch
			cancel()
			require.NoError(t, <-done)
		})
	}
}

func TestUnauthorizedEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src := &server{node: newNode("1"), version: 1}, &source{}
		src.set(corev1.ConditionTrue)
		s.fail = apierrors.NewUnauthorized("expired")
		err := New(src, logr.Discard(), func(error) {}).Run(t.Context(), s)
		require.True(t, apierrors.IsUnauthorized(err))
	})
}

// A failure that is tried again says something else each time, a port or a time; the API server is not to hear it each time.
func TestWordsAreWrittenMoreAndMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src := &server{node: newNode("1"), version: 1}, &source{}
		src.set(corev1.ConditionFalse)
		p := publish(t, s, src)
		pass(time.Second)
		say := func(text string) {
			src.mu.Lock()
			src.want.Conditions[0].Message = text
			src.mu.Unlock()
			p.Notify()
			pass(time.Second)
		}
		say("the first")
		node, before := s.state()
		require.Equal(t, "the first", find(node, "headstart.dev/CNIReady").Message, "at once")
		const hour = 3600
		for i := range hour {
			say(fmt.Sprintf("dial from port %d", i))
		}
		node, patches := s.state()
		require.LessOrEqual(t, patches-before, 10)
		require.Contains(t, find(node, "headstart.dev/CNIReady").Message, "dial from port")
		src.set(corev1.ConditionTrue)
		p.Notify()
		pass(20 * time.Millisecond)
		node, _ = s.state()
		require.Equal(t, corev1.ConditionTrue, statusOf(node), "what counts is not kept waiting")
		say("other words")
		node, _ = s.state()
		require.Equal(t, "other words", find(node, "headstart.dev/CNIReady").Message, "and all is as at first")
	})
}

// An agent that starts again in the same boot has looked at nothing yet, and the node is as ready as it was.
func TestWhatIsNotKnownYetTakesNothingBack(t *testing.T) {
	node, boot := newNode("1"), time.Unix(2000, 500)
	have := corev1.NodeCondition{Type: "headstart.dev/CNIReady", Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.NewTime(time.Unix(2000, 0))}
	want := Desired{Conditions: []Condition{{Type: "headstart.dev/CNIReady", Status: corev1.ConditionUnknown, Unless: boot}}}
	require.False(t, diff(want, node).empty(), "the node says nothing")
	node.Status.Conditions = append(node.Status.Conditions, have)
	require.True(t, diff(want, node).empty(), "said in this boot")
	want.Conditions[0].Unless = boot.Add(time.Second)
	require.False(t, diff(want, node).empty(), "said before it")
	want.Conditions[0].Unless = time.Time{}
	require.False(t, diff(want, node).empty(), "the first agent of a boot")
}

func TestTransitionTimeIsKeptWhileTheStatusIs(t *testing.T) {
	node := newNode("1")
	then, now := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
		Type: "headstart.dev/CNIReady", Status: corev1.ConditionTrue, Message: "old", LastTransitionTime: then,
	})
	want := Desired{Conditions: []Condition{{Type: "headstart.dev/CNIReady", Status: corev1.ConditionTrue, Message: "new"}}}
	patch, err := diff(want, node).patch(node, now)
	require.NoError(t, err)
	require.Contains(t, string(patch), `"lastTransitionTime":"`+then.UTC().Format(time.RFC3339))
	want.Conditions[0].Status = corev1.ConditionFalse
	patch, err = diff(want, node).patch(node, now)
	require.NoError(t, err)
	require.Contains(t, string(patch), `"lastTransitionTime":"`+now.UTC().Format(time.RFC3339))
}
