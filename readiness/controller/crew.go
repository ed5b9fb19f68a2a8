package controller

import (
	"sync"
	"time"
)

// The pool of writers is as large as the API server answers well to. A release waits for its writer, so the pool grows
// quickly; what makes answers slow for everybody else is too much.
const (
	firstWriters = 16
	leastWriters = 4
	maxWriters   = 256
	// goodAnswer lets the pool grow while work waits: by one for each answer, so that it doubles with each round.
	// An API server that takes longer has all its CPUs busy already: more at once would only make others wait, the watch
	// that brings the facts first of all.
	goodAnswer = 100 * time.Millisecond
	// slowAnswer makes it shrink, by one for each answer.
	slowAnswer = time.Second
)

// crew is the pool of writers: how many may write at once. Safe for concurrent use.
type crew struct {
	mu   sync.Mutex
	size int
	busy int
	// fixed says that a user has chosen the size.
	fixed bool
	// halved is when an answer last said that it is all too much.
	halved time.Time
	// freed wakes who waits for a writer.
	freed chan struct{}
}

// newCrew makes a pool that sizes itself, or of a fixed size where that is not 0.
func newCrew(fixed int) *crew {
	c := &crew{size: firstWriters, freed: make(chan struct{}, 1)}
	if fixed > 0 {
		c.size, c.fixed = min(fixed, maxWriters), true
	}
	return c
}

// room says whether a writer is free.
func (c *crew) room() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy < c.size
}

func (c *crew) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy++
}

// answer is what a writer learned of the API server.
type answer struct {
	at   time.Time
	took time.Duration
	// overload: the API server refused because it has too much to do, or did not answer in time.
	overload bool
	// waiting: there is more to write.
	waiting bool
}

// end frees a writer.
func (c *crew) end(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	if !c.fixed {
		c.size = c.next(a)
	}
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

// next is the size after an answer.
func (c *crew) next(a answer) int {
	switch {
	case a.overload && a.at.Sub(c.halved) < slowAnswer:
		// The answers of one round tell of the same trouble.
		return c.size
	case a.overload:
		c.halved = a.at
		return max(leastWriters, c.size/2)
	case a.took > slowAnswer:
		return max(leastWriters, c.size-1)
	case a.took <= goodAnswer && a.waiting: // also where others have just ended too, and their places are not yet taken
		return min(maxWriters, c.size+1)
	}
	return c.size
}

// writers is the size today.
func (c *crew) writers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}
