package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheClockTakesWhatSeveralAnswersAgreeOn(t *testing.T) {
	type answer struct {
		connection string
		ahead      time.Duration
	}
	one := func(connection string, ahead time.Duration, times int) (out []answer) {
		for range times {
			out = append(out, answer{connection, ahead})
		}
		return out
	}
	mixed := func(answers ...[]answer) (out []answer) {
		for _, a := range answers {
			out = append(out, a...)
		}
		return out
	}
	// balanced is of three API servers behind a balancer, of which one is an hour ahead: each request goes to the next.
	var balanced []answer
	for i := range 30 {
		balanced = append(balanced, answer{fmt.Sprint(i % 2), []time.Duration{0, 0, time.Hour}[i%3]})
	}
	for name, tc := range map[string]struct {
		answers []answer
		want    time.Duration
	}{
		"nothing":                            {nil, 0},
		"one answer":                         {one("a", time.Hour, 1), 0},
		"one connection":                     {one("a", time.Hour, 20), 0},
		"this machine is an hour behind":     {mixed(one("a", time.Hour, 3), one("b", time.Hour+time.Second, 1), one("c", time.Hour, 1)), time.Hour},
		"this machine is an hour ahead":      {mixed(one("a", -time.Hour, 2), one("b", -time.Hour, 1)), -time.Hour},
		"one of three is an hour ahead":      {mixed(one("a", 0, 3), one("b", time.Hour, 9), one("c", time.Second, 1)), 0},
		"two of three, and this machine not": {mixed(one("a", 0, 3), one("b", time.Hour, 9), one("c", time.Hour, 1)), 0},
		"each request goes to another":       {balanced, 0},
		"jitter":                             {mixed(one("a", 2*time.Second, 3), one("b", -time.Second, 3)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := newServerClock()
			for _, a := range tc.answers {
				c.learn(a.connection, a.ahead)
			}
			require.InDelta(t, tc.want, time.Duration(c.ahead.Load()), float64(skewTolerance))
		})
	}
}
