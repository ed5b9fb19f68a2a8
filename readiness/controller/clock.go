package controller

import (
	"cmp"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// serverClock tells the API server's time: Nodes and rules carry its timestamps, and this machine's clock may be an hour
// off. It learns the difference from the Date header of answers. One of several API servers may be an hour off as well, and
// timeouts would come too soon for every node: so each connection has one vote, the middle one of its last answers, this
// machine's own clock has one too, and only what more than half of them agree on is taken over.
type serverClock struct {
	// ahead is how far the API servers are ahead of us, in nanoseconds.
	ahead atomic.Int64

	mu    sync.Mutex
	votes []vote // the oldest first
}

// vote is what a connection says.
type vote struct {
	connection string
	// answers are the last ones, the oldest first.
	answers []time.Duration
}

const (
	// skewTolerance is what is taken for no difference: a Date header has whole seconds and was written before it was read.
	skewTolerance = 3 * time.Second
	// votesKept bounds the connections that are remembered, answersKept the answers of each.
	votesKept, answersKept = 15, 5
	// answersNeeded is how many answers must agree.
	answersNeeded = 3
)

func newServerClock() *serverClock { return &serverClock{} }

func (c *serverClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// wrap is for rest.Config.Wrap.
func (c *serverClock) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		connection := ""
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			// Our own end: every connection has another.
			connection = info.Conn.LocalAddr().String()
		}}
		resp, err := next.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		if err == nil {
			if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
				c.learn(connection, time.Until(at))
			}
		}
		return resp, err
	})
}

// learn takes an answer into account, by which the API server is ahead of us.
func (c *serverClock) learn(connection string, ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer(connection, ahead)
	agreed, ok := c.agreed()
	if !ok {
		return
	}
	if agreed.Abs() <= skewTolerance {
		agreed = 0
	} else if same(agreed, time.Duration(c.ahead.Load())) {
		// Jitter of a known difference: a clock that jumps to and fro would be worse.
		return
	}
	c.ahead.Store(int64(agreed))
}

func (c *serverClock) answer(connection string, ahead time.Duration) {
	i := slices.IndexFunc(c.votes, func(v vote) bool { return v.connection == connection })
	v := vote{connection: connection}
	if i >= 0 {
		v = c.votes[i]
		c.votes = slices.Delete(c.votes, i, i+1)
	}
	v.answers = append(v.answers, ahead)
	if len(v.answers) > answersKept {
		v.answers = slices.Delete(v.answers, 0, 1)
	}
	if c.votes = append(c.votes, v); len(c.votes) > votesKept {
		c.votes = slices.Delete(c.votes, 0, 1)
	}
}

// agreed is what more than half of the votes say, if they do.
func (c *serverClock) agreed() (time.Duration, bool) {
	ours := vote{answers: make([]time.Duration, answersNeeded)}
	all := append(slices.Clone(c.votes), ours)
	for i := range all {
		votes, answers, says := 0, 0, all[i].says()
		for j := range all {
			if same(all[j].says(), says) {
				votes++
				answers += len(all[j].answers)
			}
		}
		if 2*votes > len(all) && answers >= answersNeeded {
			return says, true
		}
	}
	return 0, false
}

// says is the middle one of the answers.
func (v *vote) says() time.Duration {
	sorted := slices.SortedFunc(slices.Values(v.answers), cmp.Compare[time.Duration])
	return sorted[len(sorted)/2]
}

func same(a, b time.Duration) bool { return (a - b).Abs() <= skewTolerance }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
