package controller

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"headstart.dev/prepull"
	"headstart.dev/prepull/budget"
	"headstart.dev/prepull/learn"
	"headstart.dev/prepull/v1alpha1"
)

// maxImages is how many images a status lists.
const maxImages = 100

// candidate is one image that a policy wants, before it is known whether it fits.
type candidate struct {
	name     string
	priority int32
	required bool
	source   v1alpha1.Source
}

// candidates joins the images of the three sources, each name once: the first source that names it counts. The order is
// that of importance at equal priority. The error joins the names that are no images; they are left out.
func candidates(spec *v1alpha1.PrepullPolicySpec, fromWorkloads []string, ranked []learn.Ranked) ([]candidate, error) {
	var out []candidate
	var errs []error
	seen := map[string]bool{}
	add := func(ref string, c candidate) {
		name, err := prepull.Normalize(ref)
		if err != nil {
			errs = append(errs, err)
			return
		}
		if c.name = name; !seen[name] {
			seen[name] = true
			out = append(out, c)
		}
	}
	for _, img := range spec.Images {
		add(img.Image, candidate{priority: img.Priority, required: img.Required, source: v1alpha1.SourceSpec})
	}
	for _, ref := range fromWorkloads {
		add(ref, candidate{source: v1alpha1.SourceWorkload})
	}
	if spec.Learn != nil {
		top := int(cmp.Or(spec.Learn.Top, 10))
		ranked = ranked[:min(top, len(ranked))]
		if spec.MaxBytes != nil {
			ranked = learn.Fit(ranked)
		}
		for i, r := range ranked {
			// Below all that somebody asked for, and in the order of the ranking on the node too.
			add(r.Image, candidate{priority: -1001 - int32(i), source: v1alpha1.SourceLearned})
		}
	}
	return out, errors.Join(errs...)
}

// plan chooses what fits and renders the images of the status: what is pulled, most important first, then what is left
// out. Images whose lookup has not ended are not in it. know returns what is known of a name.
func plan(wanted []candidate, maxBytes int64, know func(string) lookup) []v1alpha1.ImageStatus {
	images := make([]budget.Image, 0, len(wanted))
	byName := map[string]candidate{}
	for i, c := range wanted {
		found := know(c.name)
		if !found.done {
			continue
		}
		byName[c.name] = c
		layers, _ := found.size()
		images = append(images, budget.Image{Name: c.name, Required: c.required, Priority: c.priority, Order: i, Layers: layers})
	}
	chosen, out := budget.Choose(images, budget.Limits{Bytes: maxBytes, Images: maxImages})
	list := make([]v1alpha1.ImageStatus, 0, len(images))
	add := func(img budget.Image, why string) {
		if len(list) == maxImages {
			return
		}
		c, found := byName[img.Name], know(img.Name)
		status := v1alpha1.ImageStatus{
			Image: img.Name, Digest: found.image.Digest, Bytes: img.Bytes(), Priority: c.priority,
			Required: c.required, Source: c.source, LeftOut: why,
		}
		if status.Digest == "" && len(found.reported.Layers) > 0 {
			status.Digest, status.Reported = found.reported.Digest, true
		}
		list = append(list, status)
	}
	for _, img := range chosen {
		add(img, "")
	}
	for _, left := range out {
		add(left.Image, left.Why)
	}
	return list
}

// unsized names the images that nodes pull although nobody knows yet what they take.
func unsized(wanted []candidate, know func(string) lookup) []string {
	var names []string
	for _, c := range wanted {
		found := know(c.name)
		if _, known := found.size(); found.done && !known {
			names = append(names, c.name)
		}
	}
	return names
}

// leftOut counts the candidates that no node pulls, and names the first few.
func leftOut(wanted []candidate, list []v1alpha1.ImageStatus, know func(string) lookup) (count int, text string) {
	pulled := map[string]bool{}
	why := map[string]string{}
	for _, img := range list {
		pulled[img.Image] = img.LeftOut == ""
		why[img.Image] = img.LeftOut
	}
	var names []string
	for _, c := range wanted {
		if !pulled[c.name] && know(c.name).done {
			reason := cmp.Or(why[c.name], fmt.Sprintf("the policy has more than %d images", maxImages))
			names = append(names, c.name+": "+reason)
		}
	}
	return len(names), enumerate(names)
}

// enumerate joins at most three texts, so that a message stays one line.
func enumerate(texts []string) string {
	const most = 3
	out := strings.Join(texts[:min(most, len(texts))], "; ")
	if more := len(texts) - most; more > 0 {
		out += fmt.Sprintf("; and %d more", more)
	}
	return out
}

// pulledOf returns the images that nodes pull.
func pulledOf(list []v1alpha1.ImageStatus) []v1alpha1.ImageStatus {
	return slices.DeleteFunc(slices.Clone(list), func(img v1alpha1.ImageStatus) bool { return img.LeftOut != "" })
}
