package gates

import (
	"time"

	"headstart.dev/gates/v1alpha1"
)

const (
	// agentPatience is how long a pod waits for images where no node on which it could run has an agent that could pull
	// them. An agent that comes with its node publishes within seconds of the node's registration.
	agentPatience = 20 * time.Second
	// provokedPatience is how long a pod waits for a node that its policy's WarmPool brings. Nodes come within a minute; a
	// pool that is at its limit, misnamed or refused brings none.
	provokedPatience = 90 * time.Second
)

// InVain says whether waiting for nodes cannot help a pod: there is none on which it could run now or soon, and nothing
// brings one while the pod is gated. Then the gate only hides the pod from whoever could. seated says whether the pod was
// promised room. again is when to ask again although nothing happens, zero for never.
//
//	overflow  a node will have room  its agents  policy brings nodes  in vain
//	Hold      any                    any         any                  no
//	else      yes                    some        any                  no
//	else      yes                    none        any                  after agentPatience
//	else      no                     any         no                   yes
//	else      no                     any         yes                  after provokedPatience
func (p *Policy) InVain(pod *Pod, fleet *Fleet, seated bool, now time.Time) (vain bool, again time.Time) {
	if p.Overflow == v1alpha1.OverflowHold || p.Overflow == v1alpha1.OverflowWait || p.Broken() || p.deleted {
		return false, again
	}
	until := time.Time{}
	switch {
	case seated && p.gang == nil && p.wantsImages() && fleet.Agentless(pod.Shape):
		until = pod.Created.Add(agentPatience)
	case seated:
		return false, again
	case p.gang != nil && (p.Hold || fleet.CouldRunSoon(pod.Shape)):
		// Without the whole of it a gang had better not start, and some of it could.
		return false, again
	case p.Provokes:
		until = pod.Created.Add(provokedPatience)
	}
	if now.Before(until) {
		return false, until
	}
	return true, again
}

func (p *Policy) wantsImages() bool {
	for _, r := range p.requirements {
		if _, is := r.(imagesRequirement); is {
			return true
		}
	}
	return false
}
