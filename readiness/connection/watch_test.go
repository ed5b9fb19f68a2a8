package connection_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/readiness/connection"
)

// hung is an API server that begins an answer after some time, and then says what is sent to it.
type hung struct {
	answers time.Duration
	says    chan string
	asked   []string
}

func (h *hung) RoundTrip(r *http.Request) (*http.Response, error) {
	h.asked = append(h.asked, r.URL.RawQuery)
	select {
	case <-time.After(h.answers):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	out, in := io.Pipe()
	go func() {
		for {
			select {
			case text := <-h.says:
				_, _ = in.Write([]byte(text))
			case <-r.Context().Done():
				_ = in.CloseWithError(r.Context().Err())
				return
			}
		}
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: out}, nil
}

func get(t *testing.T, server http.RoundTripper, url string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	return connection.Bounded(server).RoundTrip(request)
}

const watch = "https://api/api/v1/nodes?watch=true"

func TestASilentWatchIsEnded(t *testing.T) {
	for name, tc := range map[string]struct {
		url   string
		bound time.Duration
	}{
		"of what has bookmarks": {watch, connection.SilentAfter},
		"of events":             {"https://api/api/v1/events?watch=true", 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &hung{says: make(chan string)}
				response, err := get(t, server, tc.url)
				require.NoError(t, err)
				require.Equal(t, []string{"allowWatchBookmarks=true&watch=true"}, server.asked)
				buffer := make([]byte, 64)
				for range 5 { // bookmarks, each just in time
					go func() {
						<-time.After(tc.bound - time.Second)
						server.says <- "bookmark"
					}()
					n, err := response.Body.Read(buffer)
					require.NoError(t, err)
					require.Equal(t, "bookmark", string(buffer[:n]))
				}
				silent := time.Now()
				_, err = response.Body.Read(buffer)
				require.ErrorIs(t, err, connection.ErrSilent)
				require.Equal(t, tc.bound, time.Since(silent))
				require.NoError(t, response.Body.Close())
			})
		})
	}
}

func TestAWatchThatDoesNotBeginIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		response, err := get(t, &hung{answers: time.Hour}, watch) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, connection.ErrSilent)
		require.Nil(t, response)
		require.Equal(t, 30*time.Second, time.Since(began))
	})
}

func TestOtherRequestsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &hung{answers: time.Hour, says: make(chan string)}
		response, err := get(t, server, "https://api/api/v1/nodes?limit=500")
		require.NoError(t, err)
		require.Equal(t, []string{"limit=500"}, server.asked)
		go func() {
			<-time.After(time.Hour)
			server.says <- "x"
		}()
		_, err = response.Body.Read(make([]byte, 1))
		require.NoError(t, errors.Join(err, response.Body.Close()))
	})
}

func TestAClosedWatchStaysClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		response, err := get(t, &hung{says: make(chan string)}, watch)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		_, err = response.Body.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
}
