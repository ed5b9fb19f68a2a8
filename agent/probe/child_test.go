package probe

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Many turns widen the window: with the result handed over before the flag is cleared, some of them find it still set.
func TestWorkThatHasEndedIsNeverTakenForOneThatHangs(t *testing.T) {
	var s single
	for range 100_000 {
		require.NoError(t, s.do(t.Context(), func() error { return nil }))
	}
}

func TestWorkThatHangsIsToldUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s single
		let, failed := make(chan struct{}), errors.New("failed")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, s.do(ctx, func() error { <-let; return failed }), errHangs)
		require.ErrorIs(t, s.do(t.Context(), func() error { return nil }), errHangs, "nothing runs beside what hangs")
		close(let)
		synctest.Wait()
		require.NoError(t, s.do(t.Context(), func() error { return nil }))
		late := func() error { <-time.After(time.Second + waitDelay); return failed }
		ctx, cancelLate := context.WithTimeout(t.Context(), time.Second)
		defer cancelLate()
		require.ErrorIs(t, s.do(ctx, late), failed, "what ends in the grace time has not hung")
	})
}
