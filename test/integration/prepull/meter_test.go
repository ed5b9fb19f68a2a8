package prepull_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// pullRequests is what one node's pull asks of a registry: the manifest by its digest, the config, and four layers of
	// one range each.
	pullRequests = 6
	// pullTime is what one simulated pull takes.
	pullTime = 300 * time.Millisecond
)

// meter is a registry that answers every request at once, and notes when it came.
type meter struct {
	server *httptest.Server

	mu    sync.Mutex
	times []time.Time
}

func newMeter(t *testing.T) *meter {
	t.Helper()
	m := &meter{}
	m.server = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.times = append(m.times, time.Now())
	}))
	t.Cleanup(m.server.Close)
	return m
}

// pull makes the requests of one pull, over its time.
func (m *meter) pull(ctx context.Context, t *testing.T) {
	t.Helper()
	for range pullRequests {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.server.URL, http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := m.server.Client().Do(req)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		timer := time.NewTimer(pullTime / pullRequests)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.times = nil
}

// peak is the largest number of requests within any second, and how many there were in all.
func (m *meter) peak(t *testing.T) (perSecond, all int) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	require.NotEmpty(t, m.times)
	first := 0
	for i, at := range m.times {
		for at.Sub(m.times[first]) > time.Second {
			first++
		}
		perSecond = max(perSecond, i-first+1)
	}
	return perSecond, len(m.times)
}
