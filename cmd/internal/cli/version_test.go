package cli

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhereTheVersionComesFrom(t *testing.T) {
	tree := &debug.BuildInfo{Main: debug.Module{Version: "v0.1.1-0.20261101-abc"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
	}}
	got := current(tree)
	require.Equal(t, []string{"v0.1.1-0.20261101-abc", "abc-dirty"}, []string{got.Version, got.Commit})
	got = current(&debug.BuildInfo{})
	require.Equal(t, []string{unknown, unknown}, []string{got.Version, got.Commit})

	release, revision = "v1.2.3", "def"
	defer func() { release, revision = "", "" }()
	got = current(tree)
	require.Equal(t, []string{"v1.2.3", "def"}, []string{got.Version, got.Commit}, "what the release says wins")
}
