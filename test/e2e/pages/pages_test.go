// Package pages_test looks at the pages that we draw with a real browser, at the width of a phone.
package pages_test

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/timeline"
	"headstart.dev/gates/warmpool"
	"headstart.dev/gates/warmpool/plan"
	"headstart.dev/gates/warmpool/trace"
	"headstart.dev/test/testenv"
)

const (
	phone = 420
	// browserTimeout covers the first start of a browser on a busy machine.
	browserTimeout = 2 * time.Minute
)

// measured is what the browser says of a page.
type measured struct {
	// Width is what the page takes: more than the window's is a page that has to be moved sideways.
	Width int
	// Broken are words that are cut over two lines.
	Broken []string
	// Overlaps are pairs of texts of a drawing or an axis that lie on each other.
	Overlaps []string
	// Shown says that there is a mark of the axis to be seen.
	Shown bool
}

// measure is run in the page. A word is what stands between spaces and places at which the page allows a break.
const measure = `
const out = {Width: doc.documentElement.scrollWidth, Broken: [], Overlaps: [], Shown: false};
const walker = doc.createTreeWalker(doc.body, 4);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  if (['STYLE', 'SCRIPT', 'TITLE', 'title'].includes(node.parentNode.nodeName)) continue;
  for (const word of node.data.matchAll(/[^\s-]+-?/g)) {
    const range = doc.createRange();
    range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
    const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
    if (lines.size > 1) out.Broken.push(word[0]);
  }
}
for (const drawing of doc.querySelectorAll('svg, .axis')) {
  const texts = [...drawing.querySelectorAll('text, span')].map(e => [e.textContent, e.getBoundingClientRect()]).filter(([, r]) => r.width > 0);
  if (texts.length) out.Shown = true;
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [a, b] = [texts[i][1], texts[j][1]];
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
      out.Overlaps.push(texts[i][0] + ' | ' + texts[j][0]);
  }
}
document.getElementById('out').textContent = JSON.stringify(out);`

var answer = regexp.MustCompile(`<pre id="out">(.*?)</pre>`)

// browserStarts is how often a browser is started for one page: on a machine that is short of time it may abort by itself.
const browserStarts = 3

// look draws a page in a frame of a width, in a real browser.
func look(t *testing.T, width int, draw func(io.Writer) error) measured {
	t.Helper()
	browser, err := exec.LookPath("chromium")
	if err != nil {
		testenv.Skip(t, "needs chromium")
	}
	var page strings.Builder
	require.NoError(t, draw(&page))
	frame := fmt.Sprintf(`<!doctype html><body><iframe id="f" width="%d" height="2000" style="border:0" srcdoc="%s"></iframe><pre id="out"></pre>
<script>document.getElementById('f').onload = e => { const doc = e.target.contentDocument; %s };</script>`, width, html.EscapeString(page.String()), measure)
	dir := t.TempDir()
	file := filepath.Join(dir, "frame.html")
	require.NoError(t, os.WriteFile(file, []byte(frame), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), browserTimeout)
	defer cancel()
	var dom []byte
	for range browserStarts {
		cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
			"--user-data-dir="+t.TempDir(), "--virtual-time-budget=5000", "--dump-dom", "file://"+file)
		if dom, err = cmd.Output(); err == nil {
			break
		}
		t.Logf("%s: %v", browser, err)
	}
	require.NoError(t, err)
	found := answer.FindSubmatch(dom)
	require.NotNil(t, found, "the page was not measured")
	var out measured
	require.NoError(t, json.Unmarshal([]byte(html.UnescapeString(string(found[1]))), &out))
	return out
}

func TestTheTimelineOnAPhone(t *testing.T) {
	zero := time.Date(2026, 11, 2, 8, 30, 0, 0, time.UTC)
	after := func(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }
	boot := timeline.Timeline{Node: "ip-100-150-123-145.ap-southeast-2.compute.internal", BootID: "8c1c8f2e-9f57-4f0b-a3f2-7d9b6f0a1c2d", Until: after(40)}
	boot.Add(timeline.Phase{Name: timeline.Kernel, Start: after(0), End: after(4)})
	boot.Add(timeline.Phase{
		Name: timeline.Image, Start: after(6), End: after(19),
		Detail: "111122223333.dkr.ecr.ap-southeast-2.amazonaws.com/shop/backend/web-application:v1.2.3@sha256:" + strings.Repeat("0123456789abcdef", 4),
		Stages: []timeline.Stage{{Name: "resolve", Seconds: 0.031}, {Name: "fetch", Seconds: 9.5}, {Name: "inflate", Seconds: 6.25}, {Name: "commit", Seconds: 0.2}},
	})
	boot.Add(timeline.Phase{Name: timeline.Probe, Detail: "DaemonSetReady.kube-system.ebs-csi-node", Start: after(6)})
	boot.Add(timeline.Phase{Name: "pod", Detail: "shop-production/web-application-7d4b9c6f5d-x2x9z", Start: after(21), State: "CreateContainerConfigError"})
	boot.Add(timeline.Phase{Name: timeline.Published, Start: after(20), End: after(20)})
	for _, width := range []int{320, phone, 1200} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			got := look(t, width, boot.WriteHTML)
			require.LessOrEqual(t, got.Width, width, "nothing is cut off")
			require.Empty(t, got.Broken, "words stay whole")
			require.Empty(t, got.Overlaps)
			require.True(t, got.Shown, "the axis is there")
		})
	}
}

func TestThePlanOnAPhone(t *testing.T) {
	for _, kind := range []string{"daily", "batch"} {
		demand, err := trace.Generate(kind)
		require.NoError(t, err)
		report, err := plan.Run(plan.Input{
			Pool: "web", Source: "trace:" + kind, Shows: trace.Shows(kind), Demand: demand, CostPerReplicaHour: 0.15,
			Config: warmpool.Config{Min: 12, Max: 12}, // costs what the fixed pool costs: the labels would lie on each other
			Model:  plan.Model{Lead: 90 * time.Second, WarmStart: 2 * time.Second, Linger: 30 * time.Second, Step: 5 * time.Minute},
		})
		require.NoError(t, err)
		for _, width := range []int{phone, 1200} {
			t.Run(fmt.Sprint(kind, width), func(t *testing.T) {
				got := look(t, width, report.WriteHTML)
				require.LessOrEqual(t, got.Width, width, "nothing is cut off")
				require.Empty(t, got.Broken, "words stay whole")
				require.Empty(t, got.Overlaps)
			})
		}
	}
}
