// Package deploy_test checks what deploy/ ships against a real API server: the chart over a matrix of values, the
// Karpenter examples, and the clean-up.
package deploy_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headstart.dev/test/testenv"
)

const (
	root = "../../.."
	// toolsDir is the module that brings Helm, and the CRD files of others.
	toolsDir = root + "/test/tools/deploy"
	chartDir = root + "/deploy/charts/headstart"
	// startTimeout covers the first build of the servers and of Helm.
	startTimeout = 20 * time.Minute
)

var (
	cp              *testenv.ControlPlane
	helm, kustomize string
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := testenv.DeployTools(context.Background(), os.Stderr) // a first build has no limit
	if err != nil {
		return 0, err
	}
	helm, kustomize = filepath.Join(dir, "helm"), filepath.Join(dir, "kustomize")
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	crds := []string{"deploy/crd"}
	for module, sub := range map[string]string{
		"github.com/aws/karpenter-provider-aws":              "pkg/apis/crds",
		"github.com/prometheus-operator/prometheus-operator": "example/prometheus-operator-crd",
	} {
		path, err := moduleDir(ctx, module)
		if err != nil {
			return 0, err
		}
		crds = append(crds, filepath.Join(path, sub))
	}
	cp, err = testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{CRDDirs: crds})
	if err != nil {
		return 0, fmt.Errorf("start control plane: %w", err)
	}
	defer func() { _ = cp.Stop() }()
	return m.Run(), nil
}

// moduleDir is where the module's files lie, downloaded if need be.
func moduleDir(ctx context.Context, module string) (string, error) {
	download := exec.CommandContext(ctx, "go", "mod", "download", module)
	download.Dir = toolsDir
	if out, err := download.CombinedOutput(); err != nil {
		return "", fmt.Errorf("download %s: %w: %s", module, err, out)
	}
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	list.Dir = toolsDir
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// cleanUpContext outlives a test by as long as its clean-up may take.
func cleanUpContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
