package prepull_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
)

// FuzzInventory is of the annotation by which a node says what it has.
func FuzzInventory(f *testing.F) {
	f.Add("{}")
	f.Add(`{"images":["sha256:0123456789ab=registry.example/app:v1"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		inv, err := prepull.DecodeInventory(text)
		if err != nil {
			return
		}
		again, err := inv.Encode()
		if err != nil {
			return
		}
		_, err = prepull.DecodeInventory(again)
		require.NoError(t, err, "what is written can be read")
	})
}
