package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is what one size measured.
type result struct {
	nodes, rules int

	self, selfDone, flips, release time.Duration
	wave, watch, paced             []time.Duration
	inside                         time.Duration
	waveCPU, cpu                   time.Duration
	peak, restartPeak              int64
	requests                       requestCounts
	restart                        time.Duration
	restartWrites                  int
}

// The bars.
const (
	maxRatio        = 1.15
	maxPacedP99     = 30 * time.Millisecond
	maxNodePatches  = 1.02
	maxOtherWrites  = 0.02
	maxPeak         = 120 << 20
	maxRestart      = 5 * time.Second
	saturatingNodes = 1000
	largeFleet      = 5000
)

// print shows the figures with their bars and says whether all were met.
func (r *result) print(w io.Writer) bool {
	n := float64(r.nodes)
	patches := float64(r.requests["nodes"]) / n
	var others int
	for resource, count := range r.requests {
		if resource != "nodes" && resource != "nodes/status" {
			others += count
		}
	}
	ratio := r.release.Seconds() / r.flips.Seconds()
	fmt.Fprintf(w, "\n%d nodes, %d rules\n", r.nodes, r.rules)
	ok := true
	line := func(name, value string, met, barred bool, bar string) {
		verdict := ""
		if barred {
			verdict = "  (bar " + bar + ": met)"
			if !met {
				verdict, ok = "  (bar "+bar+": MISSED)", false
			}
		}
		fmt.Fprintf(w, "  %-38s %12s%s\n", name, value, verdict)
	}
	line("writers untaint by themselves", seconds(r.self), true, false, "")
	line("of it until the last answer", seconds(r.selfDone), true, false, "")
	line("flips", seconds(r.flips), true, false, "")
	line("last taint gone", seconds(r.release), r.release <= r.self, true, "<= writers by themselves")
	line("ratio to flips", fmt.Sprintf("%.3f", ratio), ratio <= maxRatio, r.nodes >= saturatingNodes, fmt.Sprintf("%.2f", maxRatio))
	line("flip to release p50 / p99", seconds(quantile(r.wave, 0.5))+" / "+seconds(quantile(r.wave, 0.99)), true, false, "")
	line("flip to flip seen p50 / p99", seconds(quantile(r.watch, 0.5))+" / "+seconds(quantile(r.watch, 0.99)), true, false, "")
	line("of it from the controller's seeing it", seconds(r.inside)+" mean", true, false, "")
	if len(r.paced) > 0 {
		p99 := quantile(r.paced, 0.99)
		line("at 50 a second p50 / p99", seconds(quantile(r.paced, 0.5))+" / "+seconds(p99), p99 < maxPacedP99, true, maxPacedP99.String())
	}
	line("node patches a node", fmt.Sprintf("%.3f", patches), patches <= maxNodePatches, true, fmt.Sprint(maxNodePatches))
	line("other mutating requests a node", fmt.Sprintf("%.3f", float64(others)/n), float64(others)/n <= maxOtherWrites, r.nodes >= saturatingNodes, fmt.Sprint(maxOtherWrites))
	line("mutating requests", r.requests.String(), true, false, "")
	line("controller CPU in the wave / in all", seconds(r.waveCPU)+" / "+seconds(r.cpu), true, false, "")
	line("controller peak memory", mebibytes(r.peak), r.peak < maxPeak, r.nodes >= largeFleet, mebibytes(maxPeak))
	line("restart: ready after", seconds(r.restart), r.restart < maxRestart, true, maxRestart.String())
	line("restart: node writes", strconv.Itoa(r.restartWrites), r.restartWrites == 0, true, "0")
	line("restart: peak memory", mebibytes(r.restartPeak), r.restartPeak < maxPeak, r.nodes >= largeFleet, mebibytes(maxPeak))
	return ok
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }

func mebibytes(b int64) string { return fmt.Sprintf("%.1fMiB", float64(b)/(1<<20)) }

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// requestCounts are mutating requests by resource.
type requestCounts map[string]int

func (c requestCounts) since(before requestCounts) requestCounts {
	out := requestCounts{}
	for k, v := range c {
		if d := v - before[k]; d > 0 {
			out[k] = d
		}
	}
	return out
}

// String lists the resources by name.
func (c requestCounts) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, c[k]))
	}
	return strings.Join(parts, ", ")
}

// requests reads the API server's own count of mutating requests; those of its own leases and services are left out.
func (b *bench) requests(ctx context.Context) (requestCounts, error) {
	text, err := b.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	out := requestCounts{}
	for line := range strings.Lines(string(text)) {
		labels, ok := strings.CutPrefix(line, "apiserver_request_total{")
		if !ok {
			continue
		}
		labels, value, ok := strings.Cut(labels, "} ")
		verb, resource, sub := label(labels, "verb"), label(labels, "resource"), label(labels, "subresource")
		if !ok || !slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE"}, verb) || resource == "leases" {
			continue
		}
		if sub != "" {
			resource += "/" + sub
		}
		count, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return nil, err
		}
		out[resource] += int(count)
	}
	return out, nil
}

func label(labels, name string) string {
	_, rest, ok := strings.Cut(labels, name+`="`)
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
