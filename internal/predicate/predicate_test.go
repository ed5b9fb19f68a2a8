package predicate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/internal/predicate"
)

func TestPredicates(t *testing.T) {
	object := map[string]any{"data": map[string]any{"ready": "true"}}
	for text, want := range map[string]string{
		"object.data.ready == 'true'":  "",
		"object.data.ready == 'false'": "the expression is false",
		"object.data.absent == 'x'":    "no such key",
		"object.data.ready":            "want true or false",
	} {
		program, err := predicate.Compile(text)
		require.NoError(t, err, text)
		err = program.Holds(object)
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, want, text)
	}
	for text, want := range map[string]string{"object.": "parse", "1 + 1": "it gives int, want bool", "sets.contains([1], [1])": "undeclared reference"} {
		_, err := predicate.Compile(text)
		require.ErrorContains(t, err, want, text)
	}
}
