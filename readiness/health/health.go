// Package health says whether the work of a process moves. A controller begins a step for all that it takes in hand, and
// ends it; what is in hand for longer than all its deadlines together is stuck, and a restart helps. What merely waits, on
// a standby or in a queue behind other work that moves, is not. An API server that is away makes steps end in errors, and
// an error is a step too: nobody is restarted for it. Start from Work. All of it is safe for concurrent use.
package health

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// StuckAfter is how long one step may take. A step makes a few requests one after another, of 30 seconds at most each.
const StuckAfter = 3 * time.Minute

// Work is what one controller has in hand. Its zero value has nothing in hand.
type Work struct {
	mu    sync.Mutex
	steps map[*Step]time.Time
}

// Step is a piece of work that has been begun.
type Step struct{ of *Work }

// Begin takes a piece of work in hand. The caller must end it.
func (w *Work) Begin() *Step {
	s := &Step{of: w}
	s.Moved()
	return s
}

// Moved says that a long step gets on: its time begins anew.
func (s *Step) Moved() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.of.steps == nil {
		s.of.steps = map[*Step]time.Time{}
	}
	s.of.steps[s] = time.Now()
}

// End says that the step is over, whatever came of it.
func (s *Step) End() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	delete(s.of.steps, s)
}

// Check fails while a step is stuck. It has the form of controller-runtime's healthz.Checker.
func (w *Work) Check(*http.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	stuck, longest := 0, time.Duration(0)
	for _, since := range w.steps {
		if took := time.Since(since); took > StuckAfter {
			stuck++
			longest = max(longest, took)
		}
	}
	if stuck > 0 {
		return fmt.Errorf("%d of %d pieces of work have not moved for %s", stuck, len(w.steps), longest.Round(time.Second))
	}
	return nil
}
