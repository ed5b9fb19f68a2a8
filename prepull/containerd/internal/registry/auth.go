package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
)

// tokenTimeout bounds the fetch of one token. It belongs to nobody's request: all who wait for it get it.
const tokenTimeout = 30 * time.Second

// authorizer logs in by containerd's, which keeps what a token server answered first, be it an error, and asks under the
// context of whoever came first. Here a failure is forgotten, so that the next request asks again, and a request that ends
// takes no token with it.
type authorizer struct {
	renew func() docker.Authorizer // nil where there is no other

	mu  sync.Mutex
	now *oneByOne
}

// oneByOne is one of containerd's, asked by one at a time: it looks at when a token expires while another of its callers
// writes that down. Who waits here would wait there, for the same token.
type oneByOne struct {
	docker.Authorizer
	mu sync.Mutex
}

func newAuthorizer(now docker.Authorizer, renew func() docker.Authorizer) *authorizer {
	a := &authorizer{renew: renew}
	if now != nil {
		a.now = &oneByOne{Authorizer: now}
	}
	return a
}

var _ docker.Authorizer = (*authorizer)(nil)

func (a *authorizer) present() *oneByOne {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// forget replaces an authorizer that failed, unless somebody has done so.
func (a *authorizer) forget(failed *oneByOne) {
	if a.renew == nil {
		return
	}
	fresh := a.renew()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now == failed && fresh != nil {
		a.now = &oneByOne{Authorizer: fresh}
	}
}

// Authorize implements docker.Authorizer.
func (a *authorizer) Authorize(ctx context.Context, req *http.Request) error {
	inner := a.present()
	if inner == nil {
		return nil
	}
	probe := &http.Request{Method: req.Method, URL: req.URL, Header: http.Header{}}
	asked := &hint{}
	err := inner.apart(ctx, asked, func(ctx context.Context) error { return inner.Authorize(ctx, probe) })
	if err == nil {
		if value := probe.Header.Get("Authorization"); value != "" {
			req.Header.Set("Authorization", value)
		}
		return nil
	}
	if ctx.Err() == nil {
		a.forget(inner)
	}
	return authError(err, time.Duration(asked.after.Load()))
}

// AddResponses implements docker.Authorizer.
func (a *authorizer) AddResponses(ctx context.Context, responses []*http.Response) error {
	inner := a.present()
	if inner == nil {
		return errors.New("no credentials")
	}
	return inner.apart(ctx, &hint{}, func(ctx context.Context) error { return inner.AddResponses(ctx, responses) })
}

// apart runs a call that others may wait for as well: it goes on when ctx ends.
func (o *oneByOne) apart(ctx context.Context, asked *hint, call func(context.Context) error) error {
	done := make(chan error, 1)
	go func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		callCtx, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), hintKey{}, asked), tokenTimeout+credentialsTimeout)
		defer cancel()
		done <- call(callCtx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hint takes what a server says of when to come back, where only an error without its headers comes back.
type hint struct{ after atomic.Int64 }

type hintKey struct{}

// hinting notes Retry-After.
type hinting struct{ http.RoundTripper }

func (h hinting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := h.RoundTripper.RoundTrip(req)
	if asked, ok := req.Context().Value(hintKey{}).(*hint); ok && err == nil {
		asked.after.Store(int64(retryAfter(resp.Header.Get("Retry-After"), time.Now())))
	}
	return resp, err
}

// authError gives the failure of a token server its meaning.
func authError(err error, after time.Duration) error {
	if status, ok := errors.AsType[remoteserrors.ErrUnexpectedStatus](err); ok {
		return &statusError{code: status.StatusCode, host: "its token server", retryAfter: after}
	}
	return err
}

// lookups remember which hosts' credentials could not be looked up. Without them a registry is asked as nobody, and what
// it then refuses it may serve when whoever has the credentials answers again: at boot that is the instance's metadata.
type lookups struct {
	mu     sync.Mutex
	failed map[string]error
}

func (l *lookups) note(host string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = map[string]error{}
	}
	l.failed[host] = err
	if err == nil {
		delete(l.failed, host)
	}
}

// explain makes a refusal one that may heal where credentials are lacking only for now.
func (l *lookups) explain(host string, refusal error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.failed[host]; err != nil && errors.Is(refusal, ErrUnauthorized) {
		return fmt.Errorf("%s; its credentials cannot be looked up: %w", refusal.Error(), err)
	}
	return refusal
}
