package nodewatch

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// hearing is when something was last heard by the requests that it carries: of a list, of a watch, a bookmark too.
type hearing struct {
	mu   sync.Mutex
	last time.Time
}

func (h *hearing) heard() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Now()
}

// silence is for how long nothing was heard, 0 before anything was asked for.
func (h *hearing) silence() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last.IsZero() {
		return 0
	}
	return time.Since(h.last)
}

func (h *hearing) wrap(next http.RoundTripper) http.RoundTripper { return listener{h, next} }

type listener struct {
	hearing *hearing
	next    http.RoundTripper
}

// RoundTrip sends one request.
func (l listener) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusOK {
		l.hearing.heard()
		response.Body = listened{l.hearing, response.Body}
	}
	return response, err //nolint:wrapcheck // a transport passes on what it gets
}

type listened struct {
	hearing *hearing
	io.ReadCloser
}

// Read reads, and takes note of it.
func (l listened) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if n > 0 {
		l.hearing.heard()
	}
	return n, err //nolint:wrapcheck // a reader passes on what it gets
}

// Silence is for how long nothing was heard of Nodes, not even a bookmark, which the API server sends once a minute.
func (w *Watch) Silence() time.Duration { return w.hearing.silence() }

// hears fails while nothing is heard of Nodes for longer than bound.
func (w *Watch) hears(bound time.Duration) error {
	if silence := w.Silence(); silence > bound {
		return fmt.Errorf("nothing was heard of nodes for %s", silence.Round(time.Second))
	}
	return nil
}
