package policy

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFreeFloorStaysClearOfTheKubeletsGarbageCollection(t *testing.T) {
	cases := map[string]struct {
		config string
		want   int
	}{
		"the kubelet's default":           {config: "kind: KubeletConfiguration\n", want: 16},
		"a threshold":                     {config: "imageGCHighThresholdPercent: 70\n", want: 31},
		"JSON, as EKS writes it":          {config: `{"imageGCHighThresholdPercent": 90}`, want: 11},
		"turned off":                      {config: "imageGCHighThresholdPercent: 100\n", want: 0},
		"what cannot be read":             {config: "{", want: 16},
		"a threshold that makes no sense": {config: "imageGCHighThresholdPercent: -5\n", want: 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config")
			require.NoError(t, os.WriteFile(file, []byte(tc.config), 0o600))
			require.Equal(t, tc.want, freeFloor([]string{"/nowhere", file}))
		})
	}
	require.Zero(t, freeFloor([]string{"/nowhere"}), "where there is no kubelet nobody collects")
}
