package prepull_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
)

func TestImageThatHasGoneIsWantedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pinned, loose, failed = "docker.io/library/pinned:latest", "docker.io/library/loose:latest", "docker.io/library/failed:latest"
		store := newMemStore()
		store.failures[failed] = []error{prepull.Permanent(errors.New("not found"))}
		p, stop := start(t, prepull.Config{Store: store, Images: []prepull.Image{{Ref: "pinned", Pin: true}, {Ref: "loose"}, {Ref: "failed"}}})
		defer stop()
		synctest.Wait()
		pulls := func(want map[string]int) {
			t.Helper()
			synctest.Wait()
			require.Equal(t, want, store.pulls)
		}
		began := time.Now()
		p.Check(map[string]bool{}, began.Add(-time.Second))
		pulls(map[string]int{pinned: 1, loose: 1, failed: 1}) // what came after the look was not there to be seen
		p.Check(map[string]bool{pinned: true, loose: true}, began)
		pulls(map[string]int{pinned: 1, loose: 1, failed: 1})
		p.Check(map[string]bool{"other": true}, began)
		pulls(map[string]int{pinned: 2, loose: 1, failed: 1})
		for _, s := range p.Status() {
			if s.Name == loose {
				require.Equal(t, prepull.StatePending, s.State, "it is not there, and nobody says that it is")
			}
		}
		time.Sleep(10 * time.Minute) //nolint:forbidigo // the bubble's clock
		pulls(map[string]int{pinned: 2, loose: 2, failed: 1})
	})
}
