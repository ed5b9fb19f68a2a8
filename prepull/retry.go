package prepull

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// The wait before a retry is drawn evenly from [0, min(retryCap, retryBase<<n)]: full jitter, so that the nodes of a
// scale-up do not come back to a struggling registry at one moment. The cap keeps a healed registry from being noticed
// late: pods wait for these images. What a registry refuses is asked for less and less: it heals when somebody pushes the
// image or grants the right, and a wrong name never does.
const (
	retryBase  = 500 * time.Millisecond
	retryCap   = 20 * time.Second
	refusedCap = 5 * time.Minute
)

// refusedOften is how many refusals in a row make an image one that has failed, for all that it is tried again.
const refusedOften = 3

// backoff returns the wait after the given number of failures in a row (1 or more).
func backoff(failures int, limit time.Duration, random func(int64) int64) time.Duration {
	if shift := failures - 1; shift < 20 {
		limit = min(limit, retryBase<<shift)
	}
	return time.Duration(random(int64(limit) + 1))
}

// RefusedError is a failure that may be somebody's to mend: no such image, no right to it.
type RefusedError struct{ Err error }

// Refused marks err as a RefusedError.
func Refused(err error) error { return &RefusedError{Err: err} }

func (e *RefusedError) Error() string { return e.Err.Error() }

func (e *RefusedError) Unwrap() error { return e.Err }

// LaterError is a failure that is sure to come again until something has happened, which Wait waits for.
type LaterError struct {
	Err  error
	Wait func(ctx context.Context) error
}

// Later marks err as a LaterError.
func Later(err error, wait func(ctx context.Context) error) error {
	return &LaterError{Err: err, Wait: wait}
}

func (e *LaterError) Error() string { return e.Err.Error() }

func (e *LaterError) Unwrap() error { return e.Err }

// AfterError is a failure of somebody who has said when to come back.
type AfterError struct {
	Err   error
	After time.Duration
}

// After marks err as an AfterError; with 0 it stays as it is.
func After(err error, after time.Duration) error {
	if err == nil || after <= 0 {
		return err
	}
	return &AfterError{Err: err, After: after}
}

func (e *AfterError) Error() string { return e.Err.Error() }

func (e *AfterError) Unwrap() error { return e.Err }

// trials are the attempts at one image.
type trials struct {
	failures int   // in a row that brought nothing
	refusals int   // in a row
	best     int64 // bytes that an attempt had left on the node
}

// failed counts a failure. Only bytes that were not there after any attempt before, and that stay, are progress: what is
// fetched again and again never ends.
func (t *trials) failed(kept int64, err error) {
	if kept > t.best {
		t.best, t.failures = kept, 0
	}
	t.failures++
	if _, refused := errors.AsType[*RefusedError](err); refused {
		t.refusals++
	} else {
		t.refusals = 0
	}
}

// hopeless reports whether the image is given up.
func (t *trials) hopeless(err error, attempts int) bool {
	if IsPermanent(err) {
		return true
	}
	_, later := errors.AsType[*LaterError](err)
	return attempts > 0 && (later || t.failures >= attempts)
}

// looksFailed reports whether an image that is tried again has failed for those who look at it.
func (t *trials) looksFailed(err error) bool {
	_, later := errors.AsType[*LaterError](err)
	return later || t.refusals >= refusedOften
}

// pause waits until the next attempt is due, and reports false when ctx ends before.
func (t *trials) pause(ctx context.Context, err error) bool {
	if later, ok := errors.AsType[*LaterError](err); ok {
		return later.Wait(ctx) == nil && ctx.Err() == nil
	}
	timer := time.NewTimer(t.wait(err))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (t *trials) wait(err error) time.Duration {
	limit := retryCap
	if t.refusals > 0 {
		limit = refusedCap
	}
	wait := backoff(t.failures, limit, rand.Int64N)
	if after, ok := errors.AsType[*AfterError](err); ok {
		// All nodes of a scale-up are told the same: spread them over another tenth of it.
		wait = max(wait, after.After+time.Duration(rand.Int64N(int64(after.After)/10+1))) //nolint:gosec // a spread, no secret
	}
	return wait
}
