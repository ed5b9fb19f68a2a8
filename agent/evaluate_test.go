package agent

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"headstart.dev/prepull"
)

func image(ref string, priority int32, required bool, state prepull.State, failure string) prepull.ImageStatus {
	return prepull.ImageStatus{
		Image: prepull.Image{Ref: ref, Priority: priority, Required: required},
		Name:  "docker.io/library/" + ref + ":latest", Digest: "sha256:" + strings.Repeat("a", 64), State: state, Error: failure,
	}
}

func TestEvaluateImages(t *testing.T) {
	for name, tc := range map[string]struct {
		images  []prepull.ImageStatus
		status  corev1.ConditionStatus
		reason  string
		message string
	}{
		"nothing is configured": {nil, corev1.ConditionTrue, ReasonImagesNone, "no image is required"},
		"nothing is required":   {[]prepull.ImageStatus{image("a", 1, false, prepull.StatePulling, "")}, corev1.ConditionTrue, ReasonImagesNone, ""},
		"one is still pulled": {
			[]prepull.ImageStatus{image("a", 1, true, prepull.StateWarm, ""), image("b", 1, true, prepull.StatePulling, "")},
			corev1.ConditionFalse, ReasonImagesPull, "1 of 2 required images are here",
		},
		"one is tried again": {
			[]prepull.ImageStatus{image("a", 1, true, prepull.StatePulling, "registry answered 503")},
			corev1.ConditionFalse, ReasonImagesPull, "0 of 1 required images are here; a: registry answered 503",
		},
		"one has failed for good, which is told before what may heal": {
			[]prepull.ImageStatus{image("a", 9, true, prepull.StatePulling, "timeout"), image("b", 1, true, prepull.StateFailed, "not found")},
			corev1.ConditionFalse, ReasonImagesFailed, "b: not found",
		},
		"a lazy one counts": {
			[]prepull.ImageStatus{image("a", 1, true, prepull.StateLazy, ""), image("b", 1, true, prepull.StateWarm, "")},
			corev1.ConditionTrue, ReasonImagesReady, "2 of 2 required images are here, 1 of them lazily",
		},
		"one that is not required may fail": {
			[]prepull.ImageStatus{image("a", 1, true, prepull.StateWarm, ""), image("b", 1, false, prepull.StateFailed, "not found")},
			corev1.ConditionTrue, ReasonImagesReady, "1 of 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := evaluateImages(tc.images)
			require.Equal(t, tc.status, got.Status)
			require.Equal(t, tc.reason, got.Reason)
			require.Contains(t, got.Message, tc.message)
		})
	}
}

func TestEvaluateImagesKeepsAnErrorPageOutOfTheNode(t *testing.T) {
	got := evaluateImages([]prepull.ImageStatus{image("a", 1, true, prepull.StatePulling, strings.Repeat("<html>\n", 1000))})
	require.LessOrEqual(t, len(got.Message), maxMessageBytes)
	require.NotContains(t, got.Message, "\n")
}

func TestInventoryListsWhatIsWarmMostImportantFirst(t *testing.T) {
	got := inventory([]prepull.ImageStatus{
		image("low", 1, false, prepull.StateWarm, ""), image("high", 9, false, prepull.StateWarm, ""),
		image("lazy", 5, false, prepull.StateLazy, ""), image("cold", 10, true, prepull.StatePulling, ""),
	})
	require.Len(t, got.Warm, 2)
	require.Equal(t, "docker.io/library/high:latest", got.Warm[0].Name)
	require.Equal(t, "aaaaaaaaaaaaaaaa", got.Warm[0].Digest)
	require.Len(t, got.Lazy, 1)
}

func TestInventorySaysHowImagesCame(t *testing.T) {
	pulled := func(name, engine, runtime string, state prepull.State) prepull.ImageStatus {
		s := image(name, 1, false, state, "")
		s.Engine, s.Runtime, s.Snapshotter = engine, runtime, "soci"
		return s
	}
	got := inventory([]prepull.ImageStatus{
		pulled("a", "", "", prepull.StateWarm), pulled("b", "lazy", "containerd 2.2.4", prepull.StateLazy), pulled("c", "direct", "containerd 2.2.4", prepull.StateWarm),
		pulled("d", "direct", "containerd 2.2.4", prepull.StateWarm), pulled("e", "cri", "containerd 2.2.4", prepull.StatePulling),
	})
	require.Equal(t, []string{"direct", "lazy"}, got.Engines)
	require.Equal(t, "containerd 2.2.4", got.Runtime)
	require.Equal(t, "soci", got.Snapshotter)
	require.Less(t, len(inventory([]prepull.ImageStatus{pulled("a", "direct", strings.Repeat("x", 1<<20), prepull.StateWarm)}).Runtime), 1024)
}

func TestMetricsFollowTheConventions(t *testing.T) {
	registry := prometheus.NewRegistry()
	newMetrics(registry)
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}
