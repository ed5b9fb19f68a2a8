package prepull_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
)

func TestStrongerMode(t *testing.T) {
	eager, lazy, auto, unsaid := prepull.ModeEager, prepull.ModeLazy, prepull.ModeAuto, prepull.Mode("")
	for name, tc := range map[string]struct{ a, b, want prepull.Mode }{
		"the whole image satisfies who would take less": {eager, lazy, eager},
		"no wish is one for the whole image":            {unsaid, auto, unsaid},
		"twice no wish":                                 {unsaid, unsaid, unsaid},
		"lazy is told of":                               {lazy, auto, lazy},
		"both auto":                                     {auto, auto, auto},
		"nonsense brings the whole image":               {"Sometimes", auto, "Sometimes"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, tc.a.Stronger(tc.b))
			require.Equal(t, tc.want, tc.b.Stronger(tc.a))
		})
	}
}

func TestParseMode(t *testing.T) {
	for text, want := range map[string]prepull.Mode{"": prepull.ModeEager, "Eager": prepull.ModeEager, "Lazy": prepull.ModeLazy, "Auto": prepull.ModeAuto} {
		mode, err := prepull.ParseMode(text)
		require.NoError(t, err)
		require.Equal(t, want, mode)
		require.Equal(t, want != prepull.ModeEager, mode.Lazy())
	}
	_, err := prepull.ParseMode("lazy")
	require.ErrorContains(t, err, "want Eager, Lazy or Auto")
}
