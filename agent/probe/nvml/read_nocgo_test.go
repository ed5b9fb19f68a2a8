//go:build !linux || !cgo

package nvml

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestABuildWithoutCgoSaysWhatItLacks(t *testing.T) {
	report := Read("")
	require.False(t, Supported)
	require.Equal(t, OutcomeUnsupported, report.Outcome)
	require.Contains(t, report.Error, "CGO_ENABLED=0")
	require.Contains(t, report.Error, "use the release build")
	require.ErrorContains(t, Follow(t.Context(), "", t.Output()), "CGO_ENABLED=0")
}
