package deploy_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write deploy/kustomize/base/headstart.yaml anew")

const generated = "# Written by the tests of deploy from the chart; edits are lost.\n"

// TestKustomizeIsTheChart keeps the base what the chart renders with its defaults.
func TestKustomizeIsTheChart(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), helm, "template", "headstart", chartDir, "--namespace", "headstart-system", "--kube-version", "1.37.2", "--no-hooks")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	want := generated + strings.ReplaceAll(string(out), "managed-by: Helm", "managed-by: kustomize")
	file := filepath.Join(root, "deploy/kustomize/base/headstart.yaml")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o600))
	}
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("run the test with -update:\n%s", diff)
	}
	a := newAPI(t)
	a.namespace(t, "headstart-system")
	for _, obj := range decode(t, got) {
		a.dryRun(t, obj)
	}
}

// TestKustomizeNamesEveryCRD keeps the list of CRDs complete.
func TestKustomizeNamesEveryCRD(t *testing.T) {
	list, err := os.ReadFile(filepath.Join(root, "deploy/kustomize/crds/kustomization.yaml"))
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(root, "deploy/crd/*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		require.Contains(t, string(list), "- ../../crd/"+filepath.Base(file)+"\n")
	}
	// The upgrade hook may patch the CRDs that it names, and no others.
	hooks, err := os.ReadFile(filepath.Join(chartDir, "templates/hooks.yaml"))
	require.NoError(t, err)
	for _, file := range files {
		plural, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(file), "headstart.dev_"), ".")
		require.Contains(t, string(hooks), plural+".headstart.dev")
	}
}
