package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"headstart.dev/test/boot"
)

const missing = "-"

// compare prints both boots as a table: when each thing happened, and at the end what a pod's owner feels.
func compare(out io.Writer, plain, headstart *boot.Result) {
	const row = "  %-36s %10s %12s\n"
	fmt.Fprintf(out, row, "", "without", "with")
	for _, mark := range boot.Marks() {
		fmt.Fprintf(out, row, mark, seconds(plain, mark), seconds(headstart, mark))
	}
	fmt.Fprintf(out, "  %s\n", strings.Repeat("-", 60))
	fmt.Fprintf(out, row, "pod scheduled to Running", took(plain), took(headstart))
	fmt.Fprintf(out, row, "image pulled and unpacked in", fmt.Sprintf("%.1f", pullTime(plain, boot.PodScheduled).Seconds()),
		fmt.Sprintf("%.1f", pullTime(headstart, boot.AgentStarted).Seconds()))
	fmt.Fprintf(out, row, "image bytes after scheduling", after(plain), after(headstart))
	fmt.Fprintf(out, "\n  kubelet without: %s\n  kubelet with:    %s\n", plain.PullEvent, headstart.PullEvent)
	gain := plain.At[boot.PodRunning] - headstart.At[boot.PodRunning]
	fmt.Fprintf(out, "\n  The pod ran %.1f s %s with Headstart.\n", gain.Abs().Seconds(), sign(gain))
}

func sign(gain time.Duration) string {
	if gain < 0 {
		return "LATER"
	}
	return "earlier"
}

// seconds is the time of a mark, or a dash when it did not happen.
func seconds(result *boot.Result, mark boot.Mark) string {
	at, seen := result.At[mark]
	if !seen {
		return missing
	}
	return fmt.Sprintf("%.1f", at.Seconds())
}

// took is the time from the pod's scheduling to its running.
func took(result *boot.Result) string {
	return fmt.Sprintf("%.1f", (result.At[boot.PodRunning] - result.At[boot.PodScheduled]).Seconds())
}

// after says whether the image came down after the pod was scheduled, which is when it costs.
func after(result *boot.Result) string {
	if result.At[boot.ImageOnNode] < result.At[boot.PodScheduled] {
		return "0 MiB"
	}
	return fmt.Sprintf("%d MiB", result.PulledBytes>>20)
}

// showSteering places one pod twice, where the warm node is busy and a cold one is free, and shows both side by side.
func showSteering(ctx context.Context, out io.Writer, cluster *boot.Cluster) error {
	fmt.Fprintf(out, "\n%s\n", title("The same pod steered and unsteered: one node is warm but busy, the other free but cold"))
	steering, err := cluster.Steer(ctx, func(format string, args ...any) { fmt.Fprintf(out, "          "+format+"\n", args...) })
	if err != nil {
		return err
	}
	const row = "  %-28s %16s %16s\n"
	took := func(p boot.Placed) string { return fmt.Sprintf("%.1f s", p.Start.Seconds()) }
	fmt.Fprintln(out)
	fmt.Fprintf(out, row, "", "unsteered", "steered")
	fmt.Fprintf(out, row, "runs on", steering.Unsteered.Node, steering.Steered.Node)
	fmt.Fprintf(out, row, "pod scheduled to Running", took(steering.Unsteered), took(steering.Steered))
	fmt.Fprintf(out, "\n  kubelet of the unsteered: %s\n  kubelet of the steered:   %s\n", steering.Unsteered.PullEvent, steering.Steered.PullEvent)
	return steering.Check()
}

func title(text string) string { return "== " + text }

// stamped prefixes each write, which is one line, with the seconds since start.
func stamped(out io.Writer, start time.Time) io.Writer { return stampedWriter{out, start} }

type stampedWriter struct {
	out   io.Writer
	start time.Time
}

func (w stampedWriter) Write(line []byte) (int, error) {
	if _, err := fmt.Fprintf(w.out, "%6.1f s  %s", time.Since(w.start).Seconds(), line); err != nil {
		return 0, err
	}
	return len(line), nil
}
