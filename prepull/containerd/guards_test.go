package containerd

import (
	"os"
	"path/filepath"
	"testing"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/stretchr/testify/require"
)

// What a node's owner has said in containerd's config, and only containerd follows, leaves the image to the CRI.
func TestWhatIsLeftToTheCRI(t *testing.T) {
	empty, full := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "cosign"), nil, 0o600))
	bindir := []*introspectionapi.Plugin{{Type: "io.containerd.image-verifier.v1", ID: "bindir"}}
	v3 := "[plugins.\"io.containerd.cri.v1.images\".registry"
	v2 := "[plugins.\"io.containerd.grpc.v1.cri\".registry"
	for name, tc := range map[string]struct {
		config, image, want string
		plugins             []*introspectionapi.Plugin
	}{
		"nothing":                        {"version = 3", "docker.io/library/app:v1", "", bindir},
		"an empty folder of verifiers":   {"[plugins.\"io.containerd.image-verifier.v1.bindir\"]\nbin_dir = '" + empty + "'", "docker.io/library/app:v1", "", bindir},
		"a folder with a verifier":       {"[plugins.\"io.containerd.image-verifier.v1.bindir\"]\nbin_dir = '" + full + "'", "docker.io/library/app:v1", full, bindir},
		"a containerd that asks nobody":  {"[plugins.\"io.containerd.image-verifier.v1.bindir\"]\nbin_dir = '" + full + "'", "docker.io/library/app:v1", "", nil},
		"a verifier of its own":          {"", "docker.io/library/app:v1", "verifier policy", []*introspectionapi.Plugin{{Type: "io.containerd.image-verifier.v1", ID: "policy"}}},
		"a mirror of the registry":       {v2 + ".mirrors.\"docker.io\"]\nendpoint = [\"https://mirror\"]", "docker.io/library/app:v1", "mirrors of its own for docker.io", nil},
		"a mirror of all":                {v3 + ".mirrors.\"*\"]\nendpoint = [\"https://mirror\"]", "quay.io/app:v1", "mirrors of its own", nil},
		"a mirror of another":            {v3 + ".mirrors.\"ghcr.io\"]\nendpoint = [\"https://mirror\"]", "quay.io/app:v1", "", nil},
		"credentials of docker hub":      {v3 + ".configs.\"registry-1.docker.io\".auth]\nusername = 'u'", "docker.io/library/app:v1", "settings of its own", nil},
		"TLS of a registry with a port":  {v2 + ".configs.\"r.example:5000\".tls]\nca_file = '/ca'", "r.example:5000/app:v1", "settings of its own", nil},
		"credentials by URL":             {v3 + ".auths.\"https://quay.io\"]\nauth = 'x'", "quay.io/app:v1", "credentials of its own for quay.io", nil},
		"headers":                        {v3 + ".headers]\nX-Team = ['a']", "quay.io/app:v1", "headers of its own", nil},
		"the header that everybody sets": {v3 + ".headers]\nUser-Agent = ['a']", "quay.io/app:v1", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "extra.toml"), []byte(tc.config), 0o600))
			main := filepath.Join(dir, "config.toml")
			require.NoError(t, os.WriteFile(main, []byte("version = 3\nimports = ['*.toml']\n"), 0o600))
			settings, err := readConfigFiles(main)
			require.NoError(t, err)
			got := findGuards(tc.plugins, settings).leave(tc.image)
			if tc.want == "" {
				require.Empty(t, got)
				return
			}
			require.Contains(t, got, tc.want)
		})
	}
}

// The settings of a pull come from the files where nothing else tells them: the rights of the agent's unit do not reach
// into containerd's process.
func TestSettingsFromFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	main := write("config.toml", "version = 3\nimports = ['conf.d/*.toml', '"+dir+"/config.toml']\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/a:/b'\n")
	write("conf.d/10.toml", "[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n")
	settings, err := readConfigFiles(main)
	require.NoError(t, err)
	require.True(t, settings.discard)
	require.Equal(t, "/a:/b", settings.configPath)
	_, err = readConfigFiles(filepath.Join(dir, "none.toml"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = readConfigFiles(write("broken.toml", "version = = 3"))
	require.ErrorContains(t, err, "broken.toml")
}
