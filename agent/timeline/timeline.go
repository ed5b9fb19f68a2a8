// Package timeline records the boot of a node, phase by phase, and renders it as text, JSON and HTML. A Recorder
// collects phases and keeps them in a file, so that an agent that is killed goes on where it was; Compact and Parse are
// the form of the annotation headstart.dev/timeline. The package reads the clock only where a caller asks it to.
package timeline

import (
	"slices"
	"time"
)

// Name is a phase. The set is closed: it is the label of the metric headstart_node_phase_seconds.
type Name string

// The phases of a boot, in the order in which they usually begin.
const (
	// Kernel lasts from the start of the kernel to that of the first process.
	Kernel Name = "kernel"
	// Userspace lasts from the first process until systemd has started everything.
	Userspace Name = "userspace"
	// Containerd and Kubelet are the moments at which they were started.
	Containerd Name = "containerd"
	Kubelet    Name = "kubelet"
	// Agent is the moment at which the agent was started.
	Agent Name = "agent"
	// Image is the pull of one image, which Detail names.
	Image Name = "image"
	// Images lasts from the start of the first pull until every required image is there.
	Images Name = "images"
	// Probe lasts from the start of the agent until the condition that Detail names is first True.
	Probe Name = "probe"
	// Registered is the moment at which the Node object was made.
	Registered Name = "registered"
	// NodeReady is the moment at which the kubelet's own Ready condition became True.
	NodeReady Name = "node-ready"
	// Published is the moment at which the API server had accepted every condition as True.
	Published Name = "published"
)

// Names lists every phase in the order of a boot.
func Names() []Name {
	return []Name{Kernel, Userspace, Containerd, Kubelet, Agent, Image, Images, Probe, Registered, NodeReady, Published}
}

// Phase is one stretch of a boot. Start equals End for a moment; End is zero while the phase runs.
type Phase struct {
	Name   Name      `json:"name"`
	Detail string    `json:"detail,omitempty"`
	Start  time.Time `json:"start"`
	End    time.Time `json:"end,omitzero"`
	// State says what keeps a phase from ending, such as ImagePullBackOff; "" where nobody knows of anything.
	State string `json:"state,omitempty"`
	// Stages say where the time of an Image went, in the order in which they began; nil where nobody has told.
	Stages []Stage `json:"stages,omitempty"`
}

// Stage is one kind of work within a phase. What is done for several layers at once adds up: the sum of the stages is no
// wall time, and one stage can last longer than its phase.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Running says whether the phase has not ended.
func (p Phase) Running() bool { return p.End.IsZero() }

// Moment says whether the phase has no length.
func (p Phase) Moment() bool { return p.Start.Equal(p.End) }

// Timeline is the boot of one node.
type Timeline struct {
	Node   string `json:"node,omitempty"`
	BootID string `json:"bootID,omitempty"`
	// Phases are ordered by Start, then End.
	Phases []Phase `json:"phases"`
	// Until ends the drawings, so that what came long after the boot does not squeeze it; zero: at the last moment. What
	// lasts longer is drawn to the edge, and told at its true length.
	Until time.Time `json:"-"`
}

// Zero is the moment from which a boot is counted: the start of its first phase. It is the zero time for none.
func (t Timeline) Zero() time.Time {
	if len(t.Phases) == 0 {
		return time.Time{}
	}
	return t.Phases[0].Start
}

// Last is the latest moment that the timeline knows.
func (t Timeline) Last() time.Time {
	var last time.Time
	for _, p := range t.Phases {
		for _, at := range []time.Time{p.Start, p.End} {
			if at.After(last) {
				last = at
			}
		}
	}
	return last
}

// Find returns the phase of a name and detail.
func (t Timeline) Find(name Name, detail string) (Phase, bool) {
	i := t.index(name, detail)
	if i < 0 {
		return Phase{}, false
	}
	return t.Phases[i], true
}

func (t Timeline) index(name Name, detail string) int {
	return slices.IndexFunc(t.Phases, func(p Phase) bool { return p.Name == name && p.Detail == detail })
}

// sort restores the order of Phases.
func (t *Timeline) sort() {
	slices.SortStableFunc(t.Phases, func(a, b Phase) int {
		if c := a.Start.Compare(b.Start); c != 0 {
			return c
		}
		return a.End.Compare(b.End)
	})
}

// Add puts a phase where it belongs in the order.
func (t *Timeline) Add(p Phase) {
	t.Phases = append(t.Phases, p)
	t.sort()
}
