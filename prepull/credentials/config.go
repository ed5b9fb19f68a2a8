package credentials

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	kubeletconfig "k8s.io/kubelet/config/v1"
	"sigs.k8s.io/yaml"
)

// configVersions are those of the config file, and answerVersions those of the protocol; their fields that we use are the
// same.
var (
	configVersions = []string{"kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"}
	answerVersions = []string{"credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1beta1", "credentialprovider.kubelet.k8s.io/v1alpha1"}
)

// readProviders reads a kubelet's CredentialProviderConfig. A provider that wants a pod's service account token cannot
// serve an agent, which has no pod: it is left out, and said so.
func readProviders(path, binDir string, log logr.Logger) ([]*provider, error) {
	files, err := configFiles(path)
	if err != nil {
		return nil, fmt.Errorf("read the credential provider config: %w", err)
	}
	var providers []*provider
	for _, file := range files {
		data, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the credential provider config: %w", err)
		}
		configs, err := parseConfig(data)
		if err != nil {
			return nil, fmt.Errorf("read the credential provider config %s: %w", file, err)
		}
		for _, c := range configs {
			if slices.ContainsFunc(providers, func(p *provider) bool { return p.name == c.Name }) {
				return nil, fmt.Errorf("read the credential provider config %s: provider %q stands there twice", file, c.Name)
			}
			if c.TokenAttributes != nil && c.TokenAttributes.RequireServiceAccount != nil && *c.TokenAttributes.RequireServiceAccount {
				log.Info("credential provider needs a pod and is left out", "provider", c.Name)
				continue
			}
			providers = append(providers, newProvider(c, binDir))
		}
	}
	return providers, nil
}

// configFiles returns the file itself, or the files of a folder in the order of their names.
func configFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	all, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, err
	}
	var files []string
	for _, f := range all {
		if !f.IsDir() && slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(f.Name())) {
			files = append(files, filepath.Join(path, f.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the folder %s has no *.json, *.yaml or *.yml", path)
	}
	return files, nil
}

func parseConfig(data []byte) ([]kubeletconfig.CredentialProvider, error) {
	var config kubeletconfig.CredentialProviderConfig
	if err := yaml.UnmarshalStrict(data, &config); err != nil {
		return nil, err
	}
	if !slices.Contains(configVersions, config.APIVersion) || config.Kind != "CredentialProviderConfig" {
		return nil, fmt.Errorf("apiVersion %q, kind %q: want %s, CredentialProviderConfig", config.APIVersion, config.Kind, configVersions[0])
	}
	for i, p := range config.Providers {
		switch {
		case p.Name == "" || p.Name == "." || p.Name == ".." || strings.ContainsAny(p.Name, "/ "):
			return nil, fmt.Errorf("providers[%d].name %q: want the name of a program, without slash or space", i, p.Name)
		case !slices.Contains(answerVersions, p.APIVersion):
			return nil, fmt.Errorf("providers[%d].apiVersion %q: want one of %s", i, p.APIVersion, strings.Join(answerVersions, ", "))
		case len(p.MatchImages) == 0:
			return nil, fmt.Errorf("providers[%d].matchImages: at least one pattern is needed", i)
		case p.DefaultCacheDuration == nil || p.DefaultCacheDuration.Duration < 0:
			return nil, fmt.Errorf("providers[%d].defaultCacheDuration: a duration of 0s or more is needed", i)
		}
	}
	return config.Providers, nil
}
