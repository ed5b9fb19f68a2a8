package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// The breaker: after breakerFailures failures in a row a mirror is left alone for breakerRest. The last host, the
// origin, is always tried: there is nothing behind it.
const (
	breakerFailures = 3
	breakerRest     = 30 * time.Second
)

// Header timeouts. A mirror has one second: behind it stands the origin, and a mirror on a node that has just gone
// would else cost every layer the full time (spegel#1336). The origin has what containerd gives it.
const (
	mirrorHeaderTimeout = time.Second
	originHeaderTimeout = 30 * time.Second
)

// maxRedirects is that of containerd's resolver.
const maxRedirects = 10

// host is one registry or mirror of a repository, with its breaker.
type host struct {
	docker.RegistryHost

	mu       sync.Mutex // guards the fields below, and Authorizer
	failures int
	// logins counts the other credentials that were tried since the host last served something.
	logins   int
	restTill time.Time
	// corruptTill is how long it is left alone whatever happens: what it served was corrupt.
	corruptTill time.Time
}

// newHost takes a host with the authorizer that renew makes when its own has failed.
func newHost(h docker.RegistryHost, renew func() docker.Authorizer) *host {
	h.Authorizer = newAuthorizer(h.Authorizer, renew)
	return &host{RegistryHost: h}
}

// usable reports whether the breaker lets a request through.
func (h *host) usable(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.After(h.restTill) && now.After(h.corruptTill)
}

// trusted reports whether the host may be asked when no other has an answer, whatever its breaker says.
func (h *host) trusted(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.After(h.corruptTill)
}

// record feeds the breaker. An answer that names a status below 500 is a sign of life.
func (h *host) record(err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.logins = 0
	}
	if err == nil || errors.Is(err, context.Canceled) || Terminal(err) {
		h.failures = 0
		return
	}
	h.failures++
	if h.failures >= breakerFailures {
		h.failures, h.restTill = 0, now.Add(breakerRest)
	}
}

// nextLogin counts one more attempt at other credentials.
func (h *host) nextLogin() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logins++
	return h.logins
}

// noLogin says that no credentials are left to try: the next refusal begins with the best again.
func (h *host) noLogin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logins = 0
}

// rest leaves the host alone for as long as it has asked for.
func (h *host) rest(till time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.restTill = till
}

// quarantine leaves the host alone: what it served was corrupt.
func (h *host) quarantine(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.corruptTill = now.Add(breakerRest)
}

func (h *host) authorizer() docker.Authorizer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Authorizer
}

// target is where one object of a repository lies on one host.
func (r *Repository) target(h *host, kind, object string) string {
	u := url.URL{Scheme: h.Scheme, Host: h.Host, Path: path.Join("/", h.Path, r.path, kind, object)}
	if r.domain != h.Host && (r.domain != "docker.io" || h.Host != "registry-1.docker.io") {
		u.RawQuery = url.Values{"ns": {r.domain}}.Encode() // a mirror serves many registries
	}
	return u.String()
}

// send makes one request, logs in when asked to, and follows redirects. It returns the answer with the URL that gave
// it. The caller closes the body. header timeouts end the request; a body may take as long as it moves.
func (r *Repository) send(ctx context.Context, h *host, method, target string, header http.Header, timeout time.Duration) (*http.Response, error) {
	ctx = docker.WithScope(ctx, "repository:"+r.path+":pull")
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(timeout, func() {
		cancel(fmt.Errorf("%s sent no answer within %s", h.Host, timeout))
	})
	resp, err := r.follow(ctx, h, method, target, header)
	timer.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &cancelOnClose{ReadCloser: resp.Body, cancel: cancel}
	return resp, nil
}

func (r *Repository) follow(ctx context.Context, h *host, method, target string, header http.Header) (*http.Response, error) {
	refused := map[string][]*http.Response{} // by host: a redirect may lead to another registry, with tokens of its own
	for range maxRedirects {
		resp, err := r.once(ctx, h, method, target, header)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusUnauthorized:
			status := newStatusError(resp)
			closeBody(resp)
			at := resp.Request.URL.Host
			refused[at] = append(refused[at], resp)
			auth := h.authorizer()
			if len(refused[at]) > 2 || auth == nil {
				return nil, status
			}
			if err := auth.AddResponses(ctx, refused[at]); err != nil {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				return nil, fmt.Errorf("log in at %s: %w", at, status)
			}
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			closeBody(resp)
			next, err := resp.Location()
			if err != nil {
				return nil, fmt.Errorf("follow the redirect of %s: %w", h.Host, err)
			}
			if next.Scheme != "https" && next.Scheme != h.Scheme && resp.Request.URL.Scheme != next.Scheme {
				return nil, fmt.Errorf("follow the redirect of %s: from https to %s: %w", h.Host, next.Scheme, ErrRefused)
			}
			target = next.String()
		default:
			return resp, nil
		}
	}
	return nil, fmt.Errorf("%s redirects more than %d times: %w", h.Host, maxRedirects, ErrRefused)
}

// once makes one request. Credentials go to the host that asked for them and nowhere else.
func (r *Repository) once(ctx context.Context, h *host, method, target string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", h.Host, err)
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", r.client.cfg.UserAgent)
	if req.URL.Host == h.Host {
		for key, values := range h.Header {
			req.Header[key] = append(req.Header[key], values...)
		}
	}
	if auth := h.authorizer(); auth != nil { // it knows which host has asked for what
		if err := auth.Authorize(ctx, req); err != nil {
			return nil, fmt.Errorf("log in at %s: %w", req.URL.Host, err)
		}
	}
	resp, err := h.Client.Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // the URL may carry a signature
		}
		return nil, fmt.Errorf("request %s: %w", req.URL.Host, err)
	}
	return resp, nil
}

// closeBody drains a small body so that the connection can be used again.
func closeBody(resp *http.Response) {
	body := make([]byte, maxErrorBody)
	_, _ = resp.Body.Read(body)
	_ = resp.Body.Close()
	resp.Body = http.NoBody
}

// errorMessage takes the first message out of a registry's error document.
func errorMessage(body []byte) string {
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &doc); err != nil || len(doc.Errors) == 0 {
		return ""
	}
	text := strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, doc.Errors[0].Code+" "+doc.Errors[0].Message)
	return strings.TrimSpace(text[:min(len(text), 200)])
}

// cancelOnClose frees the request's context with its body.
type cancelOnClose struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (c *cancelOnClose) Close() error {
	err := c.ReadCloser.Close()
	c.cancel(nil)
	return err
}
