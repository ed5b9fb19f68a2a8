package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"headstart.dev/readiness"
)

// nodeWriter is the API server as the writers need it.
type nodeWriter interface {
	// PatchNode applies a JSON patch and returns the new resourceVersion. It fails with errChanged where one of the
	// patch's tests did not hold.
	PatchNode(ctx context.Context, name string, patch []byte) (resourceVersion string, err error)
	// GetNode reads the Node from the API server, not from a cache.
	GetNode(ctx context.Context, name string) (*corev1.Node, error)
}

// errChanged says that a Node is not as the model has it.
var errChanged = errors.New("the node has changed meanwhile")

const (
	// writeTimeout bounds one request: an API server that does not answer in that time is asked again.
	writeTimeout = 10 * time.Second
	// firstBackoff and maxBackoff bound the wait after a failure; a conflict waits for nothing.
	firstBackoff = 10 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// job is one write: the node and the change as they were when it was taken.
type job struct {
	n    *node
	node *corev1.Node
	// conditions are the node's.
	conditions readiness.Conditions
	change     readiness.Change
	due        time.Time
	// reread asks for the node to be read before anything is written.
	reread bool
}

// next takes the most urgent node that has something to write; ok is false when there is none. The change is computed
// afresh, so that it is of the latest facts.
func (e *Engine) next() (j job, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		n := e.queue.pop()
		if n == nil {
			e.progress = time.Now()
			return job{}, false
		}
		if n.stale {
			n.active = true
			return job{n: n, node: n.facts.Node, reread: true}, true
		}
		change, again := e.plan(n)
		if change.Urgency == readiness.UrgencyNone {
			if !again.IsZero() {
				e.wakes.set(n, again)
			}
			continue
		}
		if at := n.writable(&change); e.now().Before(at) {
			e.wakes.set(n, at)
			continue
		}
		n.active = true
		e.noteReholds(n)
		return job{n: n, node: n.facts.Node, conditions: n.facts.Conditions, change: change, due: n.dueSince}, true
	}
}

// pool writes nodes until ctx ends, as many at once as the crew allows.
func (e *Engine) pool(ctx context.Context, c *crew, w nodeWriter, tell func(stripped, readiness.Transition)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		for ctx.Err() == nil && c.room() {
			j, ok := e.next()
			if !ok {
				break
			}
			c.begin()
			wg.Go(func() {
				start := time.Now()
				err := e.write(ctx, w, j, tell)
				c.end(answer{at: time.Now(), took: time.Since(start), overload: overloaded(err), waiting: !e.idle()})
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-e.queue.ready:
		case <-c.freed:
		}
	}
}

// overloaded says whether an error tells of an API server that has too much to do.
func overloaded(err error) bool {
	return apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		apierrors.IsServiceUnavailable(err) || errors.Is(err, context.DeadlineExceeded)
}

// write carries out one job and returns what the API server had against it, for the crew; the engine has dealt with it.
func (e *Engine) write(ctx context.Context, w nodeWriter, j job, tell func(stripped, readiness.Transition)) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if j.reread {
		return e.reread(ctx, w, j)
	}
	patch, err := buildPatch(j.node, &j.change)
	if err != nil {
		e.failed(j, err)
		return err
	}
	version, err := w.PatchNode(ctx, j.node.Name, patch)
	switch {
	case err == nil:
		e.succeeded(j, version)
		for _, t := range j.change.Transitions {
			tell(stripped{Node: j.node, conditions: j.conditions}, t)
		}
	case errors.Is(err, errChanged), apierrors.IsConflict(err):
		e.metrics.conflict()
		return e.reread(ctx, w, j)
	case apierrors.IsNotFound(err):
		e.gone(j)
	default:
		e.failed(j, err)
	}
	return err
}

// reread brings the model up to date from the API server itself; the node is queued again from there.
func (e *Engine) reread(ctx context.Context, w nodeWriter, j job) error {
	live, err := w.GetNode(ctx, j.node.Name)
	if apierrors.IsNotFound(err) {
		e.gone(j)
		return nil
	}
	if err != nil {
		err = fmt.Errorf("read node %q: %w", j.node.Name, err)
		e.failed(j, err)
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := j.n
	n.active, n.stale, n.notBefore = false, false, time.Time{}
	e.progress = time.Now()
	if e.nodes[n.name] != n {
		return nil
	}
	n.observe(stripNode(live), e.now())
	e.decide(n)
	return nil
}

func (e *Engine) succeeded(j job, version string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, now := j.n, e.now()
	n.active, n.failures, n.notBefore = false, 0, time.Time{}
	n.lastWrite = now
	n.reheld = n.reheld || j.change.Rehold
	e.progress = time.Now()
	e.metrics.wrote(j.change.Urgency)
	if j.change.Urgency == readiness.UrgencyRelease {
		if !j.due.IsZero() {
			e.metrics.released(now.Sub(j.due))
		}
		n.dueSince = time.Time{}
	}
	if e.nodes[n.name] != n || n.facts.Node.UID != j.node.UID {
		return
	}
	// Facts that came in meanwhile stay; what the patch wrote is known without waiting for its echo.
	if v := parseVersion(version); v > n.version {
		n.wrote = v
		n.facts.Node = applied(withOurs(n.facts.Node, j.node), &j.change)
		n.readRecord()
	}
	e.decide(n)
}

// gone is the end of a write to a node that is no more; the watch will say so too.
func (e *Engine) gone(j job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j.n.active = false
	e.progress = time.Now()
	if e.nodes[j.n.name] == j.n && j.n.facts.Node.UID == j.node.UID {
		e.forgetNode(j.n.name)
	}
}

// failed puts the write off, longer each time. Whether it took effect is not known, so the node is read next time.
func (e *Engine) failed(j job, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := j.n
	n.active, n.stale = false, true
	n.failures++
	n.failure = err.Error()
	e.progress = time.Now()
	e.metrics.failure()
	e.upstream.failed(&j.change)
	wait := backoff(n.failures)
	if after, ok := apierrors.SuggestsClientDelay(err); ok {
		wait = max(wait, time.Duration(after)*time.Second)
	}
	e.log.V(1).Info("writing node failed, will try again", "node", n.name, "attempt", n.failures, "duration", wait.String(), "error", err.Error())
	if n.failures == persistentFailures {
		e.log.Error(err, "writing node keeps failing", "node", n.name, "attempt", n.failures)
	}
	n.notBefore = e.now().Add(wait)
	if e.nodes[n.name] == n {
		e.decide(n)
	}
}

// persistentFailures is after how many attempts a person is told: about 10 s of backoff.
const persistentFailures = 12

// backoff doubles from firstBackoff to maxBackoff, with jitter so that a wave of failures does not come back as one.
func backoff(failures int) time.Duration {
	d := firstBackoff << min(failures-1, 10)
	d = min(d, maxBackoff)
	//nolint:gosec // jitter needs no secrecy
	return d/2 + rand.N(d/2+1)
}

// isTestFailed says whether the API server refused a JSON patch because one of its tests did not hold (or because a path
// that it removes is gone).
// Source: k8s.io/apiserver pkg/endpoints/handlers/patch.go@v0.37, which answers both with 422 and the library's text.
func isTestFailed(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.ErrStatus.Code != http.StatusUnprocessableEntity {
		return false
	}
	text := status.ErrStatus.Message
	return strings.Contains(text, "testing") || strings.Contains(text, "test failed") || strings.Contains(text, "Unable to remove nonexistent key") || strings.Contains(text, "the server rejected our request due to an error in our request")
}
