package controller

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/controller/resolve"
)

// tags is a registry whose tags move.
type tags struct {
	mu    sync.Mutex
	names map[string]string
	asked map[string][]time.Duration
	began time.Time
}

func (r *tags) Resolve(_ context.Context, name, arch string, _ ...authn.Authenticator) (resolve.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[name] = append(r.asked[name], time.Since(r.began))
	if dgst := r.names[name]; dgst != "" {
		return resolve.Image{Digest: dgst + "-" + arch}, nil
	}
	return resolve.Image{}, errors.New("not found")
}

func (r *tags) set(name, dgst string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[name] = dgst
}

func (r *tags) times(name string) []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Duration(nil), r.asked[name]...)
}

func lookUp(t *testing.T) (*lookups, *tags) {
	t.Helper()
	r := &tags{names: map[string]string{}, asked: map[string][]time.Duration{}, began: time.Now()}
	l := newLookups(r, time.Now, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { l.run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return l, r
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the bubble's clock
	synctest.Wait()
}

func TestMovedTagIsNoticedAtTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := lookUp(t)
		r.set("app", "one")
		began := time.Now()
		l.want(map[string]wanted{"app": {arch: "arm64", every: time.Minute}}, nil)
		pass(time.Second)
		require.Equal(t, "one-arm64", l.get("app").image.Digest)
		r.set("app", "two")
		pass(58 * time.Second)
		require.Equal(t, "one-arm64", l.get("app").image.Digest)
		pass(2 * time.Second)
		require.Equal(t, "two-arm64", l.get("app").image.Digest)
		require.Len(t, r.times("app"), 2, "and not more often: %v", time.Since(began))
	})
}

func TestRegistryThatIsAwayMovesNoTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := lookUp(t)
		seed := resolve.Image{Digest: "before"}
		l.want(map[string]wanted{"app": {every: time.Hour, seed: seed}}, nil)
		pass(time.Second)
		require.True(t, l.get("app").done)
		require.Error(t, l.get("app").err)
		require.Equal(t, "before", l.get("app").image.Digest)
		pass(2 * time.Minute)
		require.Equal(t, []time.Duration{0, 15 * time.Second, 45 * time.Second, 105 * time.Second}, r.times("app"), "ever less often")
		r.set("app", "one")
		pass(10 * time.Minute)
		require.Equal(t, "one-", l.get("app").image.Digest)
	})
}

func TestLookupsFollowWhatIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := lookUp(t)
		r.set("a", "one")
		r.set("b", "one")
		l.want(map[string]wanted{"a": {every: time.Hour}, "b": {every: time.Hour}}, nil)
		pass(time.Second)
		l.want(map[string]wanted{"b": {every: time.Minute}}, nil)
		require.False(t, l.get("a").done, "what nobody wants is forgotten")
		pass(90 * time.Second)
		require.Len(t, r.times("a"), 1)
		require.Len(t, r.times("b"), 2, "a shorter interval holds at once")
		l.want(map[string]wanted{"b": {every: time.Minute}}, []string{"b"})
		require.True(t, l.get("b").refreshing)
		pass(time.Second)
		require.False(t, l.get("b").refreshing)
		require.Len(t, r.times("b"), 3, "a change of the policy looks again")
	})
}

func TestPinnedNameNeedsNoRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := lookUp(t)
		l.want(map[string]wanted{"app@sha256:1": {every: time.Hour}}, nil)
		pass(time.Second)
		require.Equal(t, "sha256:1", l.get("app@sha256:1").image.Digest)
	})
}
