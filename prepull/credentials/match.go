package credentials

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// dockerHub is the domain of images without one.
const dockerHub = "docker.io"

// dockerHubAliases are the names under which its credentials are kept.
var dockerHubAliases = []string{dockerHub, "index.docker.io", "registry-1.docker.io"}

func isDockerHub(host string) bool { return slices.Contains(dockerHubAliases, host) }

// matches reports whether an image fits a pattern of the kubelet: as many domain labels as the pattern, each fitting its
// glob; the same port; and a path that begins with the pattern's.
// Source: kubernetes pkg/credentialprovider/keyring.go@v1.37.2, URLsMatch.
func matches(pattern, image string) bool {
	p, err := url.Parse("https://" + pattern)
	if err != nil {
		return false
	}
	i, err := url.Parse("https://" + image)
	if err != nil {
		return false
	}
	patternLabels, patternPort := splitHost(p.Host)
	labels, port := splitHost(i.Host)
	if patternPort != port || len(patternLabels) != len(labels) || !strings.HasPrefix(i.Path, p.Path) {
		return false
	}
	for n, glob := range patternLabels {
		if ok, err := filepath.Match(glob, labels[n]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitHost(hostPort string) (labels []string, port string) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		host, port = hostPort, ""
	}
	return strings.Split(host, "."), port
}

// patternOf turns a key of a docker config or of a provider's answer into a pattern: without scheme, and with /v1/ and
// /v2/ as the host alone.
// Source: kubernetes pkg/credentialprovider/keyring.go@v1.37.2, BasicDockerKeyring.Add.
func patternOf(key string) (string, bool) {
	if !strings.HasPrefix(key, "https://") && !strings.HasPrefix(key, "http://") {
		key = "https://" + key
	}
	u, err := url.Parse(key)
	if err != nil || u.Host == "" {
		return "", false
	}
	path := u.Path
	if strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/v2/") {
		path = path[3:]
	}
	if path == "/" {
		path = ""
	}
	return u.Host + path, true
}
