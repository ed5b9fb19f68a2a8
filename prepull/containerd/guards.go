package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/distribution/reference"
)

// A node's owner may have said in containerd's config which images may come, and how. What of that is asked only by
// containerd itself when it pulls is not gone around: such an image is left to the CRI.

// errVerifier: a verifier of the node has refused the image.
var errVerifier = errors.New("the node's image verifier refuses it")

// defaultVerifierDir is where containerd looks for verifiers when its config names no folder.
// Source: containerd plugins/imageverifier/path_unix.go@v2.4.2.
const defaultVerifierDir = "/opt/containerd/image-verifier/bin"

// bindirVerifier is the verifier that containerd always has, and that asks nobody when its folder is empty.
const bindirVerifier = "bindir"

// guards are what of the node's config the engines of this process do not follow.
type guards struct {
	verifiers    []string // plugins that judge every image
	verifierDirs []string // folders with programs that do, looked at before each pull
	registries   registryRules
}

// registryRules are settings of the CRI's own for registries, which hosts.toml has replaced.
type registryRules struct{ mirrors, configs, auths, headers map[string]any }

// with adds the rules of another file.
func (r registryRules) with(more registryRules) registryRules {
	join := func(a, b map[string]any) map[string]any {
		if len(a)+len(b) == 0 {
			return nil
		}
		all := map[string]any{}
		maps.Copy(all, a)
		maps.Copy(all, b)
		return all
	}
	return registryRules{
		mirrors: join(r.mirrors, more.mirrors), configs: join(r.configs, more.configs),
		auths: join(r.auths, more.auths), headers: join(r.headers, more.headers),
	}
}

// findGuards looks through the plugins and the settings of containerd.
func findGuards(all []*introspectionapi.Plugin, s criSettings) guards {
	g := guards{registries: s.registries}
	for _, p := range all {
		if p.Type == plugins.ImageVerifierPlugin.String() && p.ID != bindirVerifier && p.InitErr == nil {
			g.verifiers = append(g.verifiers, p.ID)
		}
	}
	has := slices.ContainsFunc(all, func(p *introspectionapi.Plugin) bool {
		return p.Type == plugins.ImageVerifierPlugin.String() && p.ID == bindirVerifier
	})
	switch {
	case !has: // containerd 1.7
	case s.verifierDir != "":
		g.verifierDirs = []string{s.verifierDir}
	default:
		g.verifierDirs = []string{defaultVerifierDir}
	}
	return g
}

// leave says why an image is left to the CRI; "" when it need not be.
func (g guards) leave(name string) string {
	if len(g.verifiers) > 0 {
		return fmt.Sprintf("containerd has the image verifier %s, which only it can ask", g.verifiers[0])
	}
	for _, dir := range g.verifierDirs {
		switch all, err := os.ReadDir(dir); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Sprintf("the folder of containerd's image verifiers cannot be read: %s", err)
		case len(all) > 0:
			return fmt.Sprintf("containerd asks the image verifiers in %s, which only it can do", dir)
		}
	}
	return g.registries.concern(name)
}

// concern says which setting there is for the registry of an image.
func (r registryRules) concern(name string) string {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return ""
	}
	domain := reference.Domain(named)
	hosts := []string{domain}
	if domain == "docker.io" {
		hosts = append(hosts, "registry-1.docker.io", "index.docker.io")
	}
	for _, host := range append(slices.Clone(hosts), "*") {
		if _, set := r.mirrors[host]; set {
			return fmt.Sprintf("the CRI's config has mirrors of its own for %s", host)
		}
	}
	for key := range r.configs {
		if slices.Contains(hosts, hostOf(key)) {
			return fmt.Sprintf("the CRI's config has settings of its own for %s", key)
		}
	}
	for key := range r.auths {
		if slices.Contains(hosts, hostOf(key)) {
			return fmt.Sprintf("the CRI's config has credentials of its own for %s", hostOf(key))
		}
	}
	for key := range r.headers {
		if !strings.EqualFold(key, "User-Agent") {
			return "the CRI's config has headers of its own for all registries"
		}
	}
	return ""
}

// hostOf takes the host out of a URL or of a host with a path.
func hostOf(key string) string {
	if _, rest, isURL := strings.Cut(key, "://"); isURL {
		key = rest
	}
	host, _, _ := strings.Cut(key, "/")
	return host
}

// refusedByVerifier reads the judgement out of the CRI's error, which is a text.
// Source: containerd core/transfer/local/pull.go@v2.4.2.
func refusedByVerifier(err error) bool {
	text := err.Error()
	return strings.Contains(text, "image verifier") && strings.Contains(text, "blocked pull")
}

// leftToCRI says why the image is left to the CRI.
func (n *node) leftToCRI(_ context.Context, p *pull) string {
	if n.client == nil {
		return "" // nothing can be told before containerd is up, and nothing is called warm before
	}
	return n.guards.leave(p.source)
}
