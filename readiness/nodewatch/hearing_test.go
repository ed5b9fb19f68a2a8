package nodewatch

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/readiness/connection"
)

type answer struct {
	status int
	body   string
}

func (a answer) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Body: io.NopCloser(strings.NewReader(a.body))}, nil
}

func TestReadinessFallsWhenNothingIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		require.Zero(t, w.Silence(), "nobody has asked")
		require.ErrorContains(t, w.Ready(nil), "not been listed")
		w.hearing.heard()
		w.replace(nil)
		require.NoError(t, w.Ready(nil))

		ask := func(a answer) {
			response, err := w.hearing.wrap(a).RoundTrip(&http.Request{})
			require.NoError(t, err)
			<-time.After(time.Minute)
			_, err = response.Body.Read(make([]byte, 8))
			require.NoError(t, errors.Join(err, response.Body.Close()))
		}
		ask(answer{http.StatusOK, "bookmark"})
		require.Zero(t, w.Silence(), "what comes by a watch counts when it comes")
		<-time.After(connection.SilentAfter)
		require.NoError(t, w.Ready(nil))
		ask(answer{http.StatusForbidden, "a refusal says nothing of nodes"})
		require.EqualError(t, w.Ready(nil), "nothing was heard of nodes for 3m30s")
		ask(answer{http.StatusOK, "bookmark"})
		require.NoError(t, w.Ready(nil))
	})
}
