package timeline

import (
	"strings"
	"time"
)

// scale maps the moments of a drawing to its width. It is the axis of the text and of the page.
type scale struct{ from, to time.Time }

// scale is from the first moment to Until, or to the last moment where that comes first.
func (t Timeline) scale() scale {
	s := scale{from: t.Zero(), to: t.Last()}
	if !t.Until.IsZero() && t.Until.Before(s.to) {
		s.to = t.Until
	}
	return s
}

func (s scale) span() time.Duration { return max(s.to.Sub(s.from), time.Millisecond) }

// share is where a moment lies: from 0 to 1, at the edge where it lies beyond.
func (s scale) share(at time.Time) float64 {
	return min(max(at.Sub(s.from).Seconds()/s.span().Seconds(), 0), 1)
}

// steps are round to a person who reads a clock.
var steps = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
}

// tick is one mark of the axis.
type tick struct {
	share float64
	label string
}

// ticks are at most so many round times from the start.
func (s scale) ticks(most int) []tick {
	var out []tick
	for _, step := range steps {
		if int(s.span()/step) >= most {
			continue
		}
		for at := time.Duration(0); at <= s.span(); at += step {
			out = append(out, tick{share: at.Seconds() / s.span().Seconds(), label: clock(at)})
		}
		break
	}
	return out
}

// clock is Go's duration without its zeros: 1m, not 1m0s.
func clock(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = strings.TrimSuffix(text, zero[1:])
		}
	}
	return text
}
