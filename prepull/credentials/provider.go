package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1"
	credentialproviderv1 "k8s.io/kubelet/pkg/apis/credentialprovider/v1"

	"headstart.dev/bottlerocket"
)

// execTimeout is the kubelet's.
// Source: kubernetes pkg/credentialprovider/plugin/plugin.go@v1.37.2.
const execTimeout = time.Minute

// maxAnswer bounds a provider's output.
const maxAnswer = 1 << 20

// globalKey is the cache key of answers that hold for every registry; no registry is called so.
const globalKey = "*"

// provider is one exec credential provider with its cache.
type provider struct {
	name       string
	path       string
	apiVersion string
	args       []string
	env        []kubeletconfig.ExecEnvVar
	patterns   []string
	cacheFor   time.Duration

	// One exec a registry at a time: the others wait and find its answer in the cache. Providers ask APIs that throttle
	// a fleet's start.
	execs sync.Map // registry -> chan struct{} of capacity 1
	mu    sync.Mutex
	cache map[string]cached
}

type cached struct {
	entries entries
	stored  time.Time
	expires time.Time
}

func newProvider(c kubeletconfig.CredentialProvider, binDir string) *provider {
	return &provider{
		name: c.Name, path: filepath.Join(binDir, c.Name), apiVersion: c.APIVersion, args: c.Args, env: c.Env,
		patterns: c.MatchImages, cacheFor: c.DefaultCacheDuration.Duration, cache: map[string]cached{},
	}
}

func (p *provider) allows(image string) bool {
	for _, pattern := range p.patterns {
		if matches(pattern, image) {
			return true
		}
	}
	return false
}

// provide returns the provider's answer for a repository, from the cache unless fresh is asked for.
func (p *provider) provide(ctx context.Context, image string, fresh bool) (entries, error) {
	asked := time.Now()
	if found, ok := p.cached(image, asked); ok && !fresh {
		return found.entries, nil
	}
	registry, _, _ := strings.Cut(image, "/")
	slot, _ := p.execs.LoadOrStore(registry, make(chan struct{}, 1))
	turn, ok := slot.(chan struct{})
	if !ok {
		return nil, errors.New("wait for the credential provider: no turn")
	}
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for credential provider %s: %w", p.name, ctx.Err())
	}
	// Whoever waited takes what came meanwhile; it is fresh enough for all who asked before it came.
	if found, ok := p.cached(image, time.Now()); ok && (!fresh || found.stored.After(asked)) {
		return found.entries, nil
	}
	answer, err := p.exec(ctx, image)
	if err != nil {
		return nil, err
	}
	return p.store(image, answer)
}

func (p *provider) cached(image string, now time.Time) (cached, bool) {
	registry, _, _ := strings.Cut(image, "/")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range []string{image, registry, globalKey} {
		if c, ok := p.cache[key]; ok && now.Before(c.expires) {
			return c, true
		}
	}
	return cached{}, false
}

func (p *provider) store(image string, answer *credentialproviderv1.CredentialProviderResponse) (entries, error) {
	found := entries{}
	for key, auth := range answer.Auth {
		if pattern, ok := patternOf(key); ok {
			found[pattern] = entry{username: auth.Username, secret: auth.Password}
		}
	}
	var key string
	switch answer.CacheKeyType {
	case credentialproviderv1.ImagePluginCacheKeyType:
		key = image
	case credentialproviderv1.RegistryPluginCacheKeyType:
		key, _, _ = strings.Cut(image, "/")
	case credentialproviderv1.GlobalPluginCacheKeyType:
		key = globalKey
	default:
		return nil, fmt.Errorf("credential provider %s: cacheKeyType is none of Image, Registry, Global", p.name)
	}
	keep := p.cacheFor
	if answer.CacheDuration != nil {
		keep = answer.CacheDuration.Duration
	}
	if keep > 0 {
		p.mu.Lock()
		p.cache[key] = cached{entries: found, stored: time.Now(), expires: time.Now().Add(keep)}
		p.mu.Unlock()
	}
	return found, nil
}

// exec runs the provider's program by the kubelet's protocol. An error quotes its stderr, as the kubelet's does, and
// never its stdout, which holds credentials.
func (p *provider) exec(ctx context.Context, image string) (*credentialproviderv1.CredentialProviderResponse, error) {
	request, err := json.Marshal(credentialproviderv1.CredentialProviderRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: p.apiVersion, Kind: "CredentialProviderRequest"},
		Image:    image,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the request to credential provider %s: %w", p.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	stdout, stderr := &limited{limit: maxAnswer}, &limited{limit: 1 << 10}
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	intoHost(cmd)
	cmd.WaitDelay = time.Second // a grandchild that keeps the pipe open must not hold the pull
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), stdout, stderr
	cmd.Env = os.Environ()
	for _, v := range p.env {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("run credential provider %s: %w: %s", p.name, err, strings.TrimSpace(stderr.String()))
	}
	return parseAnswer(p.name, p.apiVersion, stdout.Bytes())
}

// parseAnswer reads a provider's answer. Its errors quote nothing of it.
func parseAnswer(name, apiVersion string, data []byte) (*credentialproviderv1.CredentialProviderResponse, error) {
	var answer credentialproviderv1.CredentialProviderResponse
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("credential provider %s: its answer is no CredentialProviderResponse", name)
	}
	if answer.APIVersion != apiVersion || answer.Kind != "CredentialProviderResponse" {
		return nil, fmt.Errorf("credential provider %s: its answer is not of %s CredentialProviderResponse", name, apiVersion)
	}
	return &answer, nil
}

// limited keeps the first bytes of a program's output.
type limited struct {
	bytes.Buffer
	limit int
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.limit - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// intoHost runs a program of a Bottlerocket host inside of the host's own root, where the libraries are that it is linked
// with: our image has none. A program of this root is left as it is.
func intoHost(cmd *exec.Cmd) {
	if inside, ok := strings.CutPrefix(cmd.Path, bottlerocket.RootFS+"/"); ok {
		cmd.Path, cmd.Dir = "/"+inside, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: bottlerocket.RootFS}
	}
}
