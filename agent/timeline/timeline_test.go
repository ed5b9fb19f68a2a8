package timeline_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/timeline"
)

var zero = time.Date(2026, 11, 2, 8, 30, 0, 0, time.UTC)

func after(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }

func boot() timeline.Timeline {
	t := timeline.Timeline{Node: "node-1", BootID: "b"}
	t.Add(timeline.Phase{Name: timeline.Image, Detail: "docker.io/library/web:v1", Start: after(2), End: after(8)})
	t.Add(timeline.Phase{Name: timeline.Kernel, Start: after(0), End: after(1.5)})
	t.Add(timeline.Phase{Name: timeline.Registered, Start: after(7), End: after(7)})
	t.Add(timeline.Phase{Name: timeline.Probe, Detail: "cni", Start: after(2)})
	return t
}

func TestCompactComesBack(t *testing.T) {
	text, err := boot().Compact()
	require.NoError(t, err)
	parsed, err := timeline.Parse(text)
	require.NoError(t, err)
	require.Equal(t, boot(), parsed)
}

func TestCompactStaysWithinItsBound(t *testing.T) {
	b := boot()
	for i := range 500 {
		b.Add(timeline.Phase{Name: timeline.Image, Detail: fmt.Sprintf("registry.example/%s/image-%d:v1", strings.Repeat("long/", 30), i), Start: after(2), End: after(2 + float64(i)/1000)})
	}
	text, err := b.Compact()
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), timeline.MaxCompactBytes)
	parsed, err := timeline.Parse(text)
	require.NoError(t, err)
	_, kernel := parsed.Find(timeline.Kernel, "")
	require.True(t, kernel, "the phases of the boot itself stay")
	_, longest := parsed.Find(timeline.Image, "docker.io/library/web:v1")
	require.True(t, longest, "the longest pull stays")
	require.Contains(t, text, `"more":`)
}

// staged is a boot whose image says where its time went.
func staged(images int) timeline.Timeline {
	b := boot()
	for i := range images {
		b.Add(timeline.Phase{
			Name: timeline.Image, Detail: fmt.Sprintf("registry.example/image-%d:v1", i), Start: after(2), End: after(3 + float64(i)),
			Stages: []timeline.Stage{{Name: "resolve", Seconds: 0.031}, {Name: "fetch", Seconds: 4.5}, {Name: "inflate", Seconds: 2.25}, {Name: "commit", Seconds: 0.2}},
		})
	}
	return b
}

func TestStagesComeBackFromTheAnnotation(t *testing.T) {
	text, err := staged(2).Compact()
	require.NoError(t, err)
	parsed, err := timeline.Parse(text)
	require.NoError(t, err)
	require.Equal(t, staged(2), parsed)
}

func TestStagesLeaveTheAnnotationBeforePullsDo(t *testing.T) {
	text, err := staged(25).Compact()
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), timeline.MaxCompactBytes)
	require.NotContains(t, text, `"more":`, "all pulls fit without their stages")
	parsed, err := timeline.Parse(text)
	require.NoError(t, err)
	require.Len(t, parsed.Phases, len(staged(25).Phases))
	longest, _ := parsed.Find(timeline.Image, "registry.example/image-24:v1")
	require.NotEmpty(t, longest.Stages, "the longest pull explains most")
	shortest, _ := parsed.Find(timeline.Image, "registry.example/image-0:v1")
	require.Empty(t, shortest.Stages)
}

func TestStagesAreDrawn(t *testing.T) {
	const line = "of it resolve 0.031s, fetch 4.500s, inflate 2.250s, commit 0.200s"
	var text, page bytes.Buffer
	require.NoError(t, staged(1).WriteText(&text))
	require.Contains(t, text.String(), "\n  "+line+"\n")
	require.NoError(t, staged(1).WriteHTML(&page))
	require.Contains(t, page.String(), line)
}

func TestRecorderTakesTheStagesWithTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "timeline.json")
	r := timeline.NewRecorder(path, "node-1", "b")
	ended, _ := staged(1).Find(timeline.Image, "registry.example/image-0:v1")
	require.NotEmpty(t, ended.Stages)
	r.Record(timeline.Phase{Name: ended.Name, Detail: ended.Detail, Start: ended.Start})
	r.Record(ended)
	require.NoError(t, r.Save())
	loaded, err := timeline.Load(path)
	require.NoError(t, err)
	require.Equal(t, []timeline.Phase{ended}, loaded.Phases)
}

func TestParseRefusesWhatNoAgentWrites(t *testing.T) {
	for name, text := range map[string]string{
		"too long":             strings.Repeat(" ", timeline.MaxCompactBytes+1),
		"no JSON":              "{",
		"a start in 300 years": `{"zero":"2026-11-02T08:30:00Z","phases":[{"name":"kernel","start":1e10}]}`,
		"a stage below zero":   `{"zero":"2026-11-02T08:30:00Z","phases":[{"name":"image","start":1,"stages":[{"name":"fetch","seconds":-1}]}]}`,
		"a stage of 300 years": `{"zero":"2026-11-02T08:30:00Z","phases":[{"name":"image","start":1,"stages":[{"name":"fetch","seconds":1e10}]}]}`,
		"an end before start":  `{"zero":"2026-11-02T08:30:00Z","phases":[{"name":"kernel","start":2,"end":1}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := timeline.Parse(text)
			require.ErrorContains(t, err, "parse timeline")
		})
	}
}

func TestParseKeepsControlCharactersFromTheTerminal(t *testing.T) {
	parsed, err := timeline.Parse(`{"node":"a\u001b[2J","zero":"2026-11-02T08:30:00Z","phases":[{"name":"k\u0007","detail":"\u009bx\n","start":0}]}`)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, parsed.WriteText(&out))
	require.NotContains(t, out.String(), "\x1b")
	require.NotContains(t, out.String(), "\x07")
	require.NotContains(t, out.String(), "\u009b")
}

func TestWriteText(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, boot().WriteText(&out))
	require.Equal(t, `node node-1, from 2026-11-02T08:30:00Z, 8.000s in all
phase                              start     took  |0s       |2s       |4s      |6s
kernel                            0.000s   1.500s  ========
probe cni                         2.000s  running            =============================>
image docker.io/library/web:v1    2.000s   6.000s            ==============================
registered                        7.000s        -                                    |
`, out.String())
}

// ecr is a reference as pods of a deployed application have it.
func ecr(image string) string {
	return "111122223333.dkr.ecr.ap-southeast-2.amazonaws.com/shop/backend/" + image + ":v1.2.3@sha256:" + strings.Repeat("0123456789abcdef", 4)
}

func TestNoLineIsWiderThanAHundredColumns(t *testing.T) {
	b := staged(3)
	b.Node = strings.Repeat("n", 253)
	b.Add(timeline.Phase{Name: timeline.Image, Detail: ecr("web"), Start: after(2), End: after(400)})
	b.Add(timeline.Phase{Name: timeline.Image, Detail: ecr(strings.Repeat("w", 120)), Start: after(2), End: after(40_000)})
	b.Add(timeline.Phase{Name: timeline.Name(strings.Repeat("x", 120)), Detail: "d", Start: after(2), State: strings.Repeat("Backing", 9)})
	b.Phases[1].Stages = []timeline.Stage{{Name: strings.Repeat("s", 150), Seconds: 1}}
	var out bytes.Buffer
	require.NoError(t, b.WriteText(&out))
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSpace(line)), 100, line)
	}
	require.Contains(t, out.String(), "/web:v1.2.3@sha256:0123456789ab ", "what tells images apart stays")
	require.NotContains(t, out.String(), "0123456789abcdef")
}

func TestWhatKeepsAPhaseIsSaid(t *testing.T) {
	b := boot()
	b.Add(timeline.Phase{Name: "pod", Detail: "shop/web", Start: after(7.5), State: "ImagePullBackOff"})
	var text, page bytes.Buffer
	require.NoError(t, b.WriteText(&text))
	require.Regexp(t, `pod shop/web +7\.500s +ImagePullBackOff +=*>`, text.String())
	require.NoError(t, b.WriteHTML(&page))
	require.Contains(t, page.String(), "from 7.500s, ImagePullBackOff")
}

// A pull that lasts for an hour must not squeeze a boot of 8 s into a line.
func TestADrawingEndsWhereItIsTold(t *testing.T) {
	b := boot()
	b.Add(timeline.Phase{Name: "pod", Detail: "shop/slow", Start: after(8), End: after(3608)})
	var squeezed, text, page bytes.Buffer
	require.NoError(t, b.WriteText(&squeezed))
	require.Contains(t, squeezed.String(), "|30m")
	b.Until = after(16)
	require.NoError(t, b.WriteText(&text))
	require.Contains(t, text.String(), "|10s")
	require.Regexp(t, `image docker.io/library/web:v1 +2\.000s +6\.000s +={10,}\n`, text.String())
	require.Regexp(t, `pod shop/slow +8\.000s +3600s +=+>`, text.String(), "its length is told as it is")
	require.NoError(t, b.WriteHTML(&page))
	require.Contains(t, page.String(), "of which the first 16.000s are drawn")
	b.Until = after(1e6)
	text.Reset()
	require.NoError(t, b.WriteText(&text))
	require.Equal(t, squeezed.String(), text.String(), "it never ends later than all that is known")
}

func TestThePageHasAnAxis(t *testing.T) {
	var page bytes.Buffer
	require.NoError(t, boot().WriteHTML(&page))
	for _, mark := range []string{`<span style="left:0.00%">0s</span>`, `<span style="left:25.00%">2s</span>`, `<span class="last" style="left:100.00%">8s</span>`} {
		require.Contains(t, page.String(), mark)
	}
	require.Contains(t, page.String(), "docker.<wbr>io/<wbr>library/<wbr>web:<wbr>v1", "lines break between words")
}

func TestWriteHTMLEscapesWhatANodeSays(t *testing.T) {
	b := boot()
	b.Add(timeline.Phase{Name: timeline.Image, Detail: "<script>alert(1)</script>", Start: after(3), End: after(4)})
	var out bytes.Buffer
	require.NoError(t, b.WriteHTML(&out))
	require.Contains(t, out.String(), "Boot of node-1")
	require.NotContains(t, out.String(), "<script>alert")
}

func TestRecorderKeepsTheFirstTimes(t *testing.T) {
	r := timeline.NewRecorder(filepath.Join(t.TempDir(), "timeline.json"), "node-1", "b")
	r.Record(timeline.Phase{Name: timeline.Images, Start: after(1)})
	r.Record(timeline.Phase{Name: timeline.Images, Start: after(5), End: after(6)})
	r.Record(timeline.Phase{Name: timeline.Images, Start: after(7), End: after(9)})
	got, ok := r.Timeline().Find(timeline.Images, "")
	require.True(t, ok)
	require.Equal(t, timeline.Phase{Name: timeline.Images, Start: after(1), End: after(6)}, got)
}

func TestRecorderGoesOnWhereAKilledAgentWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "timeline.json")
	first := timeline.NewRecorder(path, "node-1", "b")
	first.Record(timeline.Phase{Name: timeline.Agent, Start: after(1), End: after(1)})
	require.NoError(t, first.Save())

	require.Len(t, timeline.NewRecorder(path, "node-1", "b").Timeline().Phases, 1)
	require.Empty(t, timeline.NewRecorder(path, "node-1", "another boot").Timeline().Phases)
	require.Empty(t, timeline.NewRecorder(path, "another-node", "b").Timeline().Phases)
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary file is left")
}

func TestProcessStartIsBetweenTheBootAndNow(t *testing.T) {
	kernel, err := timeline.KernelStart()
	require.NoError(t, err)
	self, err := timeline.ProcessStart(os.Getpid())
	require.NoError(t, err)
	require.True(t, self.After(kernel))
	require.False(t, self.After(time.Now()))
	_, err = timeline.ProcessStart(1 << 30)
	require.Error(t, err)
}

func FuzzParse(f *testing.F) {
	text, err := boot().Compact()
	require.NoError(f, err)
	f.Add(text)
	f.Add(`{"zero":"2026-11-02T08:30:00Z","phases":[{"name":"kernel","start":-1e300}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := timeline.Parse(text)
		if err != nil {
			return
		}
		var out bytes.Buffer
		require.NoError(t, parsed.WriteText(&out))
		require.NoError(t, parsed.WriteHTML(&out))
		again, err := parsed.Compact()
		require.NoError(t, err)
		require.LessOrEqual(t, len(again), timeline.MaxCompactBytes)
	})
}
