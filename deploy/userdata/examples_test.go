package userdata_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/userdata"
)

// TestKarpenterExamples keeps the userData of deploy/karpenter what the command prints.
func TestKarpenterExamples(t *testing.T) {
	cases := map[string]struct {
		system       userdata.OS
		file, values string
	}{
		"AL2023":       {userdata.AL2023, "al2023.yaml", "values.yaml"},
		"AL2023, GPU":  {userdata.AL2023, "gpu.yaml", "values-gpu.yaml"},
		"Bottlerocket": {userdata.Bottlerocket, "bottlerocket.yaml", "values.yaml"},
	}
	const key = "  userData: |\n"
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("../karpenter", tc.values))
			require.NoError(t, err)
			v, err := userdata.Parse(text)
			require.NoError(t, err)
			out, err := userdata.Render(tc.system, v)
			require.NoError(t, err)
			var want strings.Builder
			for line := range strings.Lines(out) {
				if line != "\n" {
					want.WriteString("    ")
				}
				want.WriteString(line)
			}
			file := filepath.Join("../karpenter", tc.file)
			manifest, err := os.ReadFile(file)
			require.NoError(t, err)
			head, got, ok := strings.Cut(string(manifest), key)
			require.True(t, ok, "the example ends with its userData")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(head+key+want.String()), 0o600))
				return
			}
			if diff := cmp.Diff(want.String(), got); diff != "" {
				t.Errorf("run the test with -update:\n%s", diff)
			}
		})
	}
}
