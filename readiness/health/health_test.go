package health

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWorkThatDoesNotMoveIsUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w Work
		require.NoError(t, w.Check(nil), "nothing has been begun")
		<-time.After(2 * StuckAfter)
		require.NoError(t, w.Check(nil), "idle is healthy, however long")

		stuck := w.Begin()
		<-time.After(StuckAfter)
		require.NoError(t, w.Check(nil))
		for range 3 {
			w.Begin().End()
		}
		<-time.After(time.Second)
		require.EqualError(t, w.Check(nil), "1 of 1 pieces of work have not moved for 3m1s", "others that move do not hide one that is stuck")
		stuck.End()
		require.NoError(t, w.Check(nil))

		long := w.Begin()
		for range 5 {
			<-time.After(StuckAfter - time.Second)
			long.Moved()
			require.NoError(t, w.Check(nil), "a long step that gets on is healthy")
		}
		<-time.After(StuckAfter + time.Second)
		require.Error(t, w.Check(nil))
		long.End()
		require.NoError(t, w.Check(nil))
	})
}
