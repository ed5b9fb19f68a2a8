package credentials

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProvidersAreFoundWhereASystemKeepsThem(t *testing.T) {
	for _, at := range defaultProviders {
		root := t.TempDir()
		config, _ := findProvider(root)
		require.Empty(t, config)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, at.config)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, at.config), nil, 0o600))
		if filepath.Dir(at.config) != at.binDir {
			config, _ = findProvider(root)
			require.Empty(t, config, "a config without its programs")
		}
		require.NoError(t, os.MkdirAll(filepath.Join(root, at.binDir), 0o755))
		config, binDir := findProvider(root)
		require.Equal(t, filepath.Join(root, at.config), config)
		require.Equal(t, filepath.Join(root, at.binDir), binDir)
	}
}
