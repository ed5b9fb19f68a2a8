package policy_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/agent/policy"
	"headstart.dev/prepull"
	"headstart.dev/prepull/feed"
	"headstart.dev/prepull/turn"
	"headstart.dev/prepull/v1alpha1"
)

// source is an API server's policies.
type source struct {
	changes chan func(feed.Handler[*v1alpha1.PrepullPolicy])
}

func (s source) Run(ctx context.Context, h feed.Handler[*v1alpha1.PrepullPolicy]) {
	for {
		select {
		case <-ctx.Done():
			return
		case change := <-s.changes:
			change(h)
		}
	}
}

// agent is a Watcher at work, and what it last applied.
type agent struct {
	t       *testing.T
	watcher *policy.Watcher
	source  source

	mu      sync.Mutex
	applied [][]prepull.Image
	at      []time.Time
}

func (a *agent) apply(images []prepull.Image) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.applied, a.at = append(a.applied, images), append(a.at, time.Now())
}

func (a *agent) calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.applied)
}

// last is what was applied last.
func (a *agent) last() []prepull.Image {
	a.mu.Lock()
	defer a.mu.Unlock()
	require.NotEmpty(a.t, a.applied, "something was applied")
	return a.applied[len(a.applied)-1]
}

func start(t *testing.T, static ...prepull.Image) *agent {
	t.Helper()
	a := &agent{t: t, source: source{make(chan func(feed.Handler[*v1alpha1.PrepullPolicy]))}}
	a.watcher = policy.New(static, a.apply)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.watcher.Run(ctx, a.source)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return a
}

func (a *agent) list(policies ...*v1alpha1.PrepullPolicy) {
	a.source.changes <- func(h feed.Handler[*v1alpha1.PrepullPolicy]) { h.Replace(policies) }
	synctest.Wait()
}

func (a *agent) set(p *v1alpha1.PrepullPolicy) {
	a.source.changes <- func(h feed.Handler[*v1alpha1.PrepullPolicy]) { h.Set(p) }
	synctest.Wait()
}

func (a *agent) delete(p *v1alpha1.PrepullPolicy) {
	a.source.changes <- func(h feed.Handler[*v1alpha1.PrepullPolicy]) { h.Delete(p) }
	synctest.Wait()
}

func (a *agent) wants(images ...prepull.Image) {
	a.t.Helper()
	require.Equal(a.t, images, a.last())
}

const gpu = "gpu"

// made is a policy for GPU nodes that the controller has followed.
func made(name string, images ...v1alpha1.ImageStatus) *v1alpha1.PrepullPolicy {
	return &v1alpha1.PrepullPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name), Generation: 1},
		Spec:       v1alpha1.PrepullPolicySpec{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": gpu}}},
		Status:     v1alpha1.PrepullPolicyStatus{ObservedGeneration: 1, Images: images},
	}
}

func at(image, digest string) v1alpha1.ImageStatus {
	return v1alpha1.ImageStatus{Image: image, Digest: digest}
}

func TestPoliciesAddToTheStaticListAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		static := prepull.Image{Ref: "nginx", Priority: 5}
		a := start(t, static)
		shared := at("docker.io/library/nginx:latest", "sha256:1")
		shared.Required, shared.Priority = true, 1
		left := at("r.example/huge:v1", "")
		left.LeftOut = "needs 9Gi"
		web := made("web", shared, at("r.example/app:v1", "sha256:2"), left)
		other := made("other", at("r.example/other:v1", "sha256:3"))
		other.Spec.NodeSelector.MatchLabels["pool"] = "cpu"

		a.list(web, other)
		require.Zero(t, a.calls(), "a node whose labels nobody knows is chosen by nobody")
		a.watcher.SetNode("n1", map[string]string{"pool": gpu})
		synctest.Wait()
		app := prepull.Image{Ref: "r.example/app:v1", AtDigest: "sha256:2", Pin: true, Mode: "Auto"}
		a.wants(prepull.Image{Ref: "nginx", AtDigest: "sha256:1", Priority: 5, Required: true, Pin: true}, app)

		a.set(other)
		require.Equal(t, 1, a.calls(), "what changes nothing here applies nothing")
		a.watcher.SetNode("n1", map[string]string{"pool": "cpu"})
		synctest.Wait()
		a.wants(static, prepull.Image{Ref: "r.example/other:v1", AtDigest: "sha256:3", Pin: true, Mode: "Auto"})
		a.delete(other)
		a.wants(static)
	})
}

func TestMovedTagIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t)
		a.watcher.SetNode("n1", map[string]string{"pool": gpu})
		a.list(made("web", at("r.example/app:v1", "sha256:1")))
		a.set(made("web", at("r.example/app:v1", "sha256:2")))
		a.wants(prepull.Image{Ref: "r.example/app:v1", AtDigest: "sha256:2", Pin: true, Mode: "Auto"})
	})
}

func TestControllerThatIsAwayKeepsNoNodeCold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t)
		a.watcher.SetNode("n1", map[string]string{"pool": gpu})
		p := made("web", at("r.example/learned:v1", "sha256:1"))
		p.Generation = 2
		p.Spec.Pin, p.Spec.Mode = new(false), v1alpha1.ModeLazy
		p.Spec.Images = []v1alpha1.Image{{Image: "app:v1", Priority: 7, Required: true}, {Image: "NO IMAGE"}}
		began := time.Now()
		a.list(p)
		learned := prepull.Image{Ref: "r.example/learned:v1", AtDigest: "sha256:1", Mode: "Lazy"}
		a.wants(learned)
		time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		a.wants(learned, prepull.Image{Ref: "docker.io/library/app:v1", Priority: 7, Required: true, Mode: "Lazy"})
		require.Equal(t, 5*time.Second, time.Since(began))
	})
}

func TestNodesOfALargeFleetStartSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fleet = 200
		agents := make([]*agent, fleet)
		for i := range agents {
			p := made("web", at("r.example/app:v1", "sha256:1"))
			p.Status.Nodes.Matched = 1000
			a := start(t)
			a.watcher.SetNode(fmt.Sprintf("n%d", i), map[string]string{"pool": gpu})
			a.list(p)
			require.Equal(t, 1, a.calls(), "a node that boots does not wait")
			p = p.DeepCopy()
			p.Status.Images[0].Digest = "sha256:2"
			a.set(p)
			agents[i] = a
		}
		began := time.Now()
		time.Sleep(3 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		late := map[time.Duration]int{}
		for _, a := range agents {
			require.Equal(t, 2, a.calls())
			late[a.at[1].Sub(began).Truncate(250*time.Millisecond)]++
		}
		require.Len(t, late, 4, "within a second, in each quarter of it: %v", late)
		for quarter, n := range late {
			require.InDelta(t, fleet/4, n, fleet/8, "%v", quarter)
		}
	})
}

func TestNodeWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := turn.Place("uid-of-web", "n1")
		a := start(t)
		a.watcher.SetNode("n1", map[string]string{"pool": gpu})
		required := at("r.example/required:v1", "sha256:1")
		required.Required = true
		p := made("web", required, at("r.example/app:v1", "sha256:1"), at("r.example/old:v1", "sha256:1"))
		p.Status.Turn = &v1alpha1.Turn{Members: turn.Last, Open: place - 1}
		a.list(p)
		wantRequired := prepull.Image{Ref: required.Image, AtDigest: "sha256:1", Required: true, Pin: true, Mode: "Auto"}
		a.wants(wantRequired)

		open := p.DeepCopy()
		open.Status.Turn.Open = place
		a.set(open)
		require.Len(t, a.last(), 3, "its turn has come")

		moved := p.DeepCopy()
		moved.Status.Images = []v1alpha1.ImageStatus{required, at("r.example/app:v1", "sha256:2")}
		a.set(moved)
		a.wants(wantRequired, prepull.Image{Ref: "r.example/app:v1", AtDigest: "sha256:1", Pin: true, Mode: "Auto"})
		time.Sleep(9 * time.Minute) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		require.Equal(t, "sha256:1", a.last()[1].AtDigest, "what is warm stays while it waits")
		time.Sleep(2 * time.Minute) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		require.Equal(t, "sha256:2", a.last()[1].AtDigest, "a controller that is away holds nobody for ever")
	})
}

func TestNodeThatIsNoMemberWantsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := turn.Place("uid-of-web", "n1")
		a := start(t)
		a.watcher.SetNode("n1", map[string]string{"pool": gpu})
		p := made("web", at("r.example/app:v1", "sha256:1"))
		p.Status.Turn = &v1alpha1.Turn{Members: place, Open: turn.Last}
		a.list(p)
		require.Len(t, a.last(), 1)
		p = p.DeepCopy()
		p.Status.Turn.Members = place - 1
		a.set(p)
		require.Empty(t, a.last())
	})
}

func TestLostWatchForgetsWhatHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t)
		a.watcher.SetNode("n1", map[string]string{"pool": gpu})
		a.list(made("a", at("r.example/a:v1", "")), made("b", at("r.example/b:v1", "")))
		require.Len(t, a.last(), 2)
		a.list(made("b", at("r.example/b:v1", "")))
		a.wants(prepull.Image{Ref: "r.example/b:v1", Pin: true, Mode: "Auto"})
	})
}
