package controller

import (
	"context"
	"strings"
	"sync"
	"time"

	"headstart.dev/prepull/controller/resolve"
)

const (
	// lookupWorkers is how many lookups run at once: enough for a policy of 100 images in about a second, few enough for
	// the request limits of public registries.
	lookupWorkers = 8
	// retryFirst and retryMost bound how soon a lookup that failed is tried again; it doubles between them. A registry
	// that has the image nowhere, or refuses, is not asked more often than a tag that works.
	retryFirst = 15 * time.Second
	retryMost  = 10 * time.Minute
)

// Resolver looks an image up in its registry: its digest, and its layers for one architecture. It has a deadline of its
// own and is safe for concurrent use.
type Resolver interface {
	Resolve(ctx context.Context, name, arch string) (resolve.Image, error)
}

// lookup is what is known of one name.
type lookup struct {
	image resolve.Image
	// done says that a lookup has ended, well or not.
	done bool
	err  error
	// due is when the next one is; failures counts those in a row.
	due      time.Time
	failures int
	running  bool
	// refreshing says that it is looked up again because a policy has changed.
	refreshing bool
	arch       string
	// every is the shortest interval that a policy asks for.
	every time.Duration
}

// lookups resolves names in the background and remembers the answers. It is safe for concurrent use.
type lookups struct {
	resolver Resolver
	now      func() time.Time
	// changed is called after an answer that says something new.
	changed func()

	mu    sync.Mutex
	names map[string]*lookup
	wake  chan struct{}
}

func newLookups(r Resolver, now func() time.Time, changed func()) *lookups {
	return &lookups{resolver: r, now: now, changed: changed, names: map[string]*lookup{}, wake: make(chan struct{}, 1)}
}

// get returns what is known of a name; one that is not wanted is unknown.
func (l *lookups) get(name string) lookup {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.names[name]; known != nil {
		return *known
	}
	return lookup{}
}

// wanted is one name that somebody wants looked up.
type wanted struct {
	arch  string
	every time.Duration
	// seed is what was known of it before this process.
	seed resolve.Image
}

// want replaces the set of names: new ones are looked up at once, others stay, the rest is forgotten. refresh names are
// looked up again although they are known, because a policy has changed.
func (l *lookups) want(names map[string]wanted, refresh []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.names {
		if _, still := names[name]; !still {
			delete(l.names, name)
		}
	}
	for name, w := range names {
		known := l.names[name]
		if known == nil {
			known = &lookup{due: l.now(), image: w.seed}
			if _, dgst, pinned := strings.Cut(name, "@"); pinned {
				known.image.Digest = dgst
			}
			l.names[name] = known
		}
		if w.every < known.every && known.done && known.err == nil {
			known.due = earlier(known.due, l.now().Add(w.every))
		}
		known.arch, known.every = w.arch, w.every
	}
	for _, name := range refresh {
		if known := l.names[name]; known != nil {
			known.due, known.refreshing = l.now(), known.done
		}
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// run looks names up when they are due, until ctx ends.
func (l *lookups) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, lookupWorkers)
	for {
		name, arch, wait := l.next()
		if name == "" {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-l.wake:
				timer.Stop()
			case <-timer.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		wg.Go(func() {
			image, err := l.resolver.Resolve(ctx, name, arch)
			<-slots
			if ctx.Err() == nil {
				l.ended(name, image, err)
			}
		})
	}
}

// next takes a name that is due, or says how long none is.
func (l *lookups) next() (name, arch string, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	wait = time.Hour
	for n, known := range l.names {
		if known.running {
			continue
		}
		if left := known.due.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		known.running = true
		return n, known.arch, 0
	}
	return "", "", wait
}

// ended stores an answer. A lookup that fails keeps the answer before it: a registry that is away moves no tag.
func (l *lookups) ended(name string, image resolve.Image, err error) {
	l.mu.Lock()
	known := l.names[name]
	if known == nil {
		l.mu.Unlock()
		return
	}
	news := !known.done || known.refreshing || (known.err == nil) != (err == nil) || err == nil && known.image.Digest != image.Digest
	known.running, known.refreshing, known.done, known.err = false, false, true, err
	if err == nil {
		known.image, known.failures = image, 0
		known.due = l.now().Add(known.every)
	} else {
		known.due = l.now().Add(min(retryFirst<<min(known.failures, 10), retryMost))
		known.failures++
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	if news {
		l.changed()
	}
}
