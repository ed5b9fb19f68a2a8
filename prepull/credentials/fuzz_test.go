package credentials

import (
	"strings"
	"testing"
)

const version = "credentialprovider.kubelet.k8s.io/v1"

// FuzzAnswer feeds whatever a provider may print. Nothing of it may come back in an error.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"kind":"CredentialProviderResponse","apiVersion":"` + version + `","cacheKeyType":"Image","auth":{"*.io":{"username":"u","password":"marker"}}}`))
	f.Add([]byte(`{"kind":"CredentialProviderResponse","apiVersion":"` + version + `","cacheDuration":"marker"}`))
	f.Add([]byte(`marker`))
	f.Fuzz(func(t *testing.T, data []byte) {
		answer, err := parseAnswer("p", version, data)
		if err != nil {
			if strings.Contains(err.Error(), "marker") {
				t.Fatalf("the error quotes the answer: %v", err)
			}
			return
		}
		p := &provider{name: "p", cache: map[string]cached{}}
		found, err := p.store("registry.example/app", answer)
		if err == nil {
			found.find("registry.example/app")
		}
	})
}

// FuzzDockerConfig reads any config file and looks an image up in it.
func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"quay.io":{"auth":"dTpw"}}}`), "quay.io/team/app")
	f.Add([]byte(`{"auths":{"[":{"username":"u"},"https://index.docker.io/v1/":{}}}`), "docker.io/library/nginx")
	f.Fuzz(func(_ *testing.T, data []byte, image string) {
		found, err := parseDockerConfig(data)
		if err == nil {
			found.auths.find(image)
		}
	})
}

// FuzzMatches holds a pattern against itself: without globs it must match.
func FuzzMatches(f *testing.F) {
	f.Add("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.x.amazonaws.com/app")
	f.Add("registry.example:5000/team", "registry.example:5000/team/app")
	f.Fuzz(func(_ *testing.T, pattern, image string) { matches(pattern, image) })
}
