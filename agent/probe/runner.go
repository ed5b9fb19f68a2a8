package probe

import (
	"context"
	"time"
)

const (
	// minPending and maxPending bound the time between two looks at something that is not ready: often enough that
	// nobody waits for it, seldom enough that a boot has its CPUs for itself. The lower one is for a period of 50ms, and
	// keeps what sends no events within 50ms from fact to condition.
	minPending = 25 * time.Millisecond
	maxPending = 250 * time.Millisecond
	// firstBurst is the first of the short waits after an event that has not made the probe ready: a socket file appears
	// a few microseconds before its owner listens, a file before its content. Each wait is twice the last.
	firstBurst = time.Millisecond
	// burstWait is the longest of the short waits, burstTime how long after the event they go on: the container runtime
	// needs that long to load a network config on a machine that is busy with its boot.
	burstWait = 10 * time.Millisecond
	burstTime = 500 * time.Millisecond
)

// Settings are the corev1.Probe fields of one probe.
type Settings struct {
	InitialDelay     time.Duration
	Period           time.Duration
	Timeout          time.Duration
	SuccessThreshold int
	FailureThreshold int
	// Pending overrides the time between two looks while not ready; 0 means half a Period, but between 25 and 250ms.
	Pending time.Duration
	// Dear says that a look costs more than a few system calls: an event is followed by one look, not by a burst.
	Dear bool
	// StopWhenReady ends the runner at the first True.
	StopWhenReady bool
}

// pending is the time between two looks while the probe is not ready.
func (s Settings) pending() time.Duration {
	if s.Pending > 0 {
		return s.Pending
	}
	return min(max(s.Period/2, minPending), maxPending)
}

// Runner looks again and again, on events where the Checker is a Watcher, else by time, and reports every change of the
// settled Result.
type Runner struct {
	Checker  Checker
	Settings Settings
	// Report is told of the Result whenever it changes, from the goroutine of Run.
	Report func(Result)
	// WatchFailed is told, once, when the Checker cannot watch; nil ignores it.
	WatchFailed func(error)
}

// Run probes until ctx ends, or until the first True where Settings say so.
func (r *Runner) Run(ctx context.Context) {
	if !wait(ctx, r.Settings.InitialDelay, nil) {
		return
	}
	wake := make(chan struct{}, 1)
	watchCtx, stopWatch := context.WithCancel(ctx)
	watched := r.watch(watchCtx, wake)
	defer func() { stopWatch(); <-watched }()

	state := settle{success: r.Settings.SuccessThreshold, failure: r.Settings.FailureThreshold}
	var burst burst
	for {
		result, changed := state.observe(r.check(ctx))
		if ctx.Err() != nil {
			return
		}
		if changed {
			r.Report(result)
		}
		delay := r.Settings.Period
		switch {
		case result.Status == True && r.Settings.StopWhenReady:
			return
		case !result.Status.Satisfied():
			delay = burst.next(r.Settings.pending())
		}
		woken, alive := waitOrWake(ctx, delay, wake)
		if !alive {
			return
		}
		if woken && !r.Settings.Dear {
			burst.start()
		}
	}
}

// burst is the row of short waits after an event.
type burst struct {
	wait time.Duration
	end  time.Time
}

func (b *burst) start() { b.wait, b.end = firstBurst, time.Now().Add(burstTime) }

// next is the time to the next look at what is not ready.
func (b *burst) next(pending time.Duration) time.Duration {
	if !time.Now().Before(b.end) {
		return pending
	}
	wait := b.wait
	b.wait = min(2*b.wait, burstWait)
	return min(wait, pending)
}

// check looks once, with the probe's deadline.
func (r *Runner) check(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, r.Settings.Timeout)
	defer cancel()
	return r.Checker.Check(ctx)
}

// watch starts the Checker's Watcher, if it is one, and returns a channel that is closed when that has ended.
func (r *Runner) watch(ctx context.Context, wake chan<- struct{}) <-chan struct{} {
	done := make(chan struct{})
	watcher, ok := r.Checker.(Watcher)
	if !ok {
		close(done)
		return done
	}
	go func() {
		defer close(done)
		err := watcher.Watch(ctx, func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		if err != nil && ctx.Err() == nil && r.WatchFailed != nil {
			r.WatchFailed(err)
		}
	}()
	return done
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, delay time.Duration, wake <-chan struct{}) bool {
	_, alive := waitOrWake(ctx, delay, wake)
	return alive
}

func waitOrWake(ctx context.Context, delay time.Duration, wake <-chan struct{}) (woken, alive bool) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, false
	case <-wake:
		return true, true
	case <-timer.C:
		return false, ctx.Err() == nil
	}
}
