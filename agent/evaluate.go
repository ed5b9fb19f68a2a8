package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/agent/internal/nodestatus"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

// Reasons of headstart.dev/ImagesReady.
const (
	ReasonImagesReady  = "Ready"
	ReasonImagesNone   = "NoRequiredImages"
	ReasonImagesPull   = "Pulling"
	ReasonImagesFailed = "ImagePullFailed"
)

// here says whether a container of the image can start without a pull.
func here(s prepull.State) bool { return s == prepull.StateWarm || s == prepull.StateLazy }

// evaluateImages is the condition headstart.dev/ImagesReady. Its message changes when an image arrives or fails, not
// with every byte.
func evaluateImages(images []prepull.ImageStatus) nodestatus.Condition {
	out := nodestatus.Condition{Type: readiness.ConditionImagesReady, Status: corev1.ConditionFalse}
	required, arrived, lazy := 0, 0, 0
	trouble, failed := "", false
	for _, image := range byPriority(images) {
		if !image.Required {
			continue
		}
		required++
		if here(image.State) {
			arrived++
			if image.State == prepull.StateLazy {
				lazy++
			}
			continue
		}
		if image.Error != "" && (trouble == "" || image.State == prepull.StateFailed && !failed) {
			trouble = fmt.Sprintf("; %s: %s", image.Ref, image.Error)
		}
		failed = failed || image.State == prepull.StateFailed
	}
	switch {
	case required == 0:
		out.Status, out.Reason, out.Message = corev1.ConditionTrue, ReasonImagesNone, "no image is required on this node"
		return out
	case arrived == required:
		out.Status, out.Reason = corev1.ConditionTrue, ReasonImagesReady
	case failed:
		out.Reason = ReasonImagesFailed
	default:
		out.Reason = ReasonImagesPull
	}
	lazily := ""
	if lazy > 0 {
		lazily = fmt.Sprintf(", %d of them lazily", lazy)
	}
	out.Message = oneMessage(fmt.Sprintf("%d of %d required images are here%s%s", arrived, required, lazily, trouble))
	return out
}

// inventory is what the annotation headstart.dev/images holds.
func inventory(images []prepull.ImageStatus) prepull.Inventory {
	var out prepull.Inventory
	for _, image := range byPriority(images) {
		entry := prepull.InventoryImage{Digest: prepull.DigestPrefix(image.Digest), Name: image.Name}
		switch {
		case image.State == prepull.StateFailed:
			out.Failed = append(out.Failed, image.Name)
			continue
		case entry.Digest == "" || entry.Name == "":
			continue
		case image.State == prepull.StateWarm:
			out.Warm = append(out.Warm, entry)
		case image.State == prepull.StateLazy:
			out.Lazy = append(out.Lazy, entry)
		default:
			continue
		}
		out.Snapshotter = cmp.Or(out.Snapshotter, image.Snapshotter)
		out.Runtime = cmp.Or(out.Runtime, image.Runtime)
		if image.Engine != "" && !slices.Contains(out.Engines, image.Engine) {
			out.Engines = append(out.Engines, image.Engine)
		}
	}
	slices.Sort(out.Engines)
	out.Runtime = oneMessage(out.Runtime)
	return out
}

// byPriority orders by priority, most important first, then by name, so that the same images give the same text.
func byPriority(images []prepull.ImageStatus) []prepull.ImageStatus {
	return slices.SortedFunc(slices.Values(images), func(a, b prepull.ImageStatus) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Ref, b.Ref))
	})
}

// maxMessageBytes keeps a registry's error page out of the Node object.
const maxMessageBytes = 512

// oneMessage makes one line of at most maxMessageBytes.
func oneMessage(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > maxMessageBytes {
		text = strings.ToValidUTF8(text[:maxMessageBytes-3], "") + "..."
	}
	return text
}
