package main

import (
	"net/http"
	"sync"
	"time"
)

// skewAllowed is a difference that says nothing: the API server tells its time in whole seconds, and an answer takes a while.
const skewAllowed = 2 * time.Second

// serverClock is the API server's clock, as its answers tell it. Deadlines and leases are times of the cluster's machines: by
// the clock of a laptop that goes wrong a controller that lives would seem dead. It is safe for concurrent use.
type serverClock struct {
	mu     sync.Mutex
	offset time.Duration
}

// now is the time by the server's clock; before the first answer, by our own.
func (c *serverClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *serverClock) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err == nil {
			c.read(response.Header.Get("Date"), time.Now())
		}
		return response, err
	})
}

func (c *serverClock) read(date string, now time.Time) {
	told, err := http.ParseTime(date)
	if err != nil {
		return
	}
	offset := told.Sub(now)
	if offset.Abs() < skewAllowed {
		offset = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = offset
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }
