// Package resolve asks registries what a tag names now and how large that is. It fetches manifests only, each within a
// deadline and a size, never from an address that is no registry's, and passes on nothing of an answer that is none: the names come from whoever may create a workload. A
// Registry is safe for concurrent use. Start from New.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"headstart.dev/prepull/budget"
)

const (
	// defaultTimeout bounds one lookup with all its requests. A registry of the same region answers in 50 ms; a token
	// server and an index add two more rounds.
	defaultTimeout = 10 * time.Second
	// maxBody bounds one answer: registries themselves refuse manifests above 4 MiB.
	maxBody = 4 << 20
)

// Image is what a name stands for at the time of the lookup.
type Image struct {
	// Digest is that of the index where there is one, as the CRI records it.
	Digest string
	// Layers are those of the image for the platform that was asked for.
	Layers []budget.Layer
}

// Bytes is the size of all layers, 0 where it is not known.
func (i Image) Bytes() int64 {
	var sum int64
	for _, layer := range i.Layers {
		sum += max(layer.Bytes, 0)
	}
	return sum
}

// Config of a Registry; the zero value is ready for use.
type Config struct {
	// Keychain brings the process's own credentials; nil means those of its docker config, else anonymous. One with a method
	// Trouble is asked why it had none when a registry refuses.
	Keychain authn.Keychain
	// Timeout bounds one lookup; 0 means 10s.
	Timeout time.Duration
	// Loopback lets registries be asked that are on a loopback address. In a pod there is none: those are its own ports.
	Loopback bool
}

// Registry looks images up in their registries.
type Registry struct {
	keychain  authn.Keychain
	timeout   time.Duration
	transport http.RoundTripper
}

// New makes a Registry.
func New(cfg Config) *Registry {
	r := &Registry{keychain: cfg.Keychain, timeout: cfg.Timeout}
	if r.keychain == nil {
		r.keychain = authn.DefaultKeychain
	}
	if r.timeout == 0 {
		r.timeout = defaultTimeout
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: refuse(cfg.Loopback)}
	r.transport = bounded{&http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 5 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
	}}
	return r
}

// Resolve looks up a normalised name for Linux nodes of the given architecture (amd64, arm64). A registry on a loopback
// address is asked by plain HTTP. What logins hold is tried first, in their order, and then the process's own credentials,
// until one is not refused.
func (r *Registry) Resolve(ctx context.Context, ref, arch string, logins ...authn.Authenticator) (Image, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Image{}, fmt.Errorf("parse image %q: %w", ref, err)
	}
	options := make([]remote.Option, 0, len(logins)+1)
	for _, login := range logins {
		options = append(options, remote.WithAuth(login))
	}
	options = append(options, remote.WithAuthFromKeychain(r.keychain))
	for _, credentials := range options {
		found, tried := r.resolve(ctx, parsed, arch, credentials)
		if tried == nil {
			return found, nil
		}
		if err = tried; !refused(err) {
			break
		}
	}
	why := problem(err)
	if errors.Is(err, errNoPlatform) {
		why = errNoPlatform
	}
	if trouble := r.trouble(parsed); refused(err) && trouble != nil {
		why = fmt.Errorf("%w; %w", why, trouble)
	}
	return Image{}, fmt.Errorf("look up image %q for linux/%s: %w", ref, arch, why)
}

// refused says whether a registry wants other credentials. Some say of what one may not see that it is not there.
func refused(err error) bool {
	answer, ok := errors.AsType[*transport.Error](err)
	return ok && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusNotFound)
}

// trouble is why the process has no credentials for a registry, where it should.
func (r *Registry) trouble(ref name.Reference) error {
	if k, ok := r.keychain.(interface{ Trouble(registry string) error }); ok {
		return k.Trouble(ref.Context().RegistryStr())
	}
	return nil
}

func (r *Registry) resolve(ctx context.Context, ref name.Reference, arch string, credentials remote.Option) (Image, error) {
	desc, err := remote.Get(ref,
		remote.WithContext(ctx), credentials, remote.WithTransport(r.transport),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}), remote.WithRetryBackoff(remote.Backoff{Duration: 100 * time.Millisecond, Factor: 3, Steps: 3}))
	if err != nil {
		return Image{}, err
	}
	out := Image{Digest: desc.Digest.String()}
	img, err := desc.Image()
	if err != nil {
		if errors.Is(problem(err), errUnreadable) {
			return Image{}, errNoPlatform
		}
		return Image{}, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return Image{}, err
	}
	if manifest.Config.Digest == (v1.Hash{}) {
		return Image{}, errUnreadable // JSON, and no manifest
	}
	for _, layer := range manifest.Layers {
		out.Layers = append(out.Layers, budget.Layer{Digest: layer.Digest.String(), Bytes: layer.Size})
	}
	return out, nil
}

// bounded cuts every answer off at maxBody.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	return resp, nil
}
