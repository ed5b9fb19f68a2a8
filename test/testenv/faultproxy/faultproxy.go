// Package faultproxy stands between a registry and its clients. It counts requests and bytes for each blob and manifest,
// and misbehaves on demand: status codes, latency, slow or shared bandwidth, resets, hangs, short and corrupt bodies.
//
// Only bytes of response bodies that were really written to the client are counted, so that a test can tell a layer that
// was fetched twice from one that was fetched once. All methods are safe for concurrent use. Start from New.
package faultproxy

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

// burst is the largest piece that a bandwidth limit lets through at once.
const burst = 64 << 10

// Count is what clients have asked of one blob or manifest, or of all of them.
type Count struct {
	// Requests counts GET and HEAD requests, whatever the answer.
	Requests int
	// Bytes counts the body bytes sent.
	Bytes int64
}

// Proxy is an http.Handler in front of one registry.
type Proxy struct {
	upstream *url.URL
	client   *http.Client
	username string
	password string

	mu     sync.Mutex
	counts map[string]Count // by the path's last two elements: "blobs/sha256:...", "manifests/latest"
	faults []*armed
	total  *rate.Limiter // nil: unlimited
}

// New returns a proxy in front of the registry at upstream. With a user name, every request must carry it and the
// password by basic authentication.
func New(upstream *url.URL, username, password string) *Proxy {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	return &Proxy{
		upstream: upstream, username: username, password: password,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		counts: map[string]Count{},
	}
}

// Close drops the connections to the registry.
func (p *Proxy) Close() { p.client.CloseIdleConnections() }

// Blob returns what was asked of one blob, given as "sha256:...".
func (p *Proxy) Blob(digest string) Count { return p.count("blobs/" + digest) }

// Manifest returns what was asked of one manifest, given as a tag or a digest.
func (p *Proxy) Manifest(reference string) Count { return p.count("manifests/" + reference) }

// Blobs returns the counts of all blobs that were asked for, by digest.
func (p *Proxy) Blobs() map[string]Count {
	p.mu.Lock()
	defer p.mu.Unlock()
	blobs := map[string]Count{}
	for key, count := range p.counts {
		if digest, ok := strings.CutPrefix(key, "blobs/"); ok {
			blobs[digest] = count
		}
	}
	return blobs
}

// Pulled returns the sum over all blobs and manifests.
func (p *Proxy) Pulled() Count {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum Count
	for count := range maps.Values(p.counts) {
		sum.Requests += count.Requests
		sum.Bytes += count.Bytes
	}
	return sum
}

// ResetCounts sets all counts to zero.
func (p *Proxy) ResetCounts() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.counts)
}

// SetBandwidth limits all responses together, as a node's network card does. 0 lifts the limit.
func (p *Proxy) SetBandwidth(bytesPerSecond int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = limiter(bytesPerSecond)
}

func (p *Proxy) count(key string) Count {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[key]
}

func (p *Proxy) add(key string, requests int, bytes int64) {
	if key == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	count := p.counts[key]
	count.Requests += requests
	count.Bytes += bytes
	p.counts[key] = count
}

func (p *Proxy) bandwidth() *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// ServeHTTP forwards one request, unless an armed fault answers it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := countKey(r)
	p.add(key, 1, 0)
	if !p.authorized(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="testenv"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		return
	}
	fault := p.take(r)
	if !fault.before(w, r) {
		return
	}
	response, err := p.forward(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = response.Body.Close() }()
	maps.Copy(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	sender := &sender{w: w, r: r, fault: fault, limits: []*rate.Limiter{p.bandwidth(), limiter(fault.BytesPerSecond)}}
	sender.sent = func(n int64) { p.add(key, 0, n) }
	sender.copy(response.Body)
}

func (p *Proxy) authorized(r *http.Request) bool {
	if p.username == "" {
		return true
	}
	username, password, ok := r.BasicAuth()
	return ok && username == p.username && password == p.password
}

func (p *Proxy) forward(r *http.Request) (*http.Response, error) {
	target := *r.URL
	target.Scheme, target.Host = p.upstream.Scheme, p.upstream.Host
	var body io.Reader
	if r.ContentLength != 0 {
		body = r.Body
	}
	request, err := http.NewRequestWithContext(r.Context(), r.Method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("forward to the registry: %w", err)
	}
	request.Header = r.Header.Clone()
	request.Header.Del("Authorization")
	request.ContentLength = r.ContentLength
	// The registry builds upload URLs from the host that the client used, so that they come back through here.
	request.Host = r.Host
	response, err := p.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("forward to the registry: %w", err)
	}
	return response, nil
}

// countKey is the key under which a pull of a blob or manifest is counted; empty for anything else.
func countKey(r *http.Request) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return ""
	}
	elems := strings.Split(r.URL.Path, "/")
	if len(elems) < 4 {
		return ""
	}
	kind, name := elems[len(elems)-2], elems[len(elems)-1]
	if kind != "blobs" && kind != "manifests" {
		return ""
	}
	return kind + "/" + name
}

func limiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), burst)
}
