package inspect

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"headstart.dev/internal/columns"
	"headstart.dev/readiness"
)

// ruleState is short for what a rule says of a node.
type ruleState = readiness.Explanation

func parseTaint(text string) corev1.Taint {
	var taint corev1.Taint
	rest, effect, _ := strings.Cut(text, ":")
	taint.Key, taint.Value, _ = strings.Cut(rest, "=")
	taint.Effect = corev1.TaintEffect(effect)
	return taint
}

// when says a time as a distance: "in 40s (12:00:40)" or "40s ago (12:00:40)".
func when(at, now time.Time) string {
	clock := at.Local().Format(time.TimeOnly)
	if distance := at.Sub(now).Round(time.Second); distance > 0 {
		return fmt.Sprintf("in %s (%s)", distance, clock)
	}
	return fmt.Sprintf("%s ago (%s)", now.Sub(at).Round(time.Second), clock)
}

// age says a length as kubectl does.
func age(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(now.Sub(since), 0))
}

func (i Images) short() string {
	if !i.Known {
		return "-"
	}
	out := fmt.Sprint(i.Warm)
	if i.Lazy > 0 {
		out += fmt.Sprintf("+%d lazy", i.Lazy)
	}
	return out
}

// writeNotice says first what the rest hangs on.
func writeNotice(out *strings.Builder, notice string) {
	if notice != "" {
		fmt.Fprintf(out, "%s\n\n", strings.Join(columns.Wrap(notice, columns.Width), "\n"))
	}
}

// WriteNode explains one node.
func WriteNode(w io.Writer, n *Node, now time.Time) error {
	var out strings.Builder
	writeNotice(&out, n.Notice)
	fmt.Fprintf(&out, "node/%s: %s, %s old\n", n.Name, n.State, age(n.Created, now))
	for _, e := range n.Rules {
		fmt.Fprintf(&out, "\nrule %s (%s): %s\n", e.Rule, e.Form, e.State)
		if e.DryRun {
			out.WriteString("  dry run: it would, and does nothing\n")
		}
		fmt.Fprintf(&out, "  taint     %s, %s\n", e.Taint, map[bool]string{true: "on the node", false: "not on the node"}[e.Tainted])
		if !e.Since.IsZero() {
			fmt.Fprintf(&out, "  held      since %s\n", when(e.Since, now))
		}
		for _, reason := range e.Reasons {
			fmt.Fprintf(&out, "  waits for %s\n", reason.Message)
		}
		if !e.Deadline.IsZero() {
			fmt.Fprintf(&out, "  deadline  %s, then %s\n", when(e.Deadline, now), e.OnTimeout)
		}
		if e.Overdue {
			fmt.Fprintf(&out, "  deadline  has passed; onTimeout %s\n", e.OnTimeout)
		}
	}
	if len(n.Rules) == 0 {
		out.WriteString("no NodeReadinessRule governs it: nothing of Headstart holds it\n")
	}
	for _, taint := range n.Taints {
		if slices.Contains(n.Unclaimed, taint) {
			fmt.Fprintf(&out, "\ntaint %s is named by no rule, so nothing takes it off: kubectl taint node %s %s-\n  and take it out of startupTaints of the NodePool that it comes from, or make a rule with it\n",
				taint, n.Name, withoutValue(taint))
			continue
		}
		fmt.Fprintf(&out, "\ntaint %s belongs to no rule: somebody else takes it off\n", taint)
	}
	if n.Images.Known {
		fmt.Fprintf(&out, "\nimages    %s warm%s\n", n.Images.short(), n.Images.chosen())
	}
	if len(n.Conditions) == 0 {
		out.WriteString("\nno agent has published anything on it\n")
	}
	for _, c := range n.Conditions {
		fmt.Fprintf(&out, "\n%s %s, %s: %s\n  %s", c.Type, c.Status, age(c.Since, now), c.Reason, c.Message)
	}
	_, err := io.WriteString(w, strings.TrimRight(out.String(), "\n")+"\n")
	return err
}

// withoutValue is the taint as kubectl takes it off: key:effect.
func withoutValue(taint string) string {
	t := parseTaint(taint)
	return readiness.TaintID(&t)
}

// chosen says how images are pulled there: ", pulled by direct into overlayfs of containerd 2.2.4".
func (i Images) chosen() string {
	var out strings.Builder
	for _, part := range []struct{ word, value string }{{" by ", strings.Join(i.Engines, ", ")}, {" into ", i.Snapshotter}, {" of ", i.Runtime}} {
		if part.value != "" {
			out.WriteString(part.word + part.value)
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return ", pulled" + out.String()
}

// writeWarm says where the pod's images are.
func (p *PodReport) writeWarm(out *strings.Builder) {
	if p.Warm == nil {
		return
	}
	var nodes []string
	for _, n := range p.Warm.Nodes {
		if n.Full {
			n.Name += " (full)"
		}
		nodes = append(nodes, n.Name)
	}
	if len(nodes) > 0 {
		fmt.Fprintf(out, "\nwarm nodes, all of its images are there and it could run: %s\n", some(nodes))
	} else {
		out.WriteString("\nno node where it could run has all of its images\n")
	}
	for _, image := range p.Warm.Images {
		if len(image.Nodes) == 0 {
			fmt.Fprintf(out, "  image %s is warm nowhere\n", clean(image.Image))
			continue
		}
		fmt.Fprintf(out, "  image %s is warm on %d nodes: %s\n", clean(image.Image), len(image.Nodes), some(image.Nodes))
	}
	if len(p.Pulling) > 0 {
		fmt.Fprintf(out, "  agents are asked to fetch them on: %s\n", some(p.Pulling))
	}
}

// counted says how many nodes are.
func counted(nodes int) string {
	if nodes == 1 {
		return "1 node is"
	}
	return fmt.Sprintf("%d nodes are", nodes)
}

// some joins the first few names.
func some(names []string) string {
	const most = 5
	out := strings.Join(names[:min(len(names), most)], ", ")
	if more := len(names) - most; more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}

// WritePod explains one pod.
func WritePod(w io.Writer, p *PodReport, now time.Time) error {
	var out strings.Builder
	writeNotice(&out, p.Notice)
	fmt.Fprintf(&out, "pod/%s in %s: %s, %s old\n", p.Name, p.Namespace, p.State, age(p.Created, now))
	if p.State == PodScheduled {
		fmt.Fprintf(&out, "it is on node %s; nothing of Headstart holds it\n", p.Node)
	}
	for i := range p.Gates {
		g := &p.Gates[i]
		fmt.Fprintf(&out, "\ngate %s\n  since %s\n  %s\n", g.Name, when(g.Since, now), g.Describe(now))
		for _, missing := range g.Missing {
			fmt.Fprintf(&out, "  waits for: %s\n", missing)
		}
		if g.Policy != "" && g.Error == "" {
			fmt.Fprintf(&out, "  %s\n", g.Next)
		}
	}
	p.writeWarm(&out)
	if p.Scheduler != "" {
		fmt.Fprintf(&out, "\nthe scheduler says: %s\n", p.Scheduler)
	}
	if len(p.HeldNodes) > 0 {
		fmt.Fprintf(&out, "\n%s held behind a startup taint that it does not tolerate: %s\n", counted(len(p.HeldNodes)), some(p.HeldNodes))
		out.WriteString("  see: kubectl headstart why node/" + p.HeldNodes[0] + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}
