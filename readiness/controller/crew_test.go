package controller

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"headstart.dev/readiness"
)

// rounds lets a full crew hear one answer each, and returns its size after each round.
func rounds(c *crew, n int, a answer) []int {
	var sizes []int
	for range n {
		size := c.writers()
		for range size {
			c.begin()
		}
		for range size {
			c.end(a)
		}
		sizes = append(sizes, c.writers())
	}
	return sizes
}

func TestCrewFollowsTheAnswerTimes(t *testing.T) {
	now := time.Now()
	cases := map[string]struct {
		from int
		a    answer
		want []int
	}{
		"good answers and work waiting":  {16, answer{at: now, took: 10 * time.Millisecond, waiting: true}, []int{32, 64}},
		"good answers and nothing waits": {16, answer{at: now, took: 10 * time.Millisecond}, []int{16, 16}},
		"answers between good and slow":  {16, answer{at: now, took: 600 * time.Millisecond, waiting: true}, []int{16, 16}},
		"slow answers":                   {16, answer{at: now, took: 2 * time.Second, waiting: true}, []int{4, 4}},
		"never more than the most":       {maxWriters, answer{at: now, took: time.Millisecond, waiting: true}, []int{maxWriters, maxWriters}},
		"an overload is heard once":      {64, answer{at: now, took: time.Millisecond, waiting: true, overload: true}, []int{32, 32}},
		"an overload leaves the least":   {5, answer{at: now, overload: true}, []int{leastWriters, leastWriters}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := newCrew(0)
			c.size = tc.from
			require.Equal(t, tc.want, rounds(c, 2, tc.a))
			require.Zero(t, c.busy)
		})
	}
	t.Run("a size that was chosen stays", func(t *testing.T) {
		c := newCrew(8)
		require.Equal(t, []int{8}, rounds(c, 1, answer{at: now, took: time.Minute, overload: true}))
	})
}

// slowServer answers after a time of its own and knows how many asked at once.
type slowServer struct {
	takes        time.Duration
	now, most    atomic.Int32
	written      atomic.Int32
	firstRefused atomic.Int32
}

func (s *slowServer) PatchNode(ctx context.Context, name string, _ []byte) (string, error) {
	now := s.now.Add(1)
	defer s.now.Add(-1)
	if most := s.most.Load(); now > most {
		s.most.CompareAndSwap(most, now)
	}
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if s.firstRefused.Add(-1) >= 0 {
		return "", apierrors.NewTooManyRequests("busy", 0)
	}
	s.written.Add(1)
	return "999999999", nil
}

func (*slowServer) GetNode(_ context.Context, name string) (*corev1.Node, error) {
	return apiNode(name, "2", taintedNode, readyNode), nil
}

func TestPoolWritesAWaveAsFastAsTheServerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := makeEngine(t)
		e.SetRule(testRule(), nil)
		e.Lead(true)
		server := &slowServer{takes: 20 * time.Millisecond}
		c := newCrew(0)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.pool(ctx, c, server, func(stripped, readiness.Transition) {})
		}()
		start := time.Now()
		for i := range 1000 {
			e.ObserveNode(makeNode(string(rune('a'+i%26))+time.Duration(i).String(), "1", taintedNode, readyNode))
		}
		for server.written.Load() < 1000 {
			time.Sleep(time.Millisecond) //nolint:forbidigo // synctest's time
		}
		// 64 writers would need 16 rounds of 20 ms.
		require.Less(t, time.Since(start), 320*time.Millisecond)
		require.Greater(t, c.writers(), firstWriters)
		require.LessOrEqual(t, int(server.most.Load()), maxWriters)
		stop()
		<-done
	})
}

func TestPoolGoesOnAfterAnOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := makeEngine(t)
		e.SetRule(testRule(), nil)
		e.Lead(true)
		server := &slowServer{takes: time.Millisecond}
		server.firstRefused.Store(100)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.pool(ctx, newCrew(0), server, func(stripped, readiness.Transition) {})
		}()
		go e.clock(ctx)
		for i := range 200 {
			e.ObserveNode(makeNode("n"+time.Duration(i).String(), "1", taintedNode, readyNode))
		}
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's time
		require.EqualValues(t, 200, server.written.Load())
		stop()
		<-done
	})
}

func TestOverloadIsToldFromOtherErrors(t *testing.T) {
	require.True(t, overloaded(apierrors.NewTooManyRequests("x", 1)))
	require.True(t, overloaded(apierrors.NewServiceUnavailable("x")))
	require.True(t, overloaded(apierrors.NewTimeoutError("x", 1)))
	require.True(t, overloaded(context.DeadlineExceeded))
	require.False(t, overloaded(errors.New("x")))
	require.False(t, overloaded(nil))
}
