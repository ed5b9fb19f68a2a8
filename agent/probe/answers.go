package probe

import (
	"context"
	"sync"
	"time"
)

// answers keeps what the API server has said, so that it is asked seldom for what does not come, and never for what has.
// It is safe for concurrent use.
type answers struct {
	mu     sync.Mutex
	byName map[string]answer
}

type answer struct {
	key    string // what it belongs to; with another key it counts no more
	result Result
	next   time.Time // when to ask again; what is True stays so
	wait   time.Duration
}

const (
	// What is under way takes a kubelet or a driver a second at most; what does not come may never.
	minAskAgain = 100 * time.Millisecond
	maxAskAgain = 5 * time.Second
)

// ask returns what was last heard under a name and key, or asks.
func (a *answers) ask(name, key string, ask func() Result) Result {
	a.mu.Lock()
	last, known := a.byName[name]
	a.mu.Unlock()
	known = known && last.key == key
	if known && (last.result.Status == True || time.Now().Before(last.next)) {
		return last.result
	}
	next := answer{key: key, wait: minAskAgain, result: ask()}
	if known {
		next.wait = min(2*last.wait, maxAskAgain)
	}
	next.next = time.Now().Add(next.wait)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byName == nil {
		a.byName = map[string]answer{}
	}
	a.byName[name] = next
	return next.result
}

// watchWith watches folders, and wakes on every change that changed tells of.
func watchWith(ctx context.Context, wake func(), changed func() (string, <-chan struct{}), dirs ...string) error {
	var following sync.WaitGroup
	defer following.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	following.Go(func() {
		for {
			_, next := changed()
			select {
			case <-ctx.Done():
				return
			case <-next:
				wake()
			}
		}
	})
	return watchDirs(ctx, wake, dirs...)
}
