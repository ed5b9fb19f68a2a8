package registry

import (
	"context"
	"errors"
	"time"
)

// turn is one host's turn in a request.
type turn struct {
	host     *host
	attempts int
	// timeout is how long the host may take to begin its answer.
	timeout time.Duration
	// patient turns come last: nobody had an answer, so the breakers count no longer.
	patient bool
	// origin is the last host: there is nobody behind it.
	origin bool
}

// briefAttempts is how often a host is asked while others may be faster.
const briefAttempts = 2

// turns lists who is asked, in order. Mirrors are asked briefly and then the origin, which is the last host; when none
// of them has an answer, all are asked again with patience. A mirror that must fetch from upstream first takes longer
// than a moment, and where nodes cannot reach the origin there is nobody else.
func turns(hosts []*host, attempts int) []turn {
	last := len(hosts) - 1
	if last == 0 {
		return []turn{{host: hosts[0], attempts: attempts, timeout: originHeaderTimeout, patient: true, origin: true}}
	}
	var all []turn
	for _, h := range hosts[:last] {
		all = append(all, turn{host: h, attempts: briefAttempts, timeout: mirrorHeaderTimeout})
	}
	all = append(all, turn{host: hosts[last], attempts: briefAttempts, timeout: originHeaderTimeout, origin: true})
	for _, h := range hosts[:last] {
		all = append(all, turn{host: h, attempts: briefAttempts, timeout: originHeaderTimeout, patient: true})
	}
	return append(all, turn{host: hosts[last], attempts: max(1, attempts-briefAttempts), timeout: originHeaderTimeout, patient: true, origin: true})
}

// passOn reports whether the next host is asked instead of waiting for this one: it is busy and says for how long. It is
// left alone until then.
func (t turn) passOn(err error) bool {
	if errors.Is(err, errDrip) {
		return true // it would drip again
	}
	status, ok := errors.AsType[*statusError](err)
	if !ok || status.retryAfter == 0 || t.patient || t.origin {
		return false
	}
	t.host.rest(time.Now().Add(status.retryAfter))
	return true
}

// eachTurn asks host after host until one answers. A host that says for good that there is nothing to be had is not asked
// again; the others are, be it the origin that says so: a mirror may have what nodes get nowhere else.
func eachTurn(ctx context.Context, hosts []*host, attempts int, ask func(turn) error) error {
	var errs []error
	final := map[*host]bool{}
	for _, t := range turns(hosts, attempts) {
		switch {
		case final[t.host]:
			continue
		case t.origin:
		case t.patient && !t.host.trusted(time.Now()), !t.patient && !t.host.usable(time.Now()):
			continue
		}
		err := ask(t)
		if err == nil || errors.Is(err, errNoRanges) {
			return err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			return errors.Join(errs...)
		}
		final[t.host] = Terminal(err)
	}
	return hostsError(errs)
}
