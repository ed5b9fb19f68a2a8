// Package tokens shares a number of tokens (connections, unpack slots) among waiters by rank instead of by arrival.
package tokens

import (
	"cmp"
	"container/heap"
	"context"
	"sync"
)

// Rank orders waiters: higher Priority first, of equals the larger Cost (the longest predicted work first leaves the
// shortest tail), then whoever came first.
type Rank struct {
	Priority int32
	Cost     int64
}

func (r Rank) compare(other Rank) int {
	return cmp.Or(cmp.Compare(other.Priority, r.Priority), cmp.Compare(other.Cost, r.Cost))
}

// Tokens is a semaphore with ranked waiters and a limit that can change. It is safe for concurrent use.
type Tokens struct {
	mu      sync.Mutex
	limit   int
	used    int
	arrived uint64
	waiters waiters
}

// New returns limit tokens, at least one.
func New(limit int) *Tokens { return &Tokens{limit: max(1, limit)} }

// Acquire takes a token, or returns ctx's error.
func (t *Tokens) Acquire(ctx context.Context, rank Rank) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	if t.used < t.limit && len(t.waiters) == 0 {
		t.used++
		t.mu.Unlock()
		return nil
	}
	t.arrived++
	w := &waiter{rank: rank, arrived: t.arrived, granted: make(chan struct{})}
	heap.Push(&t.waiters, w)
	t.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.index >= 0 {
		heap.Remove(&t.waiters, w.index)
		return ctx.Err()
	}
	t.give() // it was granted meanwhile
	return ctx.Err()
}

// Release returns a token.
func (t *Tokens) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.give()
}

// SetLimit changes how many tokens there are. Fewer than are in use take effect as they come back.
func (t *Tokens) SetLimit(limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit = max(1, limit)
	t.grant()
}

// Limit returns how many tokens there are.
func (t *Tokens) Limit() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limit
}

func (t *Tokens) give() {
	t.used--
	t.grant()
}

func (t *Tokens) grant() {
	for t.used < t.limit && len(t.waiters) > 0 {
		w, _ := heap.Pop(&t.waiters).(*waiter) // the heap holds nothing else
		t.used++
		close(w.granted)
	}
}

type waiter struct {
	rank    Rank
	arrived uint64
	index   int // in the heap, -1 when it has left
	granted chan struct{}
}

// waiters is a heap.Interface.
type waiters []*waiter

func (w waiters) Len() int { return len(w) }

func (w waiters) Less(i, j int) bool {
	return cmp.Or(w[i].rank.compare(w[j].rank), cmp.Compare(w[i].arrived, w[j].arrived)) < 0
}

func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

func (w *waiters) Push(x any) {
	one, _ := x.(*waiter) // the heap holds nothing else
	one.index = len(*w)
	*w = append(*w, one)
}

func (w *waiters) Pop() any {
	old := *w
	one := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	one.index = -1
	return one
}
