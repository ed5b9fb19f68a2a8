package gates

import (
	"slices"
	"strings"
	"unique"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"

	"headstart.dev/prepull"
)

// eachImage names every image that must be on a node before all of the pod's containers can start there: containers, init
// containers and image volumes.
func eachImage(spec *corev1.PodSpec, yield func(string)) {
	for i := range spec.InitContainers {
		yield(spec.InitContainers[i].Image)
	}
	for i := range spec.Containers {
		yield(spec.Containers[i].Image)
	}
	for i := range spec.Volumes {
		if source := spec.Volumes[i].Image; source != nil {
			yield(source.Reference)
		}
	}
}

// imagesOf lists the keys of the pod's images. Sorted, each once.
func imagesOf(spec *corev1.PodSpec) []string {
	var keys []string
	eachImage(spec, func(image string) {
		if image != "" {
			keys = append(keys, imageKey(image))
		}
	})
	slices.Sort(keys)
	return slices.Compact(keys)
}

// namesOf lists the pod's images as an agent pulls them, with the whole digest where the pod names one. Sorted, each
// once. A text that is no reference is left out: nobody can pull it.
func namesOf(spec *corev1.PodSpec) []string {
	var names []string
	eachImage(spec, func(image string) {
		if name, err := prepull.Normalize(image); err == nil {
			names = append(names, name)
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// imageKey brings an image, as a pod names it, to the form under which a node's inventory holds it: the normalised
// name with its tag, or with the digest's prefix where the pod names a digest. A text that is no reference is its own
// key; no node has it.
func imageKey(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	if digested, ok := named.(reference.Digested); ok {
		return digestKey(named.Name(), prepull.DigestPrefix(digested.Digest().String()))
	}
	return reference.TagNameOnly(named).String()
}

// Registry is the part of an image's name that says where it comes from; empty for what is no name of an image.
func Registry(image string) string {
	if at := strings.LastIndex(image, "@"); at > 0 {
		image = image[:at]
	}
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return ""
	}
	return intern(reference.Domain(named))
}

func digestKey(repository, prefix string) string { return repository + "@" + prefix }

// warmKeys lists the keys that an inventory makes warm. Each image is warm under its name, and under the digest that it
// has on this node. Lazy images do not count: their content still comes over the network.
func warmKeys(inv prepull.Inventory) []string {
	keys := make([]string, 0, 2*len(inv.Warm))
	for _, image := range inv.Warm {
		named, err := reference.ParseNormalizedNamed(image.Name)
		if err != nil {
			continue // a node's word is hostile: what is no reference helps no pod
		}
		if _, ok := named.(reference.Digested); !ok {
			keys = append(keys, intern(reference.TagNameOnly(named).String()))
		}
		keys = append(keys, intern(digestKey(named.Name(), image.Digest)))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// intern keeps a string that most nodes share once.
func intern(s string) string { return unique.Make(s).Value() }
