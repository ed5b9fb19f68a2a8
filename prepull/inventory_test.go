package prepull_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
)

// What does not fit is dropped from the end, and counted.
func TestInventoryFits(t *testing.T) {
	inv := prepull.Inventory{Failed: []string{"failed"}}
	for i := range 1000 {
		inv.Warm = append(inv.Warm, prepull.InventoryImage{Digest: "0123456789abcdef", Name: fmt.Sprintf("registry.example/app-%d:v1", i)})
	}
	text, err := inv.Encode()
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), prepull.MaxInventoryBytes)
	read, err := prepull.DecodeInventory(text)
	require.NoError(t, err)
	require.Empty(t, read.Failed)
	require.Equal(t, inv.Warm[:len(read.Warm)], read.Warm)
	require.Equal(t, 1001, len(read.Warm)+read.More)
	require.Greater(t, len(read.Warm), 200)
}

// What is no list cannot be cut: it is an error, and no loop without end.
func TestInventoryOfAHugeNameIsAnError(t *testing.T) {
	inv := prepull.Inventory{Snapshotter: strings.Repeat("x", prepull.MaxInventoryBytes), Warm: []prepull.InventoryImage{{Name: "app"}}}
	_, err := inv.Encode()
	require.ErrorContains(t, err, "without any image")
}
