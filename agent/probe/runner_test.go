package probe_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/probe"
)

// script is a Checker that answers what it is told to, and counts.
type script struct {
	mu     sync.Mutex
	answer probe.Status
	looks  []time.Time
	wake   func()
}

func (s *script) Check(context.Context) probe.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks = append(s.looks, time.Now())
	return probe.Result{Status: s.answer, Reason: "Scripted"}
}

func (s *script) set(answer probe.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *script) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.looks)
}

// watched is a script that can wake its runner.
type watched struct{ script }

func (s *watched) Watch(ctx context.Context, wake func()) error {
	s.mu.Lock()
	s.wake = wake
	s.mu.Unlock()
	<-ctx.Done()
	return nil
}

// reported keeps what a runner has reported.
type reported struct {
	mu      sync.Mutex
	results []probe.Result
}

func (r *reported) add(result probe.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, result)
}

func (r *reported) statuses() []probe.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []probe.Status{}
	for _, result := range r.results {
		out = append(out, result.Status)
	}
	return out
}

// run starts a runner inside a synctest bubble.
func run(t *testing.T, checker probe.Checker, settings probe.Settings) *reported {
	t.Helper()
	reports := &reported{}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	runner := probe.Runner{Checker: checker, Settings: settings, Report: reports.add}
	go runner.Run(ctx)
	synctest.Wait()
	return reports
}

func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the fake clock of a synctest bubble
	synctest.Wait()
}

var everySecond = probe.Settings{Period: time.Second, Timeout: time.Second, SuccessThreshold: 1, FailureThreshold: 3}

func TestAPendingProbeLooksOftenAndAReadyOneOncePerPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: probe.False}
		run(t, s, everySecond)
		pass(time.Second)
		require.Equal(t, 5, s.count(), "every 250ms")
		s.set(probe.True)
		pass(250 * time.Millisecond)
		before := s.count()
		pass(10 * time.Second)
		require.Equal(t, 10, s.count()-before)
	})
}

func TestThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: probe.False}
		settings := everySecond
		settings.SuccessThreshold = 2
		reports := run(t, s, settings)
		require.Equal(t, []probe.Status{probe.False}, reports.statuses(), "the first look settles a failure")
		s.set(probe.True)
		pass(250 * time.Millisecond)
		require.Len(t, reports.statuses(), 1, "one success is not enough")
		pass(250 * time.Millisecond)
		require.Equal(t, []probe.Status{probe.False, probe.True}, reports.statuses())

		s.set(probe.False)
		pass(2 * time.Second)
		require.Len(t, reports.statuses(), 2, "two failures are not enough")
		pass(time.Second)
		require.Equal(t, []probe.Status{probe.False, probe.True, probe.False}, reports.statuses())
	})
}

func TestBootstrapOnlyStopsAtTheFirstSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: probe.True}
		settings := everySecond
		settings.StopWhenReady = true
		settings.InitialDelay = 3 * time.Second
		reports := run(t, s, settings)
		pass(3*time.Second - time.Millisecond)
		require.Zero(t, s.count(), "the initial delay")
		pass(time.Hour)
		require.Equal(t, 1, s.count())
		require.Len(t, reports.statuses(), 1)
	})
}

func TestAnEventIsFollowedByABurstOfShortWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &watched{script{answer: probe.False}}
		run(t, s, everySecond)
		pass(100 * time.Millisecond)
		before := s.count()
		s.wake()
		pass(40 * time.Millisecond)
		require.Equal(t, 7, s.count()-before, "at once, and after 1, 3, 7, 15, 25 and 35ms")
		pass(time.Minute)
		before = s.count()
		pass(time.Second)
		require.Equal(t, 4, s.count()-before, "every 250ms again")
	})
}

func TestWhatDoesNotChangeIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: probe.True}
		reports := run(t, s, everySecond)
		pass(time.Hour)
		require.Len(t, reports.statuses(), 1)
	})
}
