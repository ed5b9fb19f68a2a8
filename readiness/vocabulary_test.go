package readiness_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/validation"

	"headstart.dev/readiness"
)

func TestPrepullLabelIsALabelForEveryNameOfAPolicy(t *testing.T) {
	require.Equal(t, "prepull.headstart.dev/web", readiness.PrepullLabel("web"))
	long := strings.Repeat("a", 53) + "." + strings.Repeat("b", 146)
	seen := map[string]bool{}
	for _, name := range []string{"web", "team.web-1", strings.Repeat("a", 63), strings.Repeat("a", 64), long, long[:199] + "c"} {
		label := readiness.PrepullLabel(name)
		require.Empty(t, validation.IsQualifiedName(label), name)
		require.False(t, seen[label], "two policies never share a label: %s", label)
		seen[label] = true
	}
}
