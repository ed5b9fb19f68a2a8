package learn_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/learn"
)

// FuzzDecode is of a ConfigMap that others can write too.
func FuzzDecode(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	w := learn.New(time.Hour)
	w.Count(learn.Start{Image: "registry.example/app:v1", At: now})
	data, err := w.Encode(now)
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := learn.Decode(data, time.Hour)
		require.NotNil(t, w, "there is a window to go on with")
		if err != nil {
			return
		}
		w.Rank(now)
		again, err := w.Encode(now)
		require.NoError(t, err)
		_, err = learn.Decode(again, time.Hour)
		require.NoError(t, err, "what is written can be read")
	})
}
