package readiness

import (
	"crypto/sha256"
	"encoding/hex"

	corev1 "k8s.io/api/core/v1"
)

// ReportPrefix begins the types of the conditions by which an agent reports the pods of required DaemonSets, as its
// kubelet tells it of them.
const ReportPrefix = Domain + "/DaemonSetReady."

// reportCondition is the type of the condition by which an agent reports the pod of d: by namespace and name, and where
// the pods are found by a selector by that too, because two rules may select different pods under one name. It is "" for
// a wildcard: an agent sees the pods of its node, not the DaemonSets that have none there yet.
func (d *DaemonSet) reportCondition() corev1.NodeConditionType {
	if d.wildcard() {
		return ""
	}
	out := ReportPrefix + d.Namespace + "." + d.Name
	if d.Selector != nil {
		sum := sha256.Sum256([]byte(d.Selector.String()))
		// No name has an underscore.
		out += "_" + hex.EncodeToString(sum[:6])
	}
	return corev1.NodeConditionType(out)
}

// ReadyPod says whether a pod of d among those of one node is Ready, and if not which one is there; "" where none is.
func (d *DaemonSet) ReadyPod(pods []Pod) (ready bool, waiting string) {
	for i := range pods {
		if pods[i].Terminating || !d.owns(&pods[i]) {
			continue
		}
		if pods[i].Ready {
			return true, ""
		}
		waiting = pods[i].Name
	}
	return false, waiting
}

// reported returns the agent's word that the pod of d is Ready, or nil. It counts on the node that gave it and on no
// other, and a node that lies harms itself alone.
func (f *Facts) reported(d *DaemonSet, fresh bool) *corev1.NodeCondition {
	if d.Report == "" {
		return nil
	}
	have := f.condition(d.Report)
	if have == nil || have.Status != corev1.ConditionTrue || fresh && !f.thisBoot(have) {
		return nil
	}
	return have
}

// newer says whether the agent's word is not older than what the API server knows of the pod: both carry the time of the
// node's own clock. The kubelet tells its agent first; an agent that has ended tells nothing more.
func newer(report *corev1.NodeCondition, pod *Pod) bool {
	return report != nil && !pod.Changed.After(report.LastHeartbeatTime.Time)
}
