package prepull_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
)

// memStore is a Store in memory: images come by a script of errors, and pins are remembered.
type memStore struct {
	mu       sync.Mutex
	failures map[string][]error // by normalised name: what the next pulls answer
	pins     map[string]bool
	pulls    map[string]int
	hang     map[string]bool
	sweeps   [][]string
	follow   func(ctx context.Context, report func(prepull.Progress)) error // of lazy images; nil: they come whole
}

func newMemStore() *memStore {
	return &memStore{failures: map[string][]error{}, pins: map[string]bool{}, pulls: map[string]int{}, hang: map[string]bool{}}
}

func (m *memStore) Pull(ctx context.Context, img prepull.Image, report func(prepull.Progress)) (prepull.Result, error) {
	name, err := prepull.Normalize(img.Ref)
	if err != nil {
		return prepull.Result{}, err
	}
	m.mu.Lock()
	m.pulls[name]++
	hang := m.hang[name]
	if queue := m.failures[name]; len(queue) > 0 {
		err, m.failures[name] = queue[0], queue[1:]
	}
	m.mu.Unlock()
	if hang {
		<-ctx.Done()
		if err != nil {
			return prepull.Result{}, fmt.Errorf("%w (%w)", err, ctx.Err())
		}
		return prepull.Result{}, ctx.Err()
	}
	if err != nil {
		return prepull.Result{}, err
	}
	pr := prepull.Progress{Digest: cmp.Or(img.AtDigest, "sha256:abc"), Engine: "direct", FetchedBytes: 5, DoneBytes: 5, TotalBytes: 10}
	report(pr)
	pr.FetchedBytes, pr.DoneBytes = 10, 10
	m.mu.Lock()
	m.pins[name] = img.Pin
	m.mu.Unlock()
	if m.follow != nil && img.Mode.Lazy() {
		pr.DoneBytes = 0
		return prepull.Result{Progress: pr, Lazy: true, Follow: m.follow}, nil
	}
	return prepull.Result{Progress: pr}, nil
}

func (m *memStore) Release(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pins[name] = false
	return nil
}

func (m *memStore) Sweep(_ context.Context, pinned []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweeps = append(m.sweeps, pinned)
	for name := range m.pins {
		if pinned != nil && !slices.Contains(pinned, name) {
			delete(m.pins, name)
		}
	}
	return nil
}

// swept returns what Sweep was called with, and the names that are known, pinned or not.
func (m *memStore) swept() (calls [][]string, names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sweeps), slices.Sorted(maps.Keys(m.pins))
}

func start(t *testing.T, cfg prepull.Config) (*prepull.Puller, func()) {
	t.Helper()
	cfg.Log = logr.Discard()
	p, err := prepull.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(ctx) })
	return p, func() { cancel(); wg.Wait() }
}

func TestPullerRetriesWhatHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		store.failures["docker.io/library/a:latest"] = []error{errors.New("reset"), errors.New("reset\nagain")}
		store.failures["docker.io/library/b:latest"] = []error{prepull.Permanent(errors.New("not found"))}
		reg := prometheus.NewRegistry()
		p, stop := start(t, prepull.Config{Store: store, Registerer: reg, Images: []prepull.Image{{Ref: "b"}, {Ref: "a", Priority: 1}, {Ref: "UPPER"}}})
		defer stop()

		statuses, err := p.Wait(t.Context())
		require.NoError(t, err)
		require.Len(t, statuses, 3)
		require.Equal(t, "docker.io/library/a:latest", statuses[0].Name, "highest priority first")
		require.Equal(t, prepull.StateWarm, statuses[0].State)
		require.Equal(t, 3, statuses[0].Attempts)
		require.Empty(t, statuses[0].Error)
		require.Equal(t, prepull.StateFailed, statuses[1].State, "a reference that cannot be parsed")
		require.Contains(t, statuses[1].Error, `parse image "UPPER"`)
		require.Equal(t, prepull.StateFailed, statuses[2].State)
		require.Equal(t, 1, statuses[2].Attempts, "a permanent failure is not tried again")
		lint, err := testutil.GatherAndLint(reg)
		require.NoError(t, err)
		require.Empty(t, lint)
		require.Equal(t, 4, testutil.CollectAndCount(reg, "headstart_pull_seconds"))
	})
}

func TestPullerGivesUpAfterMaxAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		for range 10 {
			store.failures["docker.io/library/a:latest"] = append(store.failures["docker.io/library/a:latest"], errors.New("no containerd"))
		}
		p, stop := start(t, prepull.Config{Store: store, MaxAttempts: 3, Images: []prepull.Image{{Ref: "a"}}})
		defer stop()
		statuses, err := p.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3, statuses[0].Attempts)
		require.Equal(t, prepull.StateFailed, statuses[0].State)
		require.Equal(t, "no containerd", statuses[0].Error)
	})
}

// What may be somebody's to mend is tried again, ever more slowly, and has failed for those who look at it.
func TestPullerTriesAgainWhatIsRefused(t *testing.T) {
	const name = "docker.io/library/a:latest"
	for label, tc := range map[string]struct {
		refusals, attempts int // of the registry, of MaxAttempts
		want               prepull.State
	}{
		"pushed late":        {8, 0, prepull.StateWarm},
		"never, and bounded": {8, 5, prepull.StateFailed},
	} {
		t.Run(label, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemStore()
				for range tc.refusals {
					store.failures[name] = append(store.failures[name], prepull.Refused(errors.New("404")))
				}
				var seen []prepull.State
				p, stop := start(t, prepull.Config{Store: store, MaxAttempts: tc.attempts, Images: []prepull.Image{{Ref: "a"}}, Observer: func(s prepull.ImageStatus) {
					if len(seen) == 0 || seen[len(seen)-1] != s.State {
						seen = append(seen, s.State)
					}
				}})
				defer stop()
				statuses, err := p.Wait(t.Context())
				require.NoError(t, err)
				require.Equal(t, tc.want, statuses[0].State)
				require.False(t, statuses[0].Retrying)
				want := []prepull.State{prepull.StatePending, prepull.StatePulling, prepull.StateFailed}
				if tc.want == prepull.StateWarm {
					want = append(want, prepull.StateWarm)
				}
				require.Equal(t, want, seen, "it does not flap")
			})
		})
	}
}

// A failure for lack of something is one attempt, until that has come.
func TestPullerWaitsForWhatIsLacking(t *testing.T) {
	const name = "docker.io/library/a:latest"
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		came := make(chan struct{})
		lacking := prepull.Later(errors.New("no room"), func(ctx context.Context) error {
			select {
			case <-came:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		store.failures[name] = []error{lacking}
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "a"}}})
		defer stop()
		timer := time.NewTimer(time.Hour) // of the bubble's clock
		<-timer.C
		require.Equal(t, prepull.StateFailed, p.Status()[0].State)
		require.True(t, p.Status()[0].Retrying)
		require.Equal(t, 1, store.pulls[name])
		close(came)
		statuses, err := p.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, prepull.StateWarm, statuses[0].State)

		store.failures["docker.io/library/b:latest"] = []error{lacking}
		bounded, end := start(t, prepull.Config{Store: store, MaxAttempts: 5, Images: []prepull.Image{{Ref: "b"}}})
		defer end()
		statuses, err = bounded.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, statuses[0].Attempts, "a person who waits is told at once")
	})
}

// Somebody who says when to come back is left alone until then, and what is fetched again and again is no progress.
func TestPullerKeepsToWhatItIsTold(t *testing.T) {
	const name = "docker.io/library/a:latest"
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		store.failures[name] = []error{prepull.After(errors.New("busy"), time.Minute)}
		began := time.Now()
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "a"}}})
		defer stop()
		_, err := p.Wait(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(began), time.Minute)
	})
}

func TestSetImagesStopsAndUnpins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		store.hang["docker.io/library/slow:latest"] = true
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "a", Pin: true}, {Ref: "slow"}}})
		defer stop()
		synctest.Wait()
		require.Equal(t, prepull.StatePulling, p.Status()[1].State)
		require.True(t, store.pins["docker.io/library/a:latest"])

		p.SetImages([]prepull.Image{{Ref: "b"}, {Ref: "docker.io/library/b:latest", Priority: 7, Required: true}})
		statuses, err := p.Wait(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, statuses, 1)
		require.Equal(t, int32(7), statuses[0].Priority, "duplicates merge")
		require.True(t, statuses[0].Required)
		require.False(t, store.pins["docker.io/library/a:latest"], "nobody wants it: its pin is given up")

		p.SetImages([]prepull.Image{{Ref: "b", Pin: true, Priority: 7, Required: true}})
		_, err = p.Wait(t.Context())
		require.NoError(t, err)
		require.True(t, store.pins["docker.io/library/b:latest"])
		require.Equal(t, 2, store.pulls["docker.io/library/b:latest"])
	})
}

func TestSetImagesPullsWholeWhatMayBeLazyNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "a", Mode: prepull.ModeAuto}}})
		defer stop()
		pullsAs := func(want int, modes ...prepull.Mode) {
			t.Helper()
			var images []prepull.Image
			for _, mode := range modes {
				images = append(images, prepull.Image{Ref: "a", Mode: mode})
			}
			p.SetImages(images)
			synctest.Wait()
			require.Equal(t, want, store.pulls["docker.io/library/a:latest"])
		}
		pullsAs(1, prepull.ModeAuto)
		pullsAs(1, prepull.ModeLazy)
		pullsAs(2, prepull.ModeLazy, prepull.ModeEager)
		pullsAs(2, prepull.ModeAuto)
	})
}

func TestPullerFollowsALazyImageToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		store.follow = func(ctx context.Context, report func(prepull.Progress)) error {
			for done := range int64(11) {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Second):
				}
				report(prepull.Progress{FetchedBytes: done, DoneBytes: done})
			}
			return nil
		}
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "a", Mode: prepull.ModeAuto}}})
		defer stop()
		statuses, err := p.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, prepull.StateLazy, statuses[0].State, "nobody waits for the background")
		require.Zero(t, statuses[0].DoneBytes)
		<-time.After(time.Minute)
		synctest.Wait()
		require.Equal(t, int64(10), p.Status()[0].DoneBytes)
		require.Equal(t, prepull.StateLazy, p.Status()[0].State, "what was fetched lies in a cache")
	})
}

func TestObserverSeesEveryStateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []prepull.State
		var mu sync.Mutex
		p, stop := start(t, prepull.Config{Store: newMemStore(), Images: []prepull.Image{{Ref: "a"}}, Observer: func(s prepull.ImageStatus) {
			mu.Lock()
			defer mu.Unlock()
			if len(seen) == 0 || seen[len(seen)-1] != s.State {
				seen = append(seen, s.State)
			}
		}})
		defer stop()
		_, err := p.Wait(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, []prepull.State{prepull.StatePending, prepull.StatePulling, prepull.StateWarm}, seen)
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		store.hang["docker.io/library/a:latest"] = true
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "a"}}})
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		statuses, err := p.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, prepull.StatePulling, statuses[0].State)
	})
}

// A time limit that ends an attempt must not hide what was waited for.
func TestPullerSaysWhatItWaitedForWhenItIsStopped(t *testing.T) {
	const name = "docker.io/library/a:latest"
	for label, tc := range map[string]struct {
		failures []error
		want     string
	}{
		"a reason":              {[]error{errors.New("is containerd running?")}, "is containerd running? (context canceled)"},
		"none":                  {nil, ""},
		"one of another before": {[]error{errors.New("reset"), nil}, "reset"},
	} {
		t.Run(label, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemStore()
				store.failures[name], store.hang[name] = tc.failures, len(tc.failures) < 2
				p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "a"}}, Observer: func(s prepull.ImageStatus) {
					store.mu.Lock()
					defer store.mu.Unlock()
					store.hang[name] = store.hang[name] || s.Attempts == 2
				}})
				<-time.After(time.Minute)
				stop()
				require.Equal(t, tc.want, p.Status()[0].Error)
			})
		})
	}
}

func TestSetImagesPullsAnewWhatATagHasMovedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "app:v1"}}})
		defer stop()
		at := func(digest string) []prepull.Image { return []prepull.Image{{Ref: "app:v1", AtDigest: digest}} }
		pulls := func() int {
			synctest.Wait()
			store.mu.Lock()
			defer store.mu.Unlock()
			return store.pulls["docker.io/library/app:v1"]
		}
		first := pulls()
		require.Equal(t, "sha256:abc", p.Status()[0].Digest)
		p.SetImages(at("sha256:abc"))
		require.Equal(t, first, pulls(), "the digest that is there already needs no pull")
		p.SetImages(at("sha256:def"))
		require.Equal(t, first+1, pulls(), "another one does")
		p.SetImages(at("sha256:def"))
		require.Equal(t, first+1, pulls())
	})
}

func TestPinsOfEarlierRunsEndWhenNobodyWantsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		store.pins["docker.io/library/gone:latest"] = true
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "a", Pin: true}, {Ref: "b"}}})
		defer stop()
		_, err := p.Wait(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		calls, names := store.swept()
		require.Equal(t, [][]string{nil}, calls, "at the start nobody knows yet what policies want")
		require.Contains(t, names, "docker.io/library/gone:latest")
		<-time.After(2 * time.Hour)
		synctest.Wait()
		calls, names = store.swept()
		require.Len(t, calls, 3)
		require.Equal(t, []string{"docker.io/library/a:latest"}, calls[2])
		require.NotContains(t, names, "docker.io/library/gone:latest")
		require.Contains(t, names, "docker.io/library/a:latest")
	})
}
