package controller

import (
	"container/heap"
	"time"

	"headstart.dev/readiness"
)

// queue holds the nodes that are to be written, most urgent first and in order of arrival within an urgency. A node
// stands in it at most once. Guarded by Engine.mu.
type queue struct {
	lists [readiness.UrgencyNone][]*node
	size  int
	// ready tells that there is a node to take.
	ready chan struct{}
}

func (q *queue) init() { q.ready = make(chan struct{}, 1) }

// push queues the node, or moves it where its urgency is another now.
func (q *queue) push(n *node, u readiness.Urgency) {
	if n.queued && n.queuedAs == u {
		return
	}
	q.remove(n)
	n.queued, n.queuedAs = true, u
	q.lists[u] = append(q.lists[u], n)
	q.size++
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// pop takes the most urgent node, or returns nil.
func (q *queue) pop() *node {
	for u := range q.lists {
		for len(q.lists[u]) > 0 {
			n := q.lists[u][0]
			q.lists[u][0] = nil
			q.lists[u] = q.lists[u][1:]
			if n.queued && n.queuedAs == readiness.Urgency(u) {
				q.remove(n)
				return n
			}
		}
	}
	return nil
}

// remove takes the node out; what is left of it in a list is skipped by pop.
func (q *queue) remove(n *node) {
	if n.queued {
		n.queued = false
		q.size--
	}
}

func (q *queue) clear() {
	for n := q.pop(); n != nil; n = q.pop() {
		q.remove(n)
	}
}

// wakes is a heap of nodes by the time at which they must be decided again. Guarded by Engine.mu.
type wakes struct {
	heap wakeHeap
	// changed tells the clock goroutine that the first time may be earlier.
	changed chan struct{}
}

func (w *wakes) init() { w.changed = make(chan struct{}, 1) }

// set asks for a decision at t, or earlier where that is asked for already.
func (w *wakes) set(n *node, t time.Time) {
	if n.wakeIndex >= 0 {
		if !t.Before(n.wakeAt) {
			return
		}
		n.wakeAt = t
		heap.Fix(&w.heap, n.wakeIndex)
	} else {
		n.wakeAt = t
		heap.Push(&w.heap, n)
	}
	if n.wakeIndex == 0 {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *wakes) cancel(n *node) {
	if n.wakeIndex >= 0 {
		heap.Remove(&w.heap, n.wakeIndex)
	}
}

// due takes out the nodes whose time has come.
func (w *wakes) due(now time.Time) (nodes []*node) {
	for len(w.heap) > 0 && !now.Before(w.heap[0].wakeAt) {
		//nolint:errcheck,forcetypeassert // the heap holds nothing else
		nodes = append(nodes, heap.Pop(&w.heap).(*node))
	}
	return nodes
}

// first is when the next node is due; zero for never.
func (w *wakes) first() time.Time {
	if len(w.heap) == 0 {
		return time.Time{}
	}
	return w.heap[0].wakeAt
}

type wakeHeap []*node

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].wakeAt.Before(h[j].wakeAt) }
func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].wakeIndex, h[j].wakeIndex = i, j
}

func (h *wakeHeap) Push(x any) {
	n := x.(*node) //nolint:errcheck,forcetypeassert // the heap holds nothing else
	n.wakeIndex = len(*h)
	*h = append(*h, n)
}

func (h *wakeHeap) Pop() any {
	old := *h
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	n.wakeIndex = -1
	return n
}
