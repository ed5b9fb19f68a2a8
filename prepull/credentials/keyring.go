// Package credentials finds what to log in with at a registry, from where a kubelet finds it: exec credential providers
// first, then docker config files. Credentials are held in memory only, and never appear in errors or logs.
//
// Start from New; a Keyring is safe for concurrent use.
package credentials

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-logr/logr"
)

// Places where a node keeps its credentials.
var defaultProviders = []struct{ config, binDir string }{
	// EKS puts its provider's config here before user data runs.
	// Source: amazon-eks-ami nodeadm/internal/kubelet/image-credential-provider.go@v20260724.
	{"/etc/eks/image-credential-provider/config.json", "/etc/eks/image-credential-provider"},
	// Bottlerocket. Source: bottlerocket-core-kit packages/kubernetes-1.34/kubelet-exec-start-conf.
	{"/etc/kubernetes/kubelet/credential-provider-config.yaml", "/usr/libexec/kubernetes/kubelet/plugins"},
	// Bottlerocket, seen from a host container.
	{"/.bottlerocket/rootfs/etc/kubernetes/kubelet/credential-provider-config.yaml", "/.bottlerocket/rootfs/usr/libexec/kubernetes/kubelet/plugins"},
	// AKS. Source: Azure/AgentBaker parts/linux/cloud-init/artifacts/cse_config.sh.
	{"/var/lib/kubelet/credential-provider-config.yaml", "/var/lib/kubelet/credential-provider"},
	// k3s and RKE2. Source: k3s-io/k3s pkg/daemons/agent/agent.go@v1.34.
	{"/var/lib/rancher/credentialprovider/config.yaml", "/var/lib/rancher/credentialprovider/bin"},
}

// findProvider returns the first of the places that is there.
func findProvider(root string) (config, binDir string) {
	for _, at := range defaultProviders {
		if _, err := os.Stat(filepath.Join(root, at.config)); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, at.binDir)); err == nil {
			return filepath.Join(root, at.config), filepath.Join(root, at.binDir)
		}
	}
	return "", ""
}

// defaultDockerConfigs are read when they exist, as a kubelet does.
// Source: kubernetes pkg/credentialprovider/config.go@v1.37.2.
var defaultDockerConfigs = []string{"/var/lib/kubelet/config.json", "/root/.docker/config.json"}

// Config says where credentials are. The zero value is the places of a stock node, each only if it is there.
type Config struct {
	// ProviderConfig is a kubelet CredentialProviderConfig: a file, or a folder of *.json, *.yaml and *.yml.
	// ProviderBinDir holds the providers' programs. Both or none.
	ProviderConfig, ProviderBinDir string
	// DockerConfigs are docker config.json files. nil is the kubelet's places; a file that is named must exist.
	DockerConfigs []string
	Log           logr.Logger
}

// Keyring looks credentials up.
type Keyring struct {
	providers []*provider
	docker    []dockerFile
	log       logr.Logger
}

// New reads the provider config. Docker config files are read at each look-up: tools renew them.
func New(cfg Config) (*Keyring, error) {
	k := &Keyring{log: cfg.Log}
	if cfg.ProviderConfig == "" && cfg.ProviderBinDir == "" {
		cfg.ProviderConfig, cfg.ProviderBinDir = findProvider("/")
	}
	if (cfg.ProviderConfig == "") != (cfg.ProviderBinDir == "") {
		return nil, errors.New("credential providers need both a config (credentialProviderConfig) and a folder with their programs (credentialProviderBinDir)")
	}
	if cfg.ProviderConfig != "" {
		var err error
		if k.providers, err = readProviders(cfg.ProviderConfig, cfg.ProviderBinDir, cfg.Log); err != nil {
			return nil, err
		}
	}
	for _, path := range cfg.DockerConfigs {
		found, err := readDockerConfig(path)
		if err != nil {
			return nil, err
		}
		for _, skipped := range found.skipped {
			cfg.Log.Info("docker config entry is passed over", "path", path, "reason", skipped)
		}
		k.docker = append(k.docker, dockerFile{path: path})
	}
	if cfg.DockerConfigs == nil {
		for _, path := range defaultDockerConfigs {
			k.docker = append(k.docker, dockerFile{path: path, optional: true})
		}
	}
	return k, nil
}

// Lookup returns what to log in with at host for an image, which is a normalised name with or without tag and digest;
// two empty strings where nothing is known, which is to pull anonymously. host is the one that is talked to: where it is
// a mirror of the image's registry, only credentials for the mirror are returned, never those for the registry behind
// it.
//
// attempt 0 returns the best that is known. The registry has refused what the attempts before returned: 1 returns the best
// again and passes by the cache; 2 and more return the next ones that fit, in the order in which a kubelet tries them.
//
// A provider that fails is logged and passed by, as the kubelet does; its error is returned only when nothing else is
// found.
func (k *Keyring) Lookup(ctx context.Context, image, host string, attempt int) (username, secret string, err error) {
	image = repositoryAt(image, host)
	merged := entries{}
	var errs []error
	for _, p := range k.providers {
		if !p.allows(image) {
			continue
		}
		found, err := p.provide(ctx, image, attempt == 1)
		if err != nil {
			k.log.Error(err, "credential provider failed", "provider", p.name, "image", image)
			errs = append(errs, err)
			continue
		}
		merged.merge(found)
	}
	fitting := merged.find(image)
	for _, f := range k.docker {
		found, err := f.find(ctx, image)
		errs = append(errs, err)
		fitting = append(fitting, found...)
	}
	fitting = distinct(fitting)
	if n := max(0, attempt-1); n < len(fitting) {
		return fitting[n].username, fitting[n].secret, nil
	}
	if len(fitting) > 0 {
		return "", "", nil // all have been tried
	}
	return "", "", errors.Join(errs...)
}

// distinct keeps the first of equal entries: what was refused once need not be tried again.
func distinct(all []entry) []entry {
	var kept []entry
	for _, e := range all {
		if !slices.Contains(kept, e) {
			kept = append(kept, e)
		}
	}
	return kept
}

// repositoryAt is the name to look up: the image's repository as it is called at the host.
func repositoryAt(image, host string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndex(image, ":"); colon > strings.LastIndex(image, "/") {
		image = image[:colon]
	}
	domain, path, _ := strings.Cut(image, "/")
	if host == "" || host == domain || (domain == dockerHub && isDockerHub(host)) {
		return image
	}
	return host + "/" + path
}

// entry is one set of credentials.
type entry struct{ username, secret string }

// entries are credentials by pattern, such as *.dkr.ecr.*.amazonaws.com or quay.io/team.
type entries map[string]entry

func (e entries) merge(more entries) {
	for pattern, one := range more {
		if _, known := e[pattern]; !known {
			e[pattern] = one
		}
	}
}

// find returns the entries whose patterns fit, best first: like the kubelet, it tries patterns in reverse order of their
// text, so that a longer path comes before the shorter that it begins with.
func (e entries) find(image string) []entry {
	patterns := make([]string, 0, len(e))
	for pattern := range e {
		patterns = append(patterns, pattern)
	}
	slices.Sort(patterns)
	slices.Reverse(patterns)
	var fitting []entry
	for _, pattern := range patterns {
		if matches(pattern, image) {
			fitting = append(fitting, e[pattern])
		}
	}
	if len(fitting) > 0 {
		return fitting
	}
	if domain, _, _ := strings.Cut(image, "/"); isDockerHub(domain) {
		for _, alias := range dockerHubAliases {
			if one, ok := e[alias]; ok {
				fitting = append(fitting, one)
			}
		}
	}
	return fitting
}

// String keeps credentials out of every log.
func (e entry) String() string { return fmt.Sprintf("credentials of %d characters", len(e.secret)) }
