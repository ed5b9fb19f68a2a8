package learn_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/learn"
)

const mib = 1 << 20

var monday = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func counted(w *learn.Window, image string, at time.Time, starts, pulls int) {
	for i := range starts {
		w.Count(learn.Start{Image: image, At: at, First: i < pulls})
	}
}

func names(ranked []learn.Ranked) []string {
	var out []string
	for _, r := range ranked {
		out = append(out, r.Image)
	}
	return out
}

func TestRankIsPullsTimesBytes(t *testing.T) {
	w := learn.New(168 * time.Hour)
	counted(w, "sidecar", monday, 1000, 10)
	counted(w, "model", monday, 3, 3)
	counted(w, "web", monday, 50, 40)
	counted(w, "unknown", monday, 2, 2)
	w.Measured("sidecar", 20*mib)
	w.Measured("model", 8000*mib)
	w.Measured("web", 300*mib)
	w.Measured("never started", 9000*mib)

	require.Equal(t, []learn.Ranked{
		{Image: "model", Starts: 3, Pulls: 3, Recent: 3, Bytes: 8000 * mib, Saved: 24000 * mib},
		{Image: "web", Starts: 50, Pulls: 40, Recent: 40, Bytes: 300 * mib, Saved: 12000 * mib},
		{Image: "unknown", Starts: 2, Pulls: 2, Recent: 2, Saved: 2 * (8320 * mib / 3)},
		{Image: "sidecar", Starts: 1000, Pulls: 10, Recent: 10, Bytes: 20 * mib, Saved: 200 * mib},
	}, w.Rank(monday))
}

func TestOnlyWhatPodsStartedIsMeasured(t *testing.T) {
	w := learn.New(168 * time.Hour)
	w.Measured("late", 9*mib)
	counted(w, "late", monday, 1, 1)
	require.Zero(t, w.Rank(monday)[0].Bytes)
	w.Measured("late", 9*mib)
	w.Measured("late", 0)
	require.Equal(t, int64(9*mib), w.Rank(monday)[0].Bytes)
	require.Equal(t, []string{"late"}, names(w.Rank(monday)))
}

func TestReplacedImageSinks(t *testing.T) {
	w := learn.New(168 * time.Hour)
	counted(w, "app:v1", monday, 100, 100)
	w.Measured("app:v1", 100*mib)
	later := monday.Add(48 * time.Hour)
	counted(w, "app:v2", later, 40, 40)
	w.Measured("app:v2", 100*mib)
	require.Equal(t, []string{"app:v2", "app:v1"}, names(w.Rank(later)))
	require.InDelta(t, 25, w.Rank(later)[1].Recent, 0.01, "half for each day")
}

func TestFitPrefersWhatSavesMostForItsRoom(t *testing.T) {
	w := learn.New(168 * time.Hour)
	counted(w, "huge", monday, 5, 5)
	w.Measured("huge", 9000*mib)
	counted(w, "small", monday, 50, 50)
	w.Measured("small", 100*mib)
	ranked := w.Rank(monday)
	require.Equal(t, []string{"huge", "small"}, names(ranked))
	require.Equal(t, []string{"small", "huge"}, names(learn.Fit(ranked)))
}

func TestWindowSlides(t *testing.T) {
	w := learn.New(28 * time.Hour)
	counted(w, "old", monday, 1, 1)
	counted(w, "new", monday.Add(20*time.Hour), 1, 1)
	require.Equal(t, []string{"new", "old"}, names(w.Rank(monday.Add(20*time.Hour))))
	require.Equal(t, []string{"new"}, names(w.Rank(monday.Add(29*time.Hour))))
	require.Empty(t, w.Rank(monday.Add(80*time.Hour)))
}

func TestWindowIgnoresWhatIsNoStart(t *testing.T) {
	w := learn.New(time.Hour)
	counted(w, "app", monday, 1, 1)
	counted(w, "", monday, 1, 1)
	counted(w, strings.Repeat("a", learn.MaxName+1), monday, 1, 1)
	counted(w, "older than the window", monday.Add(-2*time.Hour), 1, 1)
	require.Equal(t, []string{"app"}, names(w.Rank(monday)))
	require.Equal(t, monday, w.Through())
}

func TestWindowStaysSmallUnderAFloodOfNames(t *testing.T) {
	w := learn.New(168 * time.Hour)
	counted(w, "registry.example/important:v1", monday.Add(84*time.Hour), 100, 100)
	w.Measured("registry.example/important:v1", 500*mib)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 5000 {
		at := monday.Add(time.Duration(random.Int64N(int64(168 * time.Hour))))
		counted(w, fmt.Sprintf("registry.example/flood-%d:%x", i, random.Uint64()), at, 1, 1)
	}
	now := monday.Add(84 * time.Hour)
	require.Equal(t, "registry.example/important:v1", w.Rank(now)[0].Image)
	data, err := w.Encode(now)
	require.NoError(t, err)
	require.Less(t, len(data), 64<<10, "what is stored stays small")
	require.LessOrEqual(t, len(w.Rank(now)), learn.MaxImages)
}

func TestEncodeSurvivesARestart(t *testing.T) {
	w := learn.New(168 * time.Hour)
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		image := fmt.Sprintf("app-%d", random.IntN(40))
		w.Count(learn.Start{Image: image, At: monday.Add(time.Duration(random.Int64N(int64(100 * time.Hour)))), First: random.IntN(3) == 0})
		w.Measured(image, random.Int64N(500*mib))
	}
	now := monday.Add(100 * time.Hour)
	data, err := w.Encode(now)
	require.NoError(t, err)

	back, err := learn.Decode(data, 168*time.Hour)
	require.NoError(t, err)
	require.Equal(t, w.Rank(now), back.Rank(now))
	require.True(t, w.Through().Equal(back.Through()))
	again, err := back.Encode(now)
	require.NoError(t, err)
	require.Equal(t, data, again, "the same content is the same bytes: an idle controller writes nothing")
}

func TestDecodeFitsAWindowOfAnotherLength(t *testing.T) {
	w := learn.New(168 * time.Hour)
	counted(w, "app", monday, 5, 3)
	counted(w, "old", monday.Add(-100*time.Hour), 5, 3)
	data, err := w.Encode(monday)
	require.NoError(t, err)
	shorter, err := learn.Decode(data, 24*time.Hour)
	require.NoError(t, err)
	require.Equal(t, []string{"app"}, names(shorter.Rank(monday)))
	longer, err := learn.Decode(data, 336*time.Hour)
	require.NoError(t, err)
	require.Equal(t, []string{"app", "old"}, names(longer.Rank(monday)))
	require.Equal(t, int64(5), longer.Rank(monday)[0].Starts)
}

func TestDecodeStartsAfreshOnWhatIsNoWindow(t *testing.T) {
	other := learn.New(time.Hour)
	counted(other, "app", monday, 1, 1)
	good, err := other.Encode(monday)
	require.NoError(t, err)
	cases := map[string]struct {
		data    []byte
		wantErr string
	}{
		"nothing stored yet": {},
		"not gzip":           {data: []byte("hello"), wantErr: "decompress window"},
		"cut short":          {data: good[:len(good)/2], wantErr: "decode window"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w, err := learn.Decode(tc.data, time.Hour)
			if tc.wantErr == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.wantErr)
			}
			require.Empty(t, w.Rank(monday))
			counted(w, "app", monday, 1, 1)
			require.Len(t, w.Rank(monday), 1, "the window goes on")
		})
	}
}

func TestWriteTable(t *testing.T) {
	w := learn.New(168 * time.Hour)
	counted(w, "model:v1", monday, 3, 3)
	w.Measured("model:v1", 8000*mib+12345)
	counted(w, "web:v1", monday, 3, 0)
	var out bytes.Buffer
	require.NoError(t, learn.WriteTable(&out, w.Rank(monday), 1))
	require.Equal(t, strings.Join([]string{
		"   IMAGE     STARTS  PULLS  SIZE    SAVED",
		"*  model:v1  3       3      8000Mi  24000Mi",
		"   web:v1    3       0      ?       ?",
		"",
	}, "\n"), out.String())

	counted(w, "111122223333.dkr.ecr.ap-southeast-2.amazonaws.com/shop/backend/web:v1@sha256:"+strings.Repeat("0123456789abcdef", 4), monday, 9, 9)
	out.Reset()
	require.NoError(t, learn.WriteTable(&out, w.Rank(monday), 1))
	require.Contains(t, out.String(), "…/shop/backend/web:v1@sha256:0123456789ab  9 ")
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 101, line)
	}
}
