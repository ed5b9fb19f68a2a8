package registry

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// dripping sends so many bytes at a time, so often.
type dripping struct {
	bytes int
	every time.Duration
}

func (d dripping) Read(p []byte) (int, error) {
	timer := time.NewTimer(d.every)
	defer timer.Stop()
	<-timer.C
	return min(len(p), d.bytes), nil
}

func (dripping) Close() error { return nil }

func TestADripIsGivenUp(t *testing.T) {
	for name, tc := range map[string]struct {
		body   dripping
		rest   time.Duration // between two reads, which is not the body's
		within time.Duration
		want   error
	}{
		"a byte in ten seconds":        {dripping{1, 10 * time.Second}, 0, 2 * time.Minute, errDrip},
		"a slow line":                  {dripping{1000, time.Second}, 0, 10 * time.Minute, nil},
		"a reader that takes its time": {dripping{1000, time.Second}, time.Minute, time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStall(tc.body, bodyStallTimeout)
				defer s.stop()
				began := time.Now()
				var err error
				for err == nil && time.Since(began) < tc.within {
					_, err = s.Read(make([]byte, 4096))
					rest := time.NewTimer(tc.rest)
					<-rest.C
				}
				require.ErrorIs(t, err, tc.want)
			})
		})
	}
}
