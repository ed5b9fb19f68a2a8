package plan

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/intstr"
)

func replicas(n int32) intstr.IntOrString { return intstr.FromInt32(n) }

// Verdict says in one line what the comparison at equal misses came to, in whoever's favour it is.
func (e EqualMisses) Verdict() string {
	switch {
	case !e.Reached:
		return fmt.Sprintf("No setting of the WarmPool keeps to the %d misses of the fixed 15%% pool: the best has %d, at %s.",
			e.Allowed, e.Misses, percentCheaper(e.Saving))
	case e.Saving >= 0:
		return fmt.Sprintf("With no more misses than the fixed 15%% pool, the WarmPool costs %.0f%% less (quantile %.3g, headroom %s).",
			100*e.Saving, e.Quantile, e.Headroom)
	default:
		return fmt.Sprintf("With no more misses than the fixed 15%% pool, the WarmPool costs %.0f%% more (quantile %.3g, headroom %s): "+
			"this demand has no pattern by the hour that would pay for learning it.", -100*e.Saving, e.Quantile, e.Headroom)
	}
}

func percentCheaper(saving float64) string {
	if saving >= 0 {
		return fmt.Sprintf("%.0f%% less cost", 100*saving)
	}
	return fmt.Sprintf("%.0f%% more cost", -100*saving)
}

func (in Input) notes(r Report) []string {
	notes := []string{
		fmt.Sprintf("A node is assumed to take %v to be warm and a pod %v to start on a replica, always; nodes are always to be had.", in.Model.Lead, in.Model.WarmStart),
		"The fixed pool knows the peak of the whole trace, which its owner had to guess. The WarmPool learned only from what lay behind it.",
		"The setting at equal misses was picked with hindsight from the listed quantiles and headrooms, as the 15% was: read it as what tuning can reach.",
		"Capacity that the workload gives back is counted as gone at once, for all alike. In a cluster some of it is taken again, so every strategy misses less.",
		"The guide's ROI takes every incident for prevented. Ours takes the share of hours with a miss that the pool took away.",
	}
	if in.Model.WarmUp == 0 {
		notes = append(notes, "There was no warm-up: the WarmPool began without having seen any demand.")
	}
	if in.Model.Step > in.Model.Lead {
		notes = append(notes, fmt.Sprintf("The replay's steps (%v) are longer than the lead time (%v): rises are seen as sudden, and more pods miss than would.", in.Model.Step, in.Model.Lead))
	}
	if r.Asked == 0 {
		notes = append(notes, "Demand never rose in the measured part: there was nothing to miss.")
	}
	return notes
}
