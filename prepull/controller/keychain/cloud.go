// Package keychain brings the credentials with which the controller looks images up: those of the cloud that it runs in,
// and those of the pull Secrets that a policy names.
//
// Credentials are held in memory only, and never appear in errors or logs. Start from NewCloud and Secrets; both are safe
// for concurrent use.
package keychain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	ecr "github.com/awslabs/amazon-ecr-credential-helper/ecr-login"
	acr "github.com/chrismellard/docker-credential-acr-env/pkg/credhelper"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/google"
	"golang.org/x/sync/singleflight"
)

// keptFor is how long an answer of a cloud's helper is used: tokens of ECR live for twelve hours, those of ACR for three.
const keptFor = 30 * time.Minute

// Cloud finds what to log in with at the registries of AWS (ECR), Azure (ACR) and Google (GAR, GCR), by the identity that
// the process has there: IRSA or EKS Pod Identity, a workload identity, the instance's role. Images of other registries
// have what the process's docker config says. A cloud is asked only for images of its own registries.
type Cloud struct {
	helpers []helper
	others  authn.Keychain
	flight  singleflight.Group

	mu   sync.Mutex
	kept map[string]kept
}

// helper is one cloud's way to credentials. The helpers take no context.
type helper struct {
	cloud string
	owns  func(registry string) bool
	get   func(registry string) (authn.Authenticator, error)
}

// kept is the last answer for a registry.
type kept struct {
	auth authn.Authenticator
	err  error
	at   time.Time
}

var _ authn.ContextKeychain = (*Cloud)(nil)

// errNone is of a process without an identity in the cloud whose registry is asked.
var errNone = errors.New("the process has no identity there")

// NewCloud returns the keychain of all three clouds. Nothing is asked before an image of theirs is looked up.
func NewCloud() *Cloud {
	// AWS's helper would keep tokens in a file.
	_ = os.Setenv("AWS_ECR_DISABLE_CACHE", "true")
	aws, azure := ecr.NewECRHelper(ecr.WithLogger(io.Discard)), acr.NewACRCredentialsHelper()
	return newCloud(
		helper{"ECR", ofECR, func(registry string) (authn.Authenticator, error) { return basic(aws.Get(registry)) }},
		helper{"ACR", ofACR, func(registry string) (authn.Authenticator, error) { return basic(azure.Get(registry)) }},
		helper{"GAR", ofGoogle, func(string) (authn.Authenticator, error) {
			auth, err := google.NewEnvAuthenticator(context.Background())
			if err == nil && auth == authn.Anonymous {
				err = errNone
			}
			return auth, err
		}},
	)
}

func newCloud(helpers ...helper) *Cloud {
	return &Cloud{helpers: helpers, others: authn.DefaultKeychain, kept: map[string]kept{}}
}

func basic(username, secret string, err error) (authn.Authenticator, error) {
	switch {
	case err != nil:
		return nil, err
	case username == "" && secret == "":
		return nil, errNone
	case username == "<token>": // Source: docker-credential-helpers: the secret is a refresh token.
		return authn.FromConfig(authn.AuthConfig{IdentityToken: secret}), nil
	}
	return &authn.Basic{Username: username, Password: secret}, nil
}

func ofECR(registry string) bool {
	return registry == "public.ecr.aws" || strings.Contains(registry, ".dkr.ecr") || strings.Contains(registry, ".dkr-ecr")
}

func ofACR(registry string) bool {
	for _, domain := range []string{".azurecr.io", ".azurecr.cn", ".azurecr.de", ".azurecr.us"} {
		if strings.HasSuffix(registry, domain) {
			return true
		}
	}
	return false
}

func ofGoogle(registry string) bool {
	return registry == "gcr.io" || strings.HasSuffix(registry, ".gcr.io") || strings.HasSuffix(registry, ".pkg.dev")
}

// Resolve implements authn.Keychain.
func (c *Cloud) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return c.ResolveContext(context.Background(), target)
}

// ResolveContext returns what to log in with; anonymous where the process has no identity in the registry's cloud, which
// Trouble then says: some of their registries are open to all.
func (c *Cloud) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	registry := target.RegistryStr()
	for _, h := range c.helpers {
		if !h.owns(registry) {
			continue
		}
		if now := c.known(registry); now.auth != nil && now.err == nil && time.Since(now.at) < keptFor {
			return now.auth, nil
		}
		answer := c.flight.DoChan(registry, func() (any, error) {
			auth, err := h.get(registry)
			c.keep(registry, kept{auth, err, time.Now()})
			return auth, err
		})
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("ask for credentials of %s: %w", h.cloud, ctx.Err())
		case got := <-answer:
			if auth, ok := got.Val.(authn.Authenticator); ok && got.Err == nil {
				return auth, nil
			}
			return authn.Anonymous, nil
		}
	}
	return authn.Resolve(ctx, c.others, target)
}

// Trouble says why the last question for a registry's credentials had no answer; nil where it had one.
func (c *Cloud) Trouble(registry string) error {
	if err := c.known(registry).err; err != nil {
		return fmt.Errorf("the controller has no credentials for %s: %w", registry, err)
	}
	return nil
}

func (c *Cloud) known(registry string) kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept[registry]
}

func (c *Cloud) keep(registry string, answer kept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[registry] = answer
}
