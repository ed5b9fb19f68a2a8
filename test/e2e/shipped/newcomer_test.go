package shipped_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// readmesRegistry and readmesHelm are words of the README's section on installing.
const (
	readmesRegistry = "registry.example/headstart"
	readmesHelm     = "helm install headstart " + chartPath + " --namespace " + namespace + " --create-namespace"
)

// release returns the flags by which Helm sets our images. In make test they are built for this machine alone; in make
// test-long a newcomer's words are followed, from a fresh clone to the line that the README has for Helm.
func (c *cluster) release(t *testing.T) []string {
	t.Helper()
	if os.Getenv("HEADSTART_LONG") == "" {
		return c.images(t, root)
	}
	clone := filepath.Join(t.TempDir(), "headstart")
	_, err := git(t, "clone", "--quiet", ".", clone)
	require.NoError(t, err)
	registry := c.reg.Image("headstart")
	make := exec.CommandContext(t.Context(), "make", "images", "REGISTRY="+registry)
	make.Dir, make.Stderr = clone, os.Stderr
	make.Env = append(os.Environ(), "GOFLAGS=", "CGO_CFLAGS=", "MAKEFLAGS=")
	out, err := make.Output()
	require.NoError(t, err, "%s", out)
	text, err := os.ReadFile(filepath.Join(clone, "README.md"))
	require.NoError(t, err)
	return readmesFlags(t, string(text), registry, string(out))
}

// readmesFlags are what the README's line for Helm adds to the words that every install has, with a registry and digests put
// in for its placeholders.
func readmesFlags(t *testing.T, readme, registry, printed string) []string {
	t.Helper()
	_, line, found := strings.Cut(strings.ReplaceAll(readme, "\\\n", ""), readmesHelm)
	require.True(t, found, "the README installs by %q", readmesHelm)
	line, _, _ = strings.Cut(line, "\n```")
	require.Equal(t, 2, strings.Count(line, "sha256:..."))
	for _, command := range []string{"headstart-agent", "headstart-controller"} {
		repository := registry + "/" + command
		_, digest, found := strings.Cut(printed, repository+"@")
		require.True(t, found, "make images prints %s by digest: %s", repository, printed)
		digest, _, _ = strings.Cut(digest, "\n")
		// The README names the agent first.
		line = strings.Replace(line, "sha256:...", digest, 1)
	}
	return strings.Fields(strings.ReplaceAll(line, readmesRegistry, registry))
}

func TestReadmesFlags(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	printed := "host:5000/x/headstart-agent@sha256:aa\nhost:5000/x/headstart-controller@sha256:bb\n"
	require.Equal(t, []string{
		"--set", "agent.image.repository=host:5000/x/headstart-agent", "--set", "agent.image.digest=sha256:aa",
		"--set", "controller.image.repository=host:5000/x/headstart-controller", "--set", "controller.image.digest=sha256:bb",
	}, readmesFlags(t, string(text), "host:5000/x", printed))
}
