package controller

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"headstart.dev/prepull/budget"
	"headstart.dev/prepull/controller/keychain"
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

// Resolver looks an image up in its registry: its digest, and its layers for one architecture. logins are tried before its
// own credentials. It has a deadline of its own and is safe for concurrent use.
type Resolver interface {
	Resolve(ctx context.Context, name, arch string, logins ...authn.Authenticator) (resolve.Image, error)
}

// lookup is what is known of one name.
type lookup struct {
	image resolve.Image
	// reported is what nodes say of an image whose lookup has failed.
	reported resolve.Image
	// tried is when the last lookup began.
	tried time.Time
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
	refs       keychain.Refs
	// every is the shortest interval that a policy asks for.
	every time.Duration
}

// size is what the image takes, by its registry or else by the nodes that have it; known is false where neither says.
func (k lookup) size() (layers []budget.Layer, known bool) {
	if len(k.image.Layers) > 0 {
		return k.image.Layers, true
	}
	return k.reported.Layers, len(k.reported.Layers) > 0 || k.image.Digest != "" && k.done && k.err == nil
}

// lookups resolves names in the background and remembers the answers. It is safe for concurrent use.
type lookups struct {
	resolver Resolver
	secrets  keychain.Reader
	// report is asked what nodes say of an image whose lookup has failed.
	report func(ctx context.Context, name string) resolve.Image
	now    func() time.Time
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
	// refs are the pull Secrets of all who want it.
	refs keychain.Refs
	// seed is what was known of it before this process, reported what nodes said.
	seed, reported resolve.Image
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
			known = &lookup{due: l.now(), image: w.seed, reported: w.reported}
			if _, dgst, pinned := strings.Cut(name, "@"); pinned {
				known.image.Digest = dgst
			}
			l.names[name] = known
		}
		if w.every < known.every && known.done && known.err == nil {
			known.due = earlier(known.due, l.now().Add(w.every))
		}
		known.arch, known.every, known.refs = w.arch, w.every, w.refs
	}
	for _, name := range refresh {
		if known := l.names[name]; known != nil {
			known.due, known.refreshing = l.now(), known.done
		}
	}
	l.nudge()
}

func (l *lookups) nudge() {
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
		name, wait := l.next()
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
			image, reported, err := l.look(ctx, name)
			<-slots
			if ctx.Err() == nil {
				l.ended(name, image, reported, err)
			}
		})
	}
}

// look asks the registry, and where that gives no answer the nodes.
func (l *lookups) look(ctx context.Context, name string) (image, reported resolve.Image, err error) {
	known := l.get(name)
	var logins []authn.Authenticator
	var missing error
	if len(known.refs.Secrets)+len(known.refs.ServiceAccounts) > 0 {
		read, cancel := context.WithTimeout(ctx, requestTimeout)
		logins, missing = keychain.Authenticators(read, l.secrets, name, known.refs)
		cancel()
	}
	if image, err = l.resolver.Resolve(ctx, name, known.arch, logins...); err == nil {
		return image, reported, nil
	}
	if l.report != nil {
		reported = l.report(ctx, name)
	}
	return image, reported, errors.Join(err, missing)
}

// hasten looks an image up soon whose size is not known and which nodes have by now: they can say it.
func (l *lookups) hasten(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.names[name]
	if known == nil || known.running || !known.done {
		return
	}
	if due := known.tried.Add(retryFirst); due.Before(known.due) {
		known.due = due
		l.nudge()
	}
}

// next takes a name that is due, or says how long none is.
func (l *lookups) next() (name string, wait time.Duration) {
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
		known.running, known.tried = true, now
		return n, 0
	}
	return "", wait
}

// ended stores an answer. A lookup that fails keeps the answer before it: a registry that is away moves no tag.
func (l *lookups) ended(name string, image, reported resolve.Image, err error) {
	l.mu.Lock()
	known := l.names[name]
	if known == nil {
		l.mu.Unlock()
		return
	}
	news := !known.done || known.refreshing || (known.err == nil) != (err == nil) || err == nil && known.image.Digest != image.Digest
	if len(reported.Layers) > 0 && (known.reported.Bytes() != reported.Bytes() || known.reported.Digest != reported.Digest) {
		known.reported, news = reported, true
	}
	known.running, known.refreshing, known.done, known.err = false, false, true, err
	if err == nil {
		known.image, known.failures = image, 0
		known.due = l.now().Add(known.every)
	} else {
		known.due = l.now().Add(min(retryFirst<<min(known.failures, 10), retryMost))
		known.failures++
	}
	l.mu.Unlock()
	l.nudge()
	if news {
		l.changed()
	}
}
