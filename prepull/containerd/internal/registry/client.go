// Package registry reads images from registries as the CRI would: hosts.toml mirrors, tokens, redirects. It adds what
// the CRI's own client lacks: every failure is handled for the request that failed and not for the image, waits follow
// Retry-After, a slow or dead mirror is left alone for a while, and redirect targets are used again.
//
// It decides nothing about what to fetch and writes nothing to disk. Start from Client.Repository.
package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
)

// maxIdleConns is how many connections to one host stay open between two ranges: as many as can be in flight. The
// containerd default of 2 (net/http's, for a host) makes every third range a new TLS handshake.
const maxIdleConns = 64

// repositoryTTL is how long hosts, tokens and breakers of a repository are kept: a node pulls its images in minutes, and
// a changed hosts.toml must count without a restart.
const repositoryTTL = 10 * time.Minute

// Credentials returns what to log in with at a registry host for an image name; "", "" is anonymous. attempt 0 asks for
// the best that is known. The registry has refused what the attempts before brought: 1 asks for the best again, and not
// from a cache; 2 and more ask for the next ones that fit, and "", "" says that there is none.
type Credentials func(ctx context.Context, image, host string, attempt int) (username, secret string, err error)

// Config is what a Client needs. Everything has a default.
type Config struct {
	// HostDirs are the folders with hosts.toml, in the order in which they are searched.
	HostDirs []string
	// Credentials is asked when a registry demands it; nil is anonymous.
	Credentials Credentials
	// UserAgent goes to registries.
	UserAgent string
	// Connections is how many ranges of layers are in memory or on their way at once, and Chunk their size in bytes:
	// Connections x Chunk bounds the memory that all Readers together take. How many are used below that follows what they
	// bring, see climb. 0 is DefaultConnections, DefaultChunk.
	Connections int
	Chunk       int
	// Bandwidth caps what Readers take, in bytes a second; 0 is no cap.
	Bandwidth int64
	// Proxy chooses the proxy of a request, as http.Transport's does; nil follows this process's environment.
	Proxy func(*http.Request) (*url.URL, error)
	Log   logr.Logger
}

// The defaults hold memory to 128 MiB. Registries on S3 give a connection some 40 to 100 MiB/s, and 8 MiB are then
// 100 to 200 ms: long beside a round trip, short beside a retry.
// Source: SOCI docs/parallel-mode.md@v0.16.1 recommends 8 to 16 MB and 10 to 20 connections for ECR.
const (
	DefaultConnections = 16
	DefaultChunk       = 8 << 20
)

// Client reads from registries. It is safe for concurrent use.
type Client struct {
	cfg     Config
	buffers *buffers
	pace    *pace
	limiter *rate.Limiter // nil without a cap

	mu    sync.Mutex
	repos map[string]*Repository
}

// New returns a Client.
func New(cfg Config) *Client {
	if cfg.Connections <= 0 {
		cfg.Connections = DefaultConnections
	}
	if cfg.Chunk <= 0 {
		cfg.Chunk = DefaultChunk
	}
	c := &Client{cfg: cfg, repos: map[string]*Repository{}, buffers: newBuffers(cfg.Connections, cfg.Chunk)}
	c.pace = newPace(cfg.Connections, c.buffers.tokens.SetLimit)
	if cfg.Bandwidth > 0 {
		c.limiter = rate.NewLimiter(rate.Limit(cfg.Bandwidth), max(readBlock, int(cfg.Bandwidth/10)))
	}
	return c
}

// Chunk is the size of a range, in bytes.
func (c *Client) Chunk() int { return c.cfg.Chunk }

// Repository returns the repository of a normalised image name. It makes no request.
func (c *Client) Repository(ctx context.Context, name string) (*Repository, error) {
	spec, err := reference.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("parse image %q: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, known := c.repos[spec.Locator]; known && time.Since(r.created) < repositoryTTL && r.hostsFile.unchanged() {
		return r, nil
	}
	r, err := c.open(ctx, spec)
	if err != nil {
		return nil, err
	}
	c.repos[spec.Locator] = r
	return r, nil
}

func (c *Client) open(ctx context.Context, spec reference.Spec) (*Repository, error) {
	domain := spec.Hostname()
	r := &Repository{
		client:  c,
		spec:    spec,
		domain:  domain,
		path:    strings.TrimPrefix(spec.Locator, domain+"/"),
		created: time.Now(),
		lookups: &lookups{},
	}
	r.hostsFile = readHostsFile(c.cfg.HostDirs, domain)
	if r.hostsFile.problem != nil {
		c.cfg.Log.Error(r.hostsFile.problem, "registry's hosts file is passed over, as containerd does", "registry", domain)
	}
	registryHosts, err := c.hosts(ctx, r, nil)(domain)
	if err != nil {
		return nil, fmt.Errorf("read the registry hosts of %s: %w; see the hosts.toml under %s", domain, err, strings.Join(c.cfg.HostDirs, ", "))
	}
	for _, h := range registryHosts {
		if h.Capabilities.Has(docker.HostCapabilityPull) {
			r.hosts = append(r.hosts, newHost(h, r.renew(h, nil))) //nolint:contextcheck // what it returns outlives this request
		}
	}
	if len(r.hosts) == 0 {
		return nil, fmt.Errorf("read the registry hosts of %s: no host may pull; see the hosts.toml under %s", domain, strings.Join(c.cfg.HostDirs, ", "))
	}
	return r, nil
}

// login is what to log in with at one host.
type login struct{ host, username, secret string }

// hosts reads hosts.toml as the CRI does, with a transport made for many ranges at once. chosen, if any, is what to log in
// with at its host.
func (c *Client) hosts(ctx context.Context, r *Repository, chosen *login) docker.RegistryHosts {
	options := config.HostOptions{
		HostDir: hostDir(c.cfg.HostDirs),
		UpdateClient: func(client *http.Client) error {
			if t, ok := client.Transport.(*http.Transport); ok {
				t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, maxIdleConns
				t.DisableCompression = true // a registry that gzips blobs once more would break every range
				t.WriteBufferSize, t.ReadBufferSize = 4<<10, 64<<10
				if c.cfg.Proxy != nil {
					t.Proxy = c.cfg.Proxy
				}
				client.Transport = hinting{t}
			}
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			return nil
		},
	}
	if c.cfg.Credentials != nil {
		options.Credentials = func(host string) (string, string, error) {
			if chosen != nil && chosen.host == host {
				return chosen.username, chosen.secret, nil
			}
			username, secret, err := c.lookUp(context.WithoutCancel(ctx), r.spec.Locator, host, 0)
			r.lookups.note(host, err)
			return username, secret, nil // as nobody, where it cannot be known
		}
	}
	return config.ConfigureHosts(ctx, options)
}

// lookUp asks for credentials.
func (c *Client) lookUp(ctx context.Context, image, host string, attempt int) (username, secret string, err error) {
	if c.cfg.Credentials == nil {
		return "", "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	return c.cfg.Credentials(ctx, image, host, attempt)
}

// credentialsTimeout bounds one look-up; the kubelet gives a credential provider one minute.
// Source: kubernetes pkg/credentialprovider/plugin/plugin.go@v1.37.2.
const credentialsTimeout = time.Minute

// hostDir searches several roots; containerd's own function takes one.
func hostDir(roots []string) func(string) (string, error) {
	return func(host string) (string, error) {
		for _, root := range roots {
			dir, err := config.HostDirFromRoot(root)(host)
			if err == nil || !errdefs.IsNotFound(err) {
				return dir, err
			}
		}
		return "", errdefs.ErrNotFound
	}
}

// SplitHostDirs splits the CRI's config_path, which is a list of folders.
func SplitHostDirs(configPath string) []string { return filepath.SplitList(configPath) }
