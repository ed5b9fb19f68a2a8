package controller

import (
	"net/http"
	"sync/atomic"
	"time"
)

// serverClock tells the API server's time: Nodes and rules carry its timestamps, and this machine's clock may be an hour
// off. It learns the difference from the Date header of every answer.
type serverClock struct {
	// ahead is how far the API server is ahead of us, in nanoseconds.
	ahead atomic.Int64
}

// skewTolerance is what is taken for no difference: a Date header has whole seconds and was written before it was read.
const skewTolerance = 3 * time.Second

func newServerClock() *serverClock { return &serverClock{} }

func (c *serverClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// wrap is for rest.Config.Wrap.
func (c *serverClock) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			c.learn(resp.Header.Get("Date"))
		}
		return resp, err
	})
}

func (c *serverClock) learn(date string) {
	if date == "" {
		return
	}
	at, err := http.ParseTime(date)
	if err != nil {
		return
	}
	ahead := time.Until(at)
	if ahead.Abs() <= skewTolerance {
		ahead = 0
	} else if diff := ahead - time.Duration(c.ahead.Load()); diff.Abs() <= skewTolerance {
		// Jitter of a known difference: a clock that jumps to and fro would be worse.
		return
	}
	c.ahead.Store(int64(ahead))
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
