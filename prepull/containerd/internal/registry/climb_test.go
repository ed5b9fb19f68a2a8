package registry

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// link is a network: what a connection gets, and what all together get, in MiB/s.
type link struct{ each, all float64 }

func (l link) goodput(connections int) float64 { return min(l.each*float64(connections), l.all) }

// TestConcurrencyFollowsGoodput runs a climb over links that change under way, with a noise of 5 % on what is measured.
func TestConcurrencyFollowsGoodput(t *testing.T) {
	for name, tc := range map[string]struct {
		most        int
		stages      []link
		least, last int // of the limit at the end of the last stage
	}{
		"every connection has its own share":        {16, []link{{40, 1e6}}, 12, 16},
		"the link is full with four":                {16, []link{{40, 160}}, 4, 7},
		"the link is full with one":                 {16, []link{{500, 500}}, 2, 3},
		"a link that was full gets wide":            {16, []link{{40, 120}, {40, 1e6}}, 12, 16},
		"a wide link gets full":                     {16, []link{{40, 1e6}, {40, 160}}, 4, 7},
		"only one range has room in memory":         {1, []link{{40, 20}}, 1, 1},
		"two ranges have room, the link has enough": {2, []link{{40, 1e6}}, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			c := newClimb(tc.most)
			var limits []int
			for _, l := range tc.stages {
				limits = nil
				for range 300 {
					limits = append(limits, c.window(l.goodput(c.limit)*(0.95+0.1*rng.Float64())))
				}
			}
			for _, limit := range limits {
				require.GreaterOrEqual(t, limit, 1)
				require.LessOrEqual(t, limit, tc.most)
			}
			// The usual limit: a trial may be under way just at the end.
			counts := map[int]int{}
			usual := 0
			for _, limit := range limits[200:] {
				if counts[limit]++; counts[limit] > counts[usual] {
					usual = limit
				}
			}
			require.GreaterOrEqual(t, usual, tc.least, "%v", limits)
			require.LessOrEqual(t, usual, tc.last, "%v", limits)
		})
	}
}

// TestTrialsAreCheap bounds what finding out costs on a link where every connection counts.
func TestTrialsAreCheap(t *testing.T) {
	c, l := newClimb(16), link{40, 1e6}
	var lost, whole float64
	for i := range 600 { // five minutes
		if i < restAtFirst {
			require.Equal(t, 16, c.limit, "a short pull has them all")
		}
		lost += l.goodput(16) - l.goodput(c.limit)
		whole += l.goodput(16)
		c.window(l.goodput(c.limit))
	}
	require.Less(t, lost/whole, 0.01)
	require.Positive(t, lost, "it must have tried")
}

// TestRefusalsComeFirst halves what a registry calls too much, and goes up from there as far as it pays.
func TestRefusalsComeFirst(t *testing.T) {
	var limit int
	p := newPace(16, func(n int) { limit = n })
	p.failed(&statusError{code: http.StatusTooManyRequests})
	p.failed(&statusError{code: http.StatusTooManyRequests})
	require.Equal(t, 8, limit, "a burst counts once")
	for range 100 {
		p.climb.window(link{40, 1e6}.goodput(p.climb.limit))
	}
	require.GreaterOrEqual(t, p.climb.limit, 12, "nobody refuses any longer")
}

// TestWindowsThatTell judges the network only by windows in which it was the limit.
// Few requests are busy with little of the time where the processor is behind: no window tells, and yet what a refusal took
// must come back, and no more than that.
func TestARefusalIsNotForEver(t *testing.T) {
	limit := 16
	p := newPace(16, func(n int) { limit = n })
	now := time.Now()
	p.open(now)
	for range 4 {
		p.cutAt = time.Time{}
		p.failed(&statusError{code: http.StatusTooManyRequests})
	}
	require.Equal(t, 1, limit)
	now = time.Now()
	p.open(now)
	for range 100 {
		p.begin(now)
		now = now.Add(goodputWindow / 4)
		p.got(now, 1000)
		p.end(now, 1000)
		now = now.Add(goodputWindow)
	}
	require.Equal(t, 16, limit)
}

func TestWindowsThatTell(t *testing.T) {
	const every = 10 * time.Millisecond
	for name, tc := range map[string]struct {
		flights int // requests that are under way all the time, of 8
		changes bool
	}{
		"all requests are under way, and bring no more than fewer": {8, true},
		"a quarter waits for its turn to be read":                  {6, true},
		"the processor is behind, or there is little to fetch":     {4, false},
	} {
		t.Run(name, func(t *testing.T) {
			var changes []int
			p := newPace(8, func(n int) { changes = append(changes, n) })
			now := time.Now()
			for range tc.flights {
				p.begin(now)
			}
			changes = nil // the first request after a long rest sets the limit
			for range 100 * (restAtFirst + 3) {
				now = now.Add(every)
				p.got(now, 1<<20)
				for p.flights > p.climb.limit { // the next ranges wait for the new limit
					p.end(now, 8<<20)
				}
			}
			require.Equal(t, tc.changes, len(changes) > 0, "%v", changes)
			if tc.changes {
				require.Equal(t, 6, changes[0])
			}
		})
	}
}

// TestLimitIsForgotten begins anew after a rest: another network may be there.
func TestLimitIsForgotten(t *testing.T) {
	limit := 0
	p := newPace(16, func(n int) { limit = n })
	now := time.Now()
	p.begin(now)
	p.failed(&statusError{code: http.StatusServiceUnavailable})
	require.Equal(t, 8, limit)
	p.end(time.Now(), 1)
	p.begin(time.Now().Add(goodputForgotten / 2))
	require.Equal(t, 8, limit)
	p.end(time.Now().Add(goodputForgotten/2), 1)
	p.begin(time.Now().Add(2 * goodputForgotten))
	require.Equal(t, 16, limit)
}
