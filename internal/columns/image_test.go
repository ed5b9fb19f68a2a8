package columns_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"headstart.dev/internal/columns"
)

func TestCutImage(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0123456789abcdef", 4)
	for name, tc := range map[string]struct {
		ref   string
		width int
		want  string
	}{
		"it fits":               {"docker.io/library/web:v1", 30, "docker.io/library/web:v1"},
		"a digest":              {"docker.io/library/web:v1" + digest, 50, "docker.io/library/web:v1@sha256:0123456789ab"},
		"a digest, no room":     {"docker.io/library/web:v1" + digest, 40, "…/library/web:v1@sha256:0123456789ab"},
		"folders":               {"111122223333.dkr.ecr.us-east-1.amazonaws.com/a/b/web:v1", 20, "…/a/b/web:v1"},
		"one endless word":      {strings.Repeat("x", 50), 10, "…xxxxxxxxx"},
		"no image":              {"shop/web-7d4b9", 30, "shop/web-7d4b9"},
		"an at that means less": {"mail@example", 30, "mail@example"},
		"nothing":               {"", 5, ""},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, columns.CutImage(tc.ref, tc.width))
			for width := range 60 {
				require.LessOrEqual(t, utf8.RuneCountInString(columns.CutImage(tc.ref, width)), width)
			}
		})
	}
}
