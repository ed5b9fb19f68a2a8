package columns_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"headstart.dev/internal/columns"
)

func TestWrite(t *testing.T) {
	table := columns.Table{
		Header: []string{"NAME", "N", "WHY"}, Right: []int{1},
		Rows:   [][]string{{"a", "7", "a long story that nobody reads to its end"}, {"a-longer-name", "12", "-"}},
		Shrink: []columns.Shrink{{Column: 2, Least: 10}, {Column: 0, Least: 6, Cut: columns.CutMiddle}},
	}
	for name, tc := range map[string]struct {
		width int
		want  string
	}{
		"any width":                       {0, "NAME            N  WHY\na               7  a long story that nobody reads to its end\na-longer-name  12  -\n"},
		"the last column gives way first": {36, "NAME            N  WHY\na               7  a long story tha…\na-longer-name  12  -\n"},
		"then the first":                  {22, "NAME     N  WHY\na        7  a long st…\na-l…me  12  -\n"},
		"no further than the least":       {3, "NAME     N  WHY\na        7  a long st…\na-l…me  12  -\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			require.NoError(t, table.Write(&out, tc.width))
			require.Equal(t, tc.want, out.String())
		})
	}
	table.Headless = true
	var out strings.Builder
	require.NoError(t, table.Write(&out, 0))
	require.NotContains(t, out.String(), "NAME")
}

func TestCut(t *testing.T) {
	for _, cut := range []func(string, int) string{columns.Cut, columns.CutMiddle} {
		for width := range 12 {
			got := cut("äbcdefgh", width)
			require.LessOrEqual(t, utf8.RuneCountInString(got), width)
			require.True(t, utf8.ValidString(got))
		}
		require.Equal(t, "äbcdefgh", cut("äbcdefgh", 8))
	}
	require.Equal(t, "ip-1…rnal", columns.CutMiddle("ip-10-0-0-1.ec2.internal", 9))
}

func TestWrap(t *testing.T) {
	require.Equal(t, []string{"one two", "three", "a-word-that-is-long", "four"}, columns.Wrap("one two three  a-word-that-is-long four", 8))
	require.Equal(t, []string{""}, columns.Wrap("", 8))
}
