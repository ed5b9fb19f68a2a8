// Package shipped_test tests what ships: it installs the chart with its default values, from our images as they are
// released, on a real node (control plane, scheduler, controller manager, registry, containerd, kubelet), has that
// installation do what the product is for, under faults too, and upgrades and uninstalls it.
package shipped_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/image"
	"headstart.dev/test/testenv"
)

const (
	root      = "../../.."
	namespace = "headstart-system"
	// serviceIP is the Service "kubernetes" of the testbed's control plane. No kube-proxy runs: the test plays its part.
	serviceIP = "10.96.0.1"
)

// publish builds our image from source, pushes it, and returns repository and digest.
func publish(t *testing.T, reg *testenv.Registry, spec image.Spec, source string) (repository, digest string) {
	t.Helper()
	built, err := image.Build(t.Context(), spec, image.Options{Source: source, Platforms: []string{runtime.GOARCH}, Version: "test"})
	require.NoError(t, err)
	repository = reg.Image(spec.Command)
	tag, err := name.NewTag(repository+":test", name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(tag, built.Index, remote.WithContext(t.Context())))
	hash, err := built.Index.Digest()
	require.NoError(t, err)
	return repository, hash.String()
}

// helm runs Helm from its module.
type helm struct{ bin, kubeconfig string }

func newHelm(t *testing.T, kubeconfig string) helm {
	t.Helper()
	dir, err := testenv.DeployTools(t.Context(), os.Stderr)
	require.NoError(t, err)
	return helm{bin: filepath.Join(dir, "helm"), kubeconfig: kubeconfig}
}

// run returns what Helm prints.
func (h helm) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), h.bin, append(args, "--namespace", namespace, "--kubeconfig", h.kubeconfig)...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir())
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s%s", out, &errs)
	return string(out)
}
