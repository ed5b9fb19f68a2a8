package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/prepull"
	"headstart.dev/prepull/turn"
	"headstart.dev/prepull/v1alpha1"
)

const (
	// patience is for how long a change of the spec waits for the controller's list, which names digests. After it the
	// spec's own images are pulled by tag: a controller that is away must not keep a node cold.
	patience = 3 * time.Second
	// turnPatience is for how long a node waits for its turn before it goes ahead: the controller may be away.
	turnPatience = 10 * time.Minute
	// crowd is from how many matching nodes on the start is spread, by a millisecond a node up to spread.
	crowd  = 20
	spread = time.Second
)

// subscription is one policy as this node sees it.
type subscription struct {
	policy *v1alpha1.PrepullPolicy
	// since is when this generation was first seen.
	since time.Time
	// joined says that images of the policy are wanted here, images which.
	joined bool
	images []prepull.Image
	// next is a newer list that waits, waiting since when.
	next    string
	waiting time.Time
}

// node is what decides whether a policy concerns this node.
type node struct {
	name   string
	labels labels.Set
}

// settle brings images up to date and returns when it has to be called again although nothing changes; zero: never.
func (s *subscription) settle(n node, now time.Time) time.Time {
	place := turn.Place(string(s.policy.UID), n.name)
	if !s.chosen(n, place) {
		s.joined, s.images, s.next = false, nil, ""
		return time.Time{}
	}
	list, again := s.list(now)
	first := !s.joined
	s.joined = true
	if pulls(s.images, list) {
		start := s.start(list, place, first, now)
		if start.After(now) {
			// What is wanted no longer goes at once; what is new waits, but for what a new node is held for.
			s.images = slices.DeleteFunc(slices.Clone(s.images), func(img prepull.Image) bool { return !slices.ContainsFunc(list, sameName(img)) })
			if first {
				s.images = slices.DeleteFunc(slices.Clone(list), func(img prepull.Image) bool { return !img.Required })
			}
			return earliest(again, start)
		}
	}
	s.images, s.next = list, ""
	return again
}

// chosen says whether the policy is for this node.
func (s *subscription) chosen(n node, place int64) bool {
	if s.policy.DeletionTimestamp != nil {
		return false
	}
	if t := s.policy.Status.Turn; t != nil && place > t.Members {
		return false
	}
	if s.policy.Spec.NodeSelector == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(s.policy.Spec.NodeSelector)
	return err == nil && selector.Matches(n.labels)
}

// list returns the images of the policy: those of its status, and while the controller has not followed the spec, those
// of the spec by tag. again is when that changes by time alone.
func (s *subscription) list(now time.Time) (list []prepull.Image, again time.Time) {
	pin := s.policy.Spec.Pin == nil || *s.policy.Spec.Pin
	mode := prepull.Mode(cmp.Or(s.policy.Spec.Mode, v1alpha1.ModeAuto))
	for _, img := range s.policy.Status.Images {
		if img.LeftOut == "" {
			dgst := img.Digest
			if img.Reported {
				dgst = "" // what other nodes have; the registry may have a newer one
			}
			list = append(list, prepull.Image{
				Ref: img.Image, AtDigest: dgst, Priority: img.Priority, Required: img.Required, Pin: pin, Mode: mode,
			})
		}
	}
	if s.policy.Status.ObservedGeneration >= s.policy.Generation {
		return list, time.Time{}
	}
	if due := s.since.Add(patience); now.Before(due) {
		return list, due
	}
	for _, img := range s.policy.Spec.Images {
		// A name that is none is the controller's to report, and the puller's.
		name, err := prepull.Normalize(img.Image)
		if err != nil || slices.ContainsFunc(list, func(have prepull.Image) bool { return have.Ref == name }) {
			continue
		}
		list = append(list, prepull.Image{Ref: name, Priority: img.Priority, Required: img.Required, Pin: pin, Mode: mode})
	}
	return list, time.Time{}
}

// start is when the node may pull the list.
func (s *subscription) start(list []prepull.Image, place int64, first bool, now time.Time) time.Time {
	if mark := fingerprint(list); mark != s.next {
		s.next, s.waiting = mark, now
	}
	if t := s.policy.Status.Turn; t != nil && place > t.Open {
		return s.waiting.Add(turnPatience)
	}
	matched := s.policy.Status.Nodes.Matched
	if first || matched < crowd {
		return now
	}
	// The place spreads nodes evenly, and those of another policy otherwise.
	width := min(float64(matched)*float64(time.Millisecond), float64(spread))
	return s.waiting.Add(time.Duration(width * float64(place) / float64(turn.Last)))
}

// pulls says whether the new list holds something that the old one does not, or wants whole what could be lazy.
func pulls(old, list []prepull.Image) bool {
	return slices.ContainsFunc(list, func(img prepull.Image) bool {
		return !slices.ContainsFunc(old, func(have prepull.Image) bool {
			return have.Ref == img.Ref && have.AtDigest == img.AtDigest && (img.Mode.Lazy() || !have.Mode.Lazy())
		})
	})
}

func sameName(img prepull.Image) func(prepull.Image) bool {
	return func(other prepull.Image) bool { return other.Ref == img.Ref }
}

func fingerprint(list []prepull.Image) string {
	var b strings.Builder
	for _, img := range list {
		b.WriteString(img.Ref + "=" + img.AtDigest + " " + string(img.Mode) + "\n")
	}
	return b.String()
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// union joins lists: each image once, under the first name that it is given, with the strongest of all wishes. Digests
// are the first that somebody named.
func union(lists ...[]prepull.Image) []prepull.Image {
	var out []prepull.Image
	at := map[string]int{}
	for _, list := range lists {
		for _, img := range list {
			name, err := prepull.Normalize(img.Ref)
			if err != nil {
				name = img.Ref
			}
			i, twice := at[name]
			if !twice {
				at[name] = len(out)
				out = append(out, img)
				continue
			}
			have := &out[i]
			have.Priority = max(have.Priority, img.Priority)
			have.Required = have.Required || img.Required
			have.Pin = have.Pin || img.Pin
			have.Mode = have.Mode.Stronger(img.Mode)
			have.AtDigest = cmp.Or(have.AtDigest, img.AtDigest)
		}
	}
	return out
}
