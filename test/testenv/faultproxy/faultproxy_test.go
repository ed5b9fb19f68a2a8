package faultproxy_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/test/testenv/faultproxy"
)

const digest = "sha256:feed"

// start puts a proxy with the given credentials in front of a registry that has one blob.
func start(t *testing.T, blob []byte, username, password string) (*faultproxy.Proxy, string) {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	}))
	t.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	proxy := faultproxy.New(target, username, password)
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	t.Cleanup(proxy.Close)
	return proxy, front.URL + "/v2/team/app/blobs/" + digest
}

// get returns status and body; the error is that of reading the body.
func get(ctx context.Context, t *testing.T, url string, header http.Header) (int, []byte, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	request.Header = header
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { require.NoError(t, response.Body.Close()) }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

func TestCounts(t *testing.T) {
	blob := bytes.Repeat([]byte("layer"), 40_000)
	proxy, url := start(t, blob, "", "")
	_, body, err := get(t.Context(), t, url, nil)
	require.NoError(t, err)
	require.Equal(t, blob, body)
	require.Equal(t, faultproxy.Count{Requests: 1, Bytes: int64(len(blob))}, proxy.Blob(digest))

	status, body, err := get(t.Context(), t, url, http.Header{"Range": {"bytes=10-19"}})
	require.NoError(t, err)
	require.Equal(t, http.StatusPartialContent, status)
	require.Equal(t, blob[10:20], body)
	require.Equal(t, faultproxy.Count{Requests: 2, Bytes: int64(len(blob)) + 10}, proxy.Pulled())

	proxy.ResetCounts()
	require.Zero(t, proxy.Blob(digest))
	require.Empty(t, proxy.Blobs())
}

func TestFaults(t *testing.T) {
	blob := bytes.Repeat([]byte("layer"), 40_000)
	tests := map[string]struct {
		fault  faultproxy.Fault
		status int
		body   []byte
		err    error
	}{
		"no fault sends the blob": {status: http.StatusOK, body: blob},
		"a status replaces the answer": {
			fault: faultproxy.Fault{Status: http.StatusTooManyRequests}, status: http.StatusTooManyRequests, body: []byte("Too Many Requests\n"),
		},
		"a fault for others does nothing": {
			fault: faultproxy.Fault{Match: faultproxy.Manifests, Status: http.StatusNotFound}, status: http.StatusOK, body: blob,
		},
		"a truncated body ends too early":      {fault: faultproxy.Fault{Truncate: true, After: 100_001}, status: http.StatusOK, body: blob[:100_001], err: io.ErrUnexpectedEOF},
		"a reset ends the connection":          {fault: faultproxy.Fault{Reset: true}, status: http.StatusOK, body: []byte{}, err: syscall.ECONNRESET},
		"latency delays and then sends":        {fault: faultproxy.Fault{Latency: time.Millisecond}, status: http.StatusOK, body: blob},
		"a bandwidth limit sends all the same": {fault: faultproxy.Fault{BytesPerSecond: 10 << 20}, status: http.StatusOK, body: blob},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			proxy, url := start(t, blob, "", "")
			proxy.Inject(test.fault)
			status, body, err := get(t.Context(), t, url, nil)
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.status, status)
			require.Equal(t, test.body, body)
		})
	}
}

func TestCorruptKeepsTheLength(t *testing.T) {
	blob := bytes.Repeat([]byte("layer"), 40_000)
	proxy, url := start(t, blob, "", "")
	proxy.Inject(faultproxy.Fault{Corrupt: true, After: 70_000})
	_, body, err := get(t.Context(), t, url, nil)
	require.NoError(t, err)
	require.Len(t, body, len(blob))
	require.Equal(t, blob[:70_000], body[:70_000])
	require.NotEqual(t, blob[70_000], body[70_000])
	require.NotEqual(t, blob[len(blob)-1], body[len(blob)-1])
}

func TestHangHoldsUntilTheClientLeaves(t *testing.T) {
	proxy, url := start(t, bytes.Repeat([]byte("layer"), 40_000), "", "")
	proxy.Inject(faultproxy.Fault{Hang: true, After: 10})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, body, err := get(ctx, t, url, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, body, 10)
}

func TestFaultClearsItself(t *testing.T) {
	proxy, url := start(t, []byte("x"), "", "")
	proxy.Inject(faultproxy.Fault{Status: http.StatusInternalServerError, Times: 2})
	for _, want := range []int{500, 500, 200} {
		status, _, err := get(t.Context(), t, url, nil)
		require.NoError(t, err)
		require.Equal(t, want, status)
	}
	clearFault := proxy.Inject(faultproxy.Fault{Status: http.StatusBadGateway})
	status, _, err := get(t.Context(), t, url, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadGateway, status)
	clearFault()
	status, _, err = get(t.Context(), t, url, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
}

func TestCredentials(t *testing.T) {
	_, url := start(t, []byte("x"), "user", "secret")
	status, _, err := get(t.Context(), t, url, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, status)
	status, _, err = get(t.Context(), t, url, http.Header{"Authorization": {"Basic dXNlcjpzZWNyZXQ="}})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
}
