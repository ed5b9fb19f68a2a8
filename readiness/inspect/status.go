package inspect

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/internal/columns"
	"headstart.dev/readiness"
)

// NodeList is how a list of nodes is printed as JSON and YAML.
type NodeList struct {
	// Notice says that no controller is alive; absent where one is.
	Notice string `json:"notice,omitempty"`
	Items  []Node `json:"items"`
}

// List makes a list of the reports.
func (v View) List(nodes []Node) NodeList {
	return NodeList{Notice: v.Notice(), Items: append([]Node{}, nodes...)}
}

// Held are those of the nodes that are held.
func Held(nodes []Node) []Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return n.State != readiness.StateHeld })
}

// wideColumns are the conditions that the wide form shows in columns of their own.
var wideColumns = []struct{ title, condition string }{
	{"CNI", readiness.ConditionCNIReady},
	{"CSI", readiness.ConditionCSIReady},
	{"GPU", readiness.ConditionGPUReady},
	{"IMAGES", readiness.ConditionImagesReady},
}

// StatusTable has one row a node, at most columns.Width wide: how many of its conditions are True, which are not, and what
// it waits for. A name of EC2 is shown whole, whatever else the row holds. The wide form has everything, at any width.
func (v View) StatusTable(nodes []Node, wide bool) columns.Table {
	table := columns.Table{Header: []string{"NODE", "STATE", "AGE", "READY", "NOT READY", "WAITS FOR"}, Shrink: []columns.Shrink{
		{Column: 5, Least: 24},
		{Column: 4, Least: 12, Cut: cutNames},
		{Column: 5, Least: 9},
		{Column: 0, Least: 24, Cut: columns.CutMiddle},
	}}
	if wide {
		table = columns.Table{Header: []string{"NODE", "STATE", "AGE"}}
		for _, c := range wideColumns {
			table.Header = append(table.Header, c.title)
		}
		table.Header = append(table.Header, "PROBES", "WARM", "WAITS FOR")
	}
	for i := range nodes {
		table.Rows = append(table.Rows, v.row(&nodes[i], wide))
	}
	return table
}

// AgeColumn is the column of a row that changes with every look.
const AgeColumn = 2

func (v View) row(n *Node, wide bool) []string {
	row := []string{n.Name, string(n.State), age(n.Created, v.Now)}
	if !wide {
		return append(row, n.ready(), orDash(n.notReady()), n.waitsFor())
	}
	for _, c := range wideColumns {
		row = append(row, n.status(c.condition))
	}
	return append(row, orDash(n.probes()), n.Images.short(), n.waitsFor())
}

func orDash(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ",")
}

// ready counts the conditions that are True, as kubectl counts containers.
func (n *Node) ready() string {
	if len(n.Conditions) == 0 {
		return "-"
	}
	ready := 0
	for _, c := range n.Conditions {
		if c.Status == corev1.ConditionTrue {
			ready++
		}
	}
	return fmt.Sprintf("%d/%d", ready, len(n.Conditions))
}

// notReady names the conditions that are not True: a user's probes first, and False before Unknown.
func (n *Node) notReady() []string {
	var own, probes []string
	for _, status := range []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionUnknown} {
		for _, c := range n.Conditions {
			switch text := c.short() + "=" + string(c.Status); {
			case c.Status != status:
			case c.ours():
				own = append(own, text)
			default:
				probes = append(probes, text)
			}
		}
	}
	return append(probes, own...)
}

// probes are the conditions that have no column of their own.
func (n *Node) probes() []string {
	var out []string
	for _, c := range n.Conditions {
		if !c.ours() {
			out = append(out, c.short()+"="+string(c.Status))
		}
	}
	return out
}

func (c Condition) ours() bool {
	return slices.ContainsFunc(wideColumns, func(column struct{ title, condition string }) bool { return column.condition == c.Type })
}

// short is the name of the probe: of headstart.dev/MyAgentReady it is MyAgent.
func (c Condition) short() string {
	name := strings.TrimPrefix(c.Type, readiness.Domain+"/")
	if pod, ok := strings.CutPrefix(name, "DaemonSetReady."); ok {
		return strings.Replace(pod, ".", "/", 1)
	}
	return strings.TrimSuffix(name, "Ready")
}

// cutNames shortens a list of conditions: first to their names, then to the first of these and how many more there are.
func cutNames(text string, width int) string {
	names := strings.Split(text, ",")
	for i := range names {
		names[i], _, _ = strings.Cut(names[i], "=")
	}
	for keep := len(names); ; keep-- {
		short, more := strings.Join(names[:keep], ","), ""
		if keep < len(names) {
			more = fmt.Sprintf(",+%d", len(names)-keep)
		}
		if keep == 1 || utf8.RuneCountInString(short+more) <= width {
			return columns.Cut(short, width-len(more)) + more
		}
	}
}

func (n *Node) status(condition string) string {
	for _, c := range n.Conditions {
		if c.Type == condition {
			return string(c.Status)
		}
	}
	return "-"
}

// waitsFor is the first reason of the first rule that holds the node, or would.
func (n *Node) waitsFor() string {
	for _, e := range n.Rules {
		if e.State != readiness.StateHeld && e.State != StateWouldHold || e.DryRun {
			continue
		}
		more := ""
		if len(e.Reasons) > 1 {
			more = fmt.Sprintf(" (and %d more)", len(e.Reasons)-1)
		}
		if len(e.Reasons) > 0 {
			return e.Rule + ": " + e.Reasons[0].Message + more
		}
		return e.Rule
	}
	return "-"
}
