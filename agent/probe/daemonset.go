package probe

import (
	"context"
	"time"

	"headstart.dev/readiness"
)

// Reasons of the DaemonSet probe.
const (
	ReasonPodMissing  = "PodMissing"
	ReasonPodNotReady = "PodNotReady"
	ReasonKubeletAway = "KubeletAway"
)

// DaemonSet is ready while a pod of Want on this node is Ready, as the kubelet says.
type DaemonSet struct {
	Want readiness.DaemonSet
	Pods *Pods
	// Grace is how long a pod that was Ready still counts as that: a kubelet that starts again says of every pod that it
	// is not, until it has looked.
	Grace time.Duration

	ready time.Time
}

// Check looks at what is known.
func (p *DaemonSet) Check(context.Context) Result {
	pods, known, _ := p.Pods.List(p.Grace)
	found, waiting := p.Want.ReadyPod(pods)
	switch {
	case known && found:
		p.ready = time.Now()
		fallthrough
	case !p.ready.IsZero() && time.Since(p.ready) < p.Grace:
		return ready("its pod on this node is Ready")
	case !known:
		return Result{Status: Unknown, Reason: ReasonKubeletAway, Message: message("the kubelet does not answer on %s", p.Pods.socket)}
	case waiting != "":
		return notReady(ReasonPodNotReady, "pod %s/%s is not Ready", p.Want.Namespace, waiting)
	}
	return notReady(ReasonPodMissing, "no pod of it is on this node")
}

// Watch follows the kubelet's own events.
func (p *DaemonSet) Watch(ctx context.Context, wake func()) error {
	for {
		_, _, changed := p.Pods.List(p.Grace)
		wake()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
