package gates

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNamesAreASet(t *testing.T) {
	n := newNames([]string{"b/Ready", "Ready", "a"})
	require.Equal(t, []string{"Ready", "a", "b/Ready"}, slices.Collect(n.all()))
	require.Equal(t, 3, n.size())
	for name, want := range map[string]bool{"Ready": true, "a": true, "b/Ready": true, "b": false, "Read": false, "eady": false} {
		require.Equal(t, want, n.has(name), name)
	}
	require.Equal(t, n, newNames([]string{"a", "Ready", "b/Ready"}))

	none := newNames(nil)
	require.Zero(t, none.size())
	require.False(t, none.has("a"))
	require.Empty(t, slices.Collect(none.all()))
}
