package connection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// SilentAfter is how long a watch may say nothing before it is taken for dead and begun again. The API server sends a
	// bookmark about once a minute to every watch that asks for them, so this is two of them and a half.
	// Source: k8s.io/apiserver pkg/storage/cacher/cacher.go@v0.37 (defaultBookmarkFrequency).
	SilentAfter = 150 * time.Second
	// unbookmarkedAfter is the same for Events: their watches come from etcd itself, which sends no bookmarks. It is longer
	// than the ten minutes after which client-go has the API server end a watch.
	unbookmarkedAfter = 11 * time.Minute
	// answerAfter is how long the API server may take to begin a watch. It does so before it has anything to send.
	answerAfter = 30 * time.Second
)

// ErrSilent says that a watch was given up because nothing came by it.
var ErrSilent = errors.New("the watch is silent")

// Limits are how long a watch may be silent. DefaultLimits are for whoever serves users.
type Limits struct {
	// Silent is for a watch that has begun, of a kind of which the API server sends bookmarks; Unbookmarked of another.
	Silent, Unbookmarked time.Duration
	// Answer is how long its beginning may take.
	Answer time.Duration
}

// DefaultLimits never touch a watch of an API server that works.
var DefaultLimits = Limits{Silent: SilentAfter, Unbookmarked: unbookmarkedAfter, Answer: answerAfter}

// Bounded is Limits.Bounded with DefaultLimits.
func Bounded(next http.RoundTripper) http.RoundTripper { return DefaultLimits.Bounded(next) }

// Bounded returns a transport by which no watch can go blind: each asks for bookmarks and is ended, with ErrSilent, when its
// answer does not begin in time or nothing comes by it for too long. Whoever watches then begins anew, over a connection
// that is made or found for it: a TCP connection to a server that hangs looks alive for ever. Other requests pass.
func (l Limits) Bounded(next http.RoundTripper) http.RoundTripper { return bounded{l, next} }

type bounded struct {
	limits Limits
	next   http.RoundTripper
}

// RoundTrip sends one request.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if !isWatch(r) {
		return b.next.RoundTrip(r) //nolint:wrapcheck // a transport passes on what it gets
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	w := &watched{bound: b.limits.of(r), cancel: cancel}
	w.timer = time.AfterFunc(b.limits.Answer, w.expire)
	response, err := b.next.RoundTrip(withBookmarks(ctx, r))
	if err != nil {
		w.timer.Stop()
		cancel(err)
		return nil, w.explain(err)
	}
	w.body = response.Body
	w.heard()
	response.Body = w
	return response, nil
}

// withBookmarks is the request, asking for bookmarks.
func withBookmarks(ctx context.Context, r *http.Request) *http.Request {
	out := r.Clone(ctx)
	query := out.URL.Query()
	query.Set("allowWatchBookmarks", "true")
	out.URL.RawQuery = query.Encode()
	return out
}

func (l Limits) of(r *http.Request) time.Duration {
	if strings.HasSuffix(r.URL.Path, "/events") {
		return l.Unbookmarked
	}
	return l.Silent
}

// watched is the answer to a watch. Reads, and what closes it, may come at the same time.
type watched struct {
	bound  time.Duration
	cancel context.CancelCauseFunc
	timer  *time.Timer
	body   io.ReadCloser

	mu      sync.Mutex
	expired bool
}

// Read reads what the API server sends; each byte shows that it lives.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if n > 0 {
		w.heard()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = w.explain(err)
	}
	return n, err //nolint:wrapcheck // a reader passes on io.EOF as it is
}

// Close ends the watch.
func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel(context.Canceled)
	return w.body.Close() //nolint:wrapcheck // a body passes on what it gets
}

func (w *watched) heard() { w.timer.Reset(w.bound) }

func (w *watched) expire() {
	w.mu.Lock()
	w.expired = true
	w.mu.Unlock()
	w.cancel(ErrSilent)
}

// explain says why a watch ended, where it is us who ended it.
func (w *watched) explain(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.expired {
		return fmt.Errorf("%w: nothing came by it for %s", ErrSilent, w.bound)
	}
	return err
}
