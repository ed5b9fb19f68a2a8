package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifestBytes bounds an index or a manifest.
// Source: containerd core/remotes/docker/fetcher.go@v2.4.2 reads at most 8 MiB of a manifest.
const MaxManifestBytes = 8 << 20

// MaxConfigBytes bounds an image config: the largest known are some hundred KiB.
const MaxConfigBytes = 32 << 20

// requestAttempts is how often one small request is tried at one host.
const requestAttempts = 5

// manifestTypes is what the client understands, in order of preference.
var manifestTypes = strings.Join([]string{
	ocispec.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.list.v2+json",
	ocispec.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.v2+json",
	"*/*",
}, ", ")

// Repository is one repository of a registry, with the mirrors in front of it. It is safe for concurrent use.
type Repository struct {
	client  *Client
	spec    reference.Spec
	domain  string // docker.io
	path    string // library/nginx
	hosts   []*host
	created time.Time
	lookups *lookups

	hostsFile hostsFile

	refreshing sync.Mutex // one new log-in at a time
}

// Domain returns the registry's name as it stands in references.
func (r *Repository) Domain() string { return r.domain }

// Path returns the repository's name within its registry.
func (r *Repository) Path() string { return r.path }

// Head resolves a tag to its descriptor without counting as a pull. Size is 0 where the registry does not say it.
func (r *Repository) Head(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	var desc ocispec.Descriptor
	err := r.try(ctx, docker.HostCapabilityResolve, func(h *host, timeout time.Duration) error {
		resp, err := r.send(ctx, h, http.MethodHead, r.target(h, "manifests", tag), http.Header{"Accept": {manifestTypes}}, timeout)
		if err != nil {
			return err
		}
		defer closeBody(resp)
		if resp.StatusCode != http.StatusOK {
			return newStatusError(resp)
		}
		desc.Digest = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
		desc.Size, desc.MediaType = max(0, resp.ContentLength), mediaType(resp)
		return desc.Digest.Validate()
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolve %s:%s: %w", r.spec.Locator, tag, r.fault(err))
	}
	return desc, nil
}

// Manifest fetches an index or manifest by tag or digest. The descriptor's digest is that of the returned bytes.
func (r *Repository) Manifest(ctx context.Context, object string) (ocispec.Descriptor, []byte, error) {
	capability, want := docker.HostCapabilityResolve, digest.Digest("")
	if dgst, err := digest.Parse(object); err == nil {
		capability, want = docker.HostCapabilityPull, dgst
	}
	var desc ocispec.Descriptor
	var body []byte
	err := r.try(ctx, capability, func(h *host, timeout time.Duration) error {
		var err error
		desc.MediaType, body, err = r.get(ctx, h, "manifests", object, MaxManifestBytes, timeout)
		if err != nil {
			return err
		}
		desc.Size, desc.Digest = int64(len(body)), digest.FromBytes(body)
		if want != "" && want.Algorithm().FromBytes(body) != want {
			h.quarantine(time.Now())
			return fmt.Errorf("manifest %s from %s: %w", want, h.Host, ErrCorrupt)
		}
		if want != "" {
			desc.Digest = want
		}
		return nil
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, fmt.Errorf("fetch the manifest %s of %s: %w", object, r.spec.Locator, r.fault(err))
	}
	return desc, body, nil
}

// Blob fetches a small blob whole and verifies it.
func (r *Repository) Blob(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fmt.Errorf("fetch blob %s: %d bytes, at most %d are allowed: %w", desc.Digest, desc.Size, limit, ErrRefused)
	}
	var body []byte
	err := r.try(ctx, docker.HostCapabilityPull, func(h *host, timeout time.Duration) error {
		var err error
		_, body, err = r.get(ctx, h, "blobs", desc.Digest.String(), desc.Size, timeout)
		if err != nil {
			return err
		}
		if int64(len(body)) != desc.Size || desc.Digest.Algorithm().FromBytes(body) != desc.Digest {
			h.quarantine(time.Now())
			return fmt.Errorf("blob %s from %s: %w", desc.Digest, h.Host, ErrCorrupt)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fetch blob %s of %s: %w", desc.Digest, r.spec.Locator, r.fault(err))
	}
	return body, nil
}

func (r *Repository) get(ctx context.Context, h *host, kind, object string, limit int64, timeout time.Duration) (string, []byte, error) {
	header := http.Header{}
	if kind == "manifests" {
		header.Set("Accept", manifestTypes)
	}
	resp, err := r.send(ctx, h, http.MethodGet, r.target(h, kind, object), header, timeout)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", nil, newStatusError(resp)
	}
	stall := newStall(resp.Body, bodyStallTimeout)
	defer stall.stop()
	plain, err := decoded(resp, stall)
	if err != nil {
		return "", nil, err
	}
	body, err := io.ReadAll(io.LimitReader(plain, limit+1))
	if err != nil {
		return "", nil, fmt.Errorf("read from %s: %w", h.Host, err)
	}
	if int64(len(body)) > limit {
		return "", nil, fmt.Errorf("%s sends more than %d bytes: %w", h.Host, limit, ErrRefused)
	}
	return mediaType(resp), body, nil
}

// try runs one request at each host in order, with retries, and returns the error of the host that came furthest.
func (r *Repository) try(ctx context.Context, capability docker.HostCapabilities, request func(*host, time.Duration) error) error {
	var able []*host
	for _, h := range r.hosts {
		if h.Capabilities.Has(capability) {
			able = append(able, h)
		}
	}
	if len(able) == 0 {
		return fmt.Errorf("no host of %s may do this; see its hosts.toml", r.domain)
	}
	return eachTurn(ctx, able, requestAttempts, func(t turn) error {
		return r.tryHost(ctx, t, func() error { return request(t.host, t.timeout) })
	})
}

func (r *Repository) tryHost(ctx context.Context, t turn, request func() error) error {
	logins := 0
	for failures := 1; ; failures++ {
		auth := t.host.authorizer()
		err := request()
		t.host.record(err, time.Now())
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case errors.Is(err, ErrUnauthorized) && logins < maxLogins:
			logins++
			if err := r.logInAgain(ctx, t.host, auth, err); err != nil {
				return err
			}
			continue
		case Terminal(err):
			return r.lookups.explain(t.host.Host, err)
		case failures >= t.attempts || t.passOn(err) || pause(ctx, failures, err) != nil:
			return err
		}
	}
}

// maxLogins is how often a request that a host refuses is made again with other credentials: the best anew, and the next
// three that fit.
const maxLogins = 4

// logInAgain replaces the tokens of a host by such that are made with other credentials, unless somebody has done so since
// the refused ones were used: sixteen ranges that are refused together are one new log-in. As the kubelet does, it goes
// through all that fit the image; when there is no other, refusal is what it returns.
func (r *Repository) logInAgain(ctx context.Context, h *host, refused docker.Authorizer, refusal error) error {
	r.refreshing.Lock()
	defer r.refreshing.Unlock()
	if h.authorizer() != refused {
		return nil
	}
	attempt := h.nextLogin()
	if attempt > maxLogins {
		h.noLogin()
		return r.lookups.explain(h.Host, refusal)
	}
	username, secret, err := r.client.lookUp(ctx, r.spec.Locator, h.Host, attempt)
	r.lookups.note(h.Host, err)
	if err != nil || (attempt > 1 && username == "" && secret == "") {
		h.noLogin()
		return r.lookups.explain(h.Host, refusal)
	}
	chosen := &login{host: h.Host, username: username, secret: secret}
	renew := r.renew(h.RegistryHost, chosen) //nolint:contextcheck // see renew
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Authorizer = newAuthorizer(renew(), renew)
	return nil
}

// renew returns what makes an authorizer of a host, which remembers nothing.
func (r *Repository) renew(of docker.RegistryHost, chosen *login) func() docker.Authorizer {
	return func() docker.Authorizer {
		ctx, cancel := context.WithTimeout(context.Background(), credentialsTimeout)
		defer cancel()
		all, err := r.client.hosts(ctx, r, chosen)(r.domain)
		if err != nil {
			return nil // the file has changed meanwhile, and is read anew with the next attempt
		}
		for _, h := range all {
			if h.Host == of.Host && h.Path == of.Path {
				return h.Authorizer
			}
		}
		return nil
	}
}

// hostsError joins what the hosts said. Only when all agree that it is not there, or that they refuse, is that their
// answer: a mirror's 404 beside an origin that is down is not, and an origin's beside a mirror that was too slow is not.
func hostsError(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	last := errs[len(errs)-1]
	for _, err := range errs {
		if Terminal(last) && !Terminal(err) {
			last = fmt.Errorf("%w (and %s)", err, last.Error())
		}
	}
	if Terminal(last) {
		return last
	}
	texts := make([]string, 0, len(errs))
	for _, err := range errs[:len(errs)-1] {
		texts = append(texts, err.Error())
	}
	return fmt.Errorf("%w (before that %s)", last, strings.Join(texts, "; "))
}

func mediaType(resp *http.Response) string {
	value, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(value)
}
