package shipped_test

import (
	"fmt"
	"testing"
	"time"
)

const (
	// patience ends what hangs. Nothing here takes as long, on a machine that is busy with other things either.
	patience = 5 * time.Minute
	look     = 100 * time.Millisecond
)

// eventually looks until something holds, in the test's own goroutine: what it calls may end the test.
func eventually(t *testing.T, holds func() bool, format string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, fmt.Sprintf(format, args...))
		}
		pause(t, look)
	}
}

// pause waits, unless the test ends.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
		t.Fatal("the test was ended")
	case <-time.After(d):
	}
}
