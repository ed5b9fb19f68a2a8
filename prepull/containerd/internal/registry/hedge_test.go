package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/registry"
)

// TestSlowRangeIsAskedForTwice has one range of twelve that comes in drops, or whose answer never begins: it is asked for
// on another connection, the blob is there long before the slow one would be, and no more than its rest comes twice.
func TestSlowRangeIsAskedForTwice(t *testing.T) {
	const part = 1 << 20
	for name, slow := range map[string]func(w http.ResponseWriter, r *http.Request, data []byte){
		"in drops": func(w http.ResponseWriter, r *http.Request, data []byte) {
			for i := 0; i < len(data) && r.Context().Err() == nil; i += 1000 {
				_, _ = w.Write(data[i:min(len(data), i+1000)])
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(20 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
		},
		"no answer": func(_ http.ResponseWriter, r *http.Request, _ []byte) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			data := noise(t, 12*part)
			desc := f.blob(data)
			var hits, asked atomic.Int64
			f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
				var first, last int
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil {
					return false
				}
				if last == 8*part-1 {
					asked.Add(1)
				}
				if first != 7*part || hits.Add(1) > 1 {
					return false
				}
				if name == "in drops" {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
					w.WriteHeader(http.StatusPartialContent)
				}
				slow(counting{w, &f.sent}, r, data[first:last+1])
				return true
			}
			began := time.Now()
			got, err := read(t, client(t, func(c *registry.Config) { c.Chunk = part }), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
			require.Equal(t, int64(2), asked.Load(), "one second request")
			require.Less(t, time.Since(began), 15*time.Second)
			require.LessOrEqual(t, f.sent.Load()-int64(len(data)), int64(part), "no more than one range came twice")
		})
	}
}

// TestAllSlowIsNotHedgedForEver slows every connection down after a fast beginning: second requests stay within their bound.
func TestAllSlowIsNotHedgedForEver(t *testing.T) {
	const part = 1 << 20
	f := newFake(t)
	data := noise(t, 24*part)
	desc := f.blob(data)
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		var first, last int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil || first < 12*part {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		w.WriteHeader(http.StatusPartialContent)
		for at := first; at <= last && r.Context().Err() == nil; at += part / 16 {
			_, _ = counting{w, &f.sent}.Write(data[at:min(last+1, at+part/16)])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(100 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		return true
	}
	got, err := read(t, client(t, func(c *registry.Config) { c.Chunk = part }), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.LessOrEqual(t, f.sent.Load()-int64(len(data)), int64(len(data)/16+4*part))
}

// TestRangesThatAreRefusedTogetherLogInOnce lets the credentials end while eight ranges are under way.
func TestRangesThatAreRefusedTogetherLogInOnce(t *testing.T) {
	f := newFake(t)
	data := noise(t, 64*chunk)
	desc := f.blob(data)
	var requests, fresh atomic.Int64
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		_, secret, _ := r.BasicAuth()
		if secret == "new" || secret == "old" && requests.Add(1) <= 16 {
			return false
		}
		w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	lookup := func(_ context.Context, _, _ string, attempt int) (string, string, error) {
		if attempt > 0 {
			fresh.Add(1)
			return "user", "new", nil
		}
		return "user", "old", nil
	}
	got, err := read(t, client(t, func(c *registry.Config) { c.Credentials, c.Connections = lookup, 8 }), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Equal(t, int64(1), fresh.Load())
}

// TestBusyMirrorIsPassedBy goes on to the origin instead of waiting as long as a mirror asks for.
func TestBusyMirrorIsPassedBy(t *testing.T) {
	origin, mirror := newFake(t), newFake(t)
	data := noise(t, 16*chunk)
	desc := origin.blob(data)
	mirror.meddle = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	dir := hostsTOML(t, "registry.example", fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n", origin.server.URL, mirror.server.URL))
	began := time.Now()
	got, err := read(t, client(t, func(c *registry.Config) { c.HostDirs = []string{dir} }), "registry.example/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Less(t, time.Since(began), 20*time.Second)
	require.LessOrEqual(t, len(mirror.requests), 4, "those that were under way when it asked to be left alone")
}

// TestSlowMirrorWithoutAnOrigin has a mirror that must fetch from upstream first and an origin that this node cannot
// reach: the mirror is asked again with patience.
func TestSlowMirrorWithoutAnOrigin(t *testing.T) {
	mirror := newFake(t)
	data := noise(t, 2*chunk)
	desc := mirror.blob(data)
	began := time.Now()
	mirror.meddle = func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-time.After(max(0, 3*time.Second-time.Since(began))):
			return false
		case <-r.Context().Done():
			return true
		}
	}
	dir := hostsTOML(t, "registry.example", fmt.Sprintf("server = \"http://127.0.0.1:1\"\n[host.%q]\ncapabilities = [\"pull\"]\n", mirror.server.URL))
	got, err := read(t, client(t, func(c *registry.Config) { c.HostDirs = []string{dir} }), "registry.example/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

// TestRedirectOnTheSameHostIsUsedAgain follows a registry that serves its blobs itself, under signed paths.
func TestRedirectOnTheSameHostIsUsedAgain(t *testing.T) {
	f := newFake(t)
	data := noise(t, 12*chunk)
	desc := f.blob(data)
	var redirects atomic.Int64
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v2/") {
			redirects.Add(1)
			http.Redirect(w, r, "/store"+r.URL.Path+"?signature=x", http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	got, err := read(t, client(t, func(c *registry.Config) { c.Connections = 1 }), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.LessOrEqual(t, redirects.Load(), int64(2))
}
