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
	for _, c := range []metav1.Condition{
		p.accepted(), p.resolved(pending, know), p.complete(status.Images, pending, know), p.readiness(status.Nodes, pulled, pending),
	} {
		c.Message, c.ObservedGeneration, c.LastTransitionTime = oneLine(c.Message), p.obj.Generation, metav1.NewTime(now.Truncate(time.Second))
		apimeta.SetStatusCondition(&status.Conditions, c)
	}
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

func (p *policy) accepted() metav1.Condition {
	if p.trouble != nil {
		return condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonInvalid, p.trouble.Error())
	}
	return condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonValid, "the spec can be followed")
}

func (p *policy) resolved(pending int, know func(string) lookup) metav1.Condition {
	var failures []string
	for _, c := range p.wanted {
		if found := know(c.name); found.done && found.image.Digest == "" {
			failures = append(failures, found.err.Error())
		}
	}
	switch {
	case len(failures) > 0:
		return condition(v1alpha1.ConditionResolved, metav1.ConditionFalse, v1alpha1.ReasonResolveFailed,
			fmt.Sprintf("%d images are pulled by tag, with the nodes' own credentials: %s", len(failures), enumerate(failures)))
	case pending > 0:
		return condition(v1alpha1.ConditionResolved, metav1.ConditionFalse, v1alpha1.ReasonResolving, fmt.Sprintf("%d images are being looked up", pending))
	}
	return condition(v1alpha1.ConditionResolved, metav1.ConditionTrue, v1alpha1.ReasonAllResolved, "every image has a digest")
}

// complete is True only when all images are known with their sizes: what is not known may not fit.
func (p *policy) complete(list []v1alpha1.ImageStatus, pending int, know func(string) lookup) metav1.Condition {
	if out, text := leftOut(p.wanted, list, know); out > 0 {
		return condition(v1alpha1.ConditionComplete, metav1.ConditionFalse, v1alpha1.ReasonLeftOut, fmt.Sprintf("%d images are left out: %s", out, text))
	}
	if pending > 0 {
		return condition(v1alpha1.ConditionComplete, metav1.ConditionUnknown, v1alpha1.ReasonResolving, fmt.Sprintf("%d images are being looked up", pending))
	}
	if names := unsized(p.wanted, know); len(names) > 0 {
		return condition(v1alpha1.ConditionComplete, metav1.ConditionUnknown, v1alpha1.ReasonSizeUnknown,
			fmt.Sprintf("neither the registry nor a node has told the size of %d images, which maxBytes cannot count: %s", len(names), enumerate(names)))
	}
	if p.imageless != "" {
		return condition(v1alpha1.ConditionComplete, metav1.ConditionUnknown, v1alpha1.ReasonImagesUnknown,
			"workloads name no image where one is looked for, set imagePaths of their source: "+p.imageless)
	}
	return condition(v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonAllFit, "no image is left out")
}

func (p *policy) readiness(n v1alpha1.NodeCounts, pulled, pending int) metav1.Condition {
	const kind = v1alpha1.ConditionReady
	switch {
	case n.Matched == 0:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonNoNodes, "no node matches")
	case pulled == 0 && pending == 0 && p.imageless != "":
		return condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonImagesUnknown, "no image is known yet")
	case pulled == 0 && pending == 0:
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonNoImages, "there is no image to pull yet")
	case n.Ready == n.Matched:
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonAllNodes, "every node has the images")
	case n.Failed > 0:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonFailed, "there are nodes that cannot pull an image: their condition headstart.dev/ImagesReady and their agent's log say why")
	}
	return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonPulling, "nodes are pulling, or have no agent yet")
}

// oneLine makes a message of at most maxMessage bytes.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage-3], "") + "..."
	}
	return text
}
