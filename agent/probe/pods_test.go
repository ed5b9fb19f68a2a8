package probe_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podsapi "k8s.io/kubelet/pkg/apis/pods/v1alpha1"

	"headstart.dev/agent/probe"
	"headstart.dev/readiness"
)

// podsServer is the PodsAPI of a kubelet: it refuses while it starts, lists, and streams what changes.
type podsServer struct {
	podsapi.UnimplementedPodsServer
	mu       sync.Mutex
	starting bool
	mute     bool // never sends the end of the first list
	pods     map[types.UID]*corev1.Pod
	streams  map[chan *podsapi.WatchPodsEvent]bool
	asked    int
}

func newPodsServer() *podsServer {
	return &podsServer{pods: map[types.UID]*corev1.Pod{}, streams: map[chan *podsapi.WatchPodsEvent]bool{}}
}

func encodePod(pod *corev1.Pod) []byte {
	raw, err := pod.Marshal()
	if err != nil {
		panic(err)
	}
	return raw
}

func (s *podsServer) WatchPods(_ *podsapi.WatchPodsRequest, stream podsapi.Pods_WatchPodsServer) error {
	events := make(chan *podsapi.WatchPodsEvent, 16)
	s.mu.Lock()
	s.asked++
	if s.starting {
		s.mu.Unlock()
		return status.Error(codes.FailedPrecondition, "Kubelet is initializing")
	}
	s.streams[events] = true
	first := []*podsapi.WatchPodsEvent{}
	for _, pod := range s.pods {
		first = append(first, &podsapi.WatchPodsEvent{Type: podsapi.EventType_ADDED, Pod: encodePod(pod)})
	}
	if !s.mute {
		first = append(first, &podsapi.WatchPodsEvent{Type: podsapi.EventType_INITIAL_SYNC_COMPLETE})
	}
	s.mu.Unlock()
	for _, event := range first {
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case event := <-events:
			if err := stream.Send(event); err != nil {
				return err
			}
		}
	}
}

// set adds a pod, or replaces it.
func (s *podsServer) set(pod *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := podsapi.EventType_ADDED
	if s.pods[pod.UID] != nil {
		kind = podsapi.EventType_MODIFIED
	}
	s.pods[pod.UID] = pod
	s.send(&podsapi.WatchPodsEvent{Type: kind, Pod: encodePod(pod)})
}

// remove sends what the kubelet sends of a pod that is gone: its name and UID.
func (s *podsServer) remove(pod *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, pod.UID)
	s.send(&podsapi.WatchPodsEvent{Type: podsapi.EventType_DELETED, Pod: encodePod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	})})
}

func (s *podsServer) send(event *podsapi.WatchPodsEvent) {
	for stream := range s.streams {
		stream <- event
	}
}

func (s *podsServer) setStarting(starting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starting = starting
}

func (s *podsServer) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// agentPod is a pod of the DaemonSet kube-system/agent.
func agentPod(name string, status corev1.ConditionStatus) *corev1.Pod {
	yes := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "kube-system", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "agent"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "agent", Controller: &yes}},
		},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}},
	}
}

// startKubelet serves the PodsAPI in a kubelet's folder, and returns how to stop it.
func startKubelet(t *testing.T, dir string, server *podsServer) func() {
	t.Helper()
	listener := listen(t, "unix", filepath.Join(dir, "pods-api", "pods-api.sock"))
	return serve(t, listener, func(s *grpc.Server) { podsapi.RegisterPodsServer(s, server) }).Stop
}

// followPods follows a kubelet until the test ends.
func followPods(t *testing.T, dir string) *probe.Pods {
	t.Helper()
	pods := probe.NewPods(dir)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- pods.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return pods
}

var agentDaemonSet = readiness.DaemonSet{Namespace: "kube-system", Name: "agent"}

func TestDaemonSetPodIsSeenByTheKubeletsEvents(t *testing.T) {
	dir := socketDir(t)
	pods := followPods(t, dir)
	results := start(t, &probe.DaemonSet{Want: agentDaemonSet, Pods: pods}, eventsOnly)
	require.Equal(t, probe.ReasonKubeletAway, next(t, results).Reason)

	kubelet := newPodsServer()
	startKubelet(t, dir, kubelet)
	require.Equal(t, probe.ReasonPodMissing, next(t, results).Reason)
	other := agentPod("other", corev1.ConditionTrue)
	other.Namespace = "default"
	kubelet.set(other)
	kubelet.set(agentPod("a", corev1.ConditionFalse))
	result := next(t, results)
	require.Equal(t, probe.ReasonPodNotReady, result.Reason)
	require.Contains(t, result.Message, "kube-system/a")
	kubelet.set(agentPod("a", corev1.ConditionTrue))
	require.Equal(t, probe.True, next(t, results).Status)
}

func TestAKubeletThatStartsIsAskedUntilItAnswers(t *testing.T) {
	dir := socketDir(t)
	kubelet := newPodsServer()
	kubelet.set(agentPod("a", corev1.ConditionTrue))
	kubelet.setStarting(true)
	startKubelet(t, dir, kubelet)
	pods := followPods(t, dir)
	require.Eventually(t, func() bool { return kubelet.questions() > 2 }, childTime, 10*time.Millisecond)
	_, known, _ := pods.List(0)
	require.False(t, known)
	kubelet.setStarting(false)
	require.Eventually(t, func() bool { list, known, _ := pods.List(0); return known && len(list) == 1 }, childTime, 10*time.Millisecond)
}

func TestAKubeletThatStartsAgainIsFollowedAgain(t *testing.T) {
	dir := socketDir(t)
	kubelet := newPodsServer()
	a := agentPod("a", corev1.ConditionTrue)
	kubelet.set(a)
	stop := startKubelet(t, dir, kubelet)
	pods := followPods(t, dir)
	listed := func(count int) {
		t.Helper()
		require.Eventually(t, func() bool { list, known, _ := pods.List(0); return known && len(list) == count }, childTime, 10*time.Millisecond)
	}
	listed(1)
	stop()
	require.Eventually(t, func() bool { _, known, _ := pods.List(0); return !known }, childTime, 10*time.Millisecond)
	list, known, _ := pods.List(time.Hour)
	require.True(t, known, "its last word counts for a while")
	require.Len(t, list, 1)

	again := newPodsServer()
	again.set(agentPod("b", corev1.ConditionTrue))
	again.set(agentPod("c", corev1.ConditionTrue))
	startKubelet(t, dir, again)
	listed(2)
	again.remove(agentPod("b", corev1.ConditionTrue))
	listed(1)
}

func TestAPodThatWasReadyIsGivenUpAfterItsGrace(t *testing.T) {
	dir := socketDir(t)
	kubelet := newPodsServer()
	kubelet.set(agentPod("a", corev1.ConditionTrue))
	startKubelet(t, dir, kubelet)
	pods := followPods(t, dir)
	patient := &probe.DaemonSet{Want: agentDaemonSet, Pods: pods, Grace: time.Hour}
	brisk := &probe.DaemonSet{Want: agentDaemonSet, Pods: pods, Grace: 50 * time.Millisecond}
	for _, checker := range []*probe.DaemonSet{patient, brisk} {
		require.Eventually(t, func() bool { return look(t, checker, shortLook).Status == probe.True }, childTime, 10*time.Millisecond)
	}
	kubelet.set(agentPod("a", corev1.ConditionFalse))
	require.Eventually(t, func() bool { return look(t, brisk, shortLook).Reason == probe.ReasonPodNotReady }, childTime, 10*time.Millisecond)
	require.Equal(t, probe.True, look(t, patient, shortLook).Status, "a kubelet that starts again calls every pod unready for a moment")
	fresh := &probe.DaemonSet{Want: agentDaemonSet, Pods: pods, Grace: time.Hour}
	require.Equal(t, probe.ReasonPodNotReady, look(t, fresh, shortLook).Reason, "one that never was Ready gets no grace")
}

func TestAKubeletThatHangsLeavesThePodsUnknownAndNothingBehind(t *testing.T) {
	before := openFiles(t)
	dir := socketDir(t)
	kubelet := newPodsServer()
	kubelet.mute = true
	kubelet.set(agentPod("a", corev1.ConditionTrue))
	stop := startKubelet(t, dir, kubelet)
	pods := probe.NewPods(dir)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- pods.Run(ctx) }()
	require.Eventually(t, func() bool { return kubelet.questions() > 0 }, childTime, 10*time.Millisecond)
	_, known, _ := pods.List(time.Hour)
	require.False(t, known, "half a list is no list")
	cancel()
	require.NoError(t, <-done)
	stop()
	require.Eventually(t, func() bool { return openFiles(t) <= before }, childTime, 10*time.Millisecond)
}

func FuzzParsePod(f *testing.F) {
	f.Add(encodePod(agentPod("a", corev1.ConditionTrue)))
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, pod, err := probe.ParsePod(raw)
		if err != nil {
			require.Error(t, errors.Unwrap(err))
			return
		}
		found, waiting := agentDaemonSet.ReadyPod([]readiness.Pod{pod})
		require.False(t, found && waiting != "")
	})
}
