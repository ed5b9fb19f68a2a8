package gates

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/gates/v1alpha1"
)

func expression(text string) *v1alpha1.ObjectRequirement {
	return &v1alpha1.ObjectRequirement{APIVersion: "example.com/v1", Kind: "Queue", Name: "q", Expression: text}
}

// The owner of the object that a policy names is not the policy's: a large one must not hold up the gates of all others.
func TestAHugeObjectCostsALittle(t *testing.T) {
	items := make([]any, 10_000)
	for i := range items {
		items[i] = map[string]any{"a": int64(i)}
	}
	content := map[string]any{"items": items, "ready": "true"}
	r, err := compileObject(expression("object.items.all(a, object.items.all(b, a == b || true))"))
	require.NoError(t, err)
	begun := time.Now()
	require.ErrorContains(t, r.holds(content), "evaluate expression")
	require.Less(t, time.Since(begun), 3*time.Second, "without a limit of time it takes eight")
	honest, err := compileObject(expression("object.ready == 'true' && object.items.size() > 9"))
	require.NoError(t, err)
	require.NoError(t, honest.holds(content))
	for _, quadratic := range []string{"object.items.distinct().size() > 0", "sets.contains(object.items, object.items)"} {
		_, err := compileObject(expression(quadratic))
		require.ErrorContains(t, err, "undeclared reference", quadratic)
	}
}
