package controller

import (
	"fmt"
	"strings"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/prepull/v1alpha1"
)

// maxMessage keeps an error page of a registry out of the status.
const maxMessage = 1024

// conditions sets the four conditions of a status whose other fields are set.
func (p *policy) conditions(status *v1alpha1.PrepullPolicyStatus, pulled, pending int, know func(string) lookup, now time.Time) {
	set := func(conditionType string, ok bool, reasonTrue, reasonFalse, message string) {
		c := metav1.Condition{
			Type: conditionType, Status: metav1.ConditionFalse, Reason: reasonFalse, Message: oneLine(message),
			ObservedGeneration: p.obj.Generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
		}
		if ok {
			c.Status, c.Reason = metav1.ConditionTrue, reasonTrue
		}
		apimeta.SetStatusCondition(&status.Conditions, c)
	}
	if p.trouble == nil {
		set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonValid, "", "the spec can be followed")
	} else {
		set(v1alpha1.ConditionAccepted, false, "", v1alpha1.ReasonInvalid, p.trouble.Error())
	}

	var failures []string
	for _, c := range p.wanted {
		if found := know(c.name); found.done && found.image.Digest == "" {
			failures = append(failures, found.err.Error())
		}
	}
	switch {
	case len(failures) > 0:
		set(v1alpha1.ConditionResolved, false, "", v1alpha1.ReasonResolveFailed,
			fmt.Sprintf("%d images are pulled by tag, with the nodes' own credentials: %s", len(failures), enumerate(failures)))
	case pending > 0:
		set(v1alpha1.ConditionResolved, false, "", v1alpha1.ReasonResolving, fmt.Sprintf("%d images are being looked up", pending))
	default:
		set(v1alpha1.ConditionResolved, true, v1alpha1.ReasonAllResolved, "", "every image has a digest")
	}

	if out, text := leftOut(p.wanted, status.Images, know); out > 0 {
		set(v1alpha1.ConditionComplete, false, "", v1alpha1.ReasonLeftOut, fmt.Sprintf("%d images are left out: %s", out, text))
	} else {
		set(v1alpha1.ConditionComplete, true, v1alpha1.ReasonAllFit, "", "no image is left out")
	}

	n := status.Nodes
	switch {
	case n.Matched == 0:
		set(v1alpha1.ConditionReady, false, "", v1alpha1.ReasonNoNodes, "no node matches")
	case pulled == 0 && pending == 0:
		set(v1alpha1.ConditionReady, true, v1alpha1.ReasonNoImages, "", "there is no image to pull yet")
	case n.Ready == n.Matched:
		set(v1alpha1.ConditionReady, true, v1alpha1.ReasonAllNodes, "", "every node has the images")
	case n.Failed > 0:
		set(v1alpha1.ConditionReady, false, "", v1alpha1.ReasonFailed, "there are nodes that cannot pull an image: their condition headstart.dev/ImagesReady and their agent's log say why")
	default:
		set(v1alpha1.ConditionReady, false, "", v1alpha1.ReasonPulling, "nodes are pulling, or have no agent yet")
	}
}

// oneLine makes a message of at most maxMessage bytes.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage-3], "") + "..."
	}
	return text
}
