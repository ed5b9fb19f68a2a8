// Package budget chooses which images fit a node's share of disk, and says of each that does not why. It is pure and
// safe for concurrent use. Start from Choose.
package budget

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Image is one image that somebody wants.
type Image struct {
	// Name is the normalised reference.
	Name string
	// Required images come first, then those of higher Priority, then those of lower Order (where the image stands in
	// its list), then by Name.
	Required bool
	Priority int32
	Order    int
	// Layers are what the image consists of; one that several images share takes room once. Empty when unknown: such an
	// image takes no room, because leaving out what may well fit would be worse; the node's own free-space floor still
	// guards the disk.
	Layers []Layer
}

// Layer is one blob of an image.
type Layer struct {
	Digest string
	Bytes  int64
}

// LeftOut is an image that was not chosen.
type LeftOut struct {
	Image
	// Why is one line for a person.
	Why string
}

// Limits bound the choice; 0 is no bound.
type Limits struct {
	Bytes  int64
	Images int
}

// Choose returns the images that fit, most important first, and those that do not. An image that is too large does not
// keep a smaller, less important one out.
func Choose(images []Image, limits Limits) (chosen []Image, out []LeftOut) {
	images = slices.SortedFunc(slices.Values(images), compare)
	have := map[string]bool{}
	var used int64
	for _, img := range images {
		needs := missing(img, have)
		switch {
		case limits.Images > 0 && len(chosen) == limits.Images:
			out = append(out, LeftOut{img, fmt.Sprintf("the policy has more than %d images", limits.Images)})
		case limits.Bytes > 0 && used+needs > limits.Bytes:
			out = append(out, LeftOut{img, fmt.Sprintf("needs %s, and %s of maxBytes %s are left", size(needs), size(limits.Bytes-used), size(limits.Bytes))})
		default:
			used += needs
			for _, layer := range img.Layers {
				have[layer.Digest] = true
			}
			chosen = append(chosen, img)
		}
	}
	return chosen, out
}

func compare(a, b Image) int {
	if a.Required != b.Required {
		if a.Required {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
}

// Bytes is the size of one image by itself.
func (img Image) Bytes() int64 { return missing(img, nil) }

// missing is the size of the layers that are not there yet, each once.
func missing(img Image, have map[string]bool) int64 {
	var sum int64
	seen := map[string]bool{}
	for _, layer := range img.Layers {
		if have[layer.Digest] || seen[layer.Digest] || layer.Bytes < 0 {
			continue
		}
		seen[layer.Digest] = true
		sum += layer.Bytes
	}
	return sum
}

// size rounds to what a person reads: 1.5Gi rather than 1610612736.
func size(bytes int64) string {
	for _, unit := range []struct {
		bytes  int64
		suffix string
	}{{1 << 30, "Gi"}, {1 << 20, "Mi"}, {1 << 10, "Ki"}} {
		if bytes >= unit.bytes {
			return fmt.Sprintf("%.4g%s", float64(bytes)/float64(unit.bytes), unit.suffix)
		}
	}
	return resource.NewQuantity(bytes, resource.BinarySI).String()
}
