package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The decisions that a caller makes on an error. Everything that is none of these may heal.
var (
	// ErrNotFound: no host has it.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: refused with fresh credentials, and with all others that fit, as well.
	ErrUnauthorized = errors.New("not authorized")
	// ErrRefused: the registry understood the request and will never serve it.
	ErrRefused = errors.New("refused")
	// ErrFetch: it did not come from the registry, whatever the reason. Whoever asks in another way may get it.
	ErrFetch = errors.New("not fetched")
	// ErrCorrupt: the bytes are not those that the digest names.
	ErrCorrupt = errors.New("content does not match its digest")
)

// statusError is an answer that is not what was asked for.
type statusError struct {
	code       int
	host       string
	detail     string
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s answered %d %s", e.host, e.code, http.StatusText(e.code))
	if e.detail != "" {
		text += ": " + e.detail
	}
	return text
}

// Is maps a status to a decision.
func (e *statusError) Is(target error) bool {
	switch e.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrUnauthorized
	case http.StatusNotFound, http.StatusGone:
		return target == ErrNotFound
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusTooEarly:
		return false
	default:
		return e.code >= 300 && e.code < 500 && target == ErrRefused
	}
}

// maxErrorBody is how much of an error's body is read for its message.
const maxErrorBody = 4 << 10

// newStatusError reads the registry's own words. They are foreign: one line, printable, short.
func newStatusError(resp *http.Response) *statusError {
	e := &statusError{code: resp.StatusCode, host: resp.Request.URL.Host, retryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err == nil && strings.Contains(resp.Header.Get("Content-Type"), "json") {
		e.detail = errorMessage(body)
	}
	return e
}

// maxRetryAfter caps what a registry may ask for: longer, and the image is better tried anew later.
const maxRetryAfter = 2 * time.Minute

// retryAfter parses both forms of the header; 0 when there is none.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return min(at.Sub(now), maxRetryAfter)
	}
	return 0
}

// Terminal reports whether trying the same request again is pointless.
func Terminal(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrRefused)
}

// The wait before a request is repeated: full jitter on 100 ms doubled up to 5 s. Ranges are short, and another range
// of the same layer may be blocked behind this one, so the first retry is quick.
const (
	requestRetryBase = 100 * time.Millisecond
	requestRetryCap  = 5 * time.Second
)

// RetryAfter returns how long a registry, or its token server, wants to be left alone; 0 when none has said so.
func RetryAfter(err error) time.Duration {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.retryAfter
	}
	return 0
}

// pause waits before the retry that follows the given number of failures, or as long as the registry asked for. It does not
// begin to wait for longer than there is time.
func pause(ctx context.Context, failures int, cause error) error {
	wait := requestRetryCap
	if shift := failures - 1; shift < 10 {
		wait = min(requestRetryCap, requestRetryBase<<shift)
	}
	wait = rand.N(wait + 1) //nolint:gosec // jitter needs no secrecy
	if status, ok := errors.AsType[*statusError](cause); ok && status.retryAfter > 0 {
		// All nodes of a scale-up are told the same number: spread them over another tenth of it.
		wait = status.retryAfter + rand.N(status.retryAfter/10+1) //nolint:gosec // jitter needs no secrecy
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
