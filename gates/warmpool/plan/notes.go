package plan

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
)

func replicas(n int32) intstr.IntOrString { return intstr.FromInt32(n) }

// Verdict says in one line what the WarmPool as it is written comes to beside the fixed pool: both are rows of the table.
func (r Report) Verdict() string {
	pool, fixed := r.Rows[1], r.Rows[2]
	return fmt.Sprintf("The WarmPool as written (%s) costs %s than the fixed 15%% pool, with %s misses against %s.",
		pool.Size, difference(r.saving()), group(fmt.Sprint(pool.Misses)), group(fmt.Sprint(fixed.Misses)))
}

// saving is what the WarmPool as it is written saves of the fixed pool's cost; negative when it costs more.
func (r Report) saving() float64 {
	if r.Rows[2].Cost <= 0 {
		return 0
	}
	return 1 - r.Rows[1].Cost/r.Rows[2].Cost
}

// difference says a saving in words: "53% less".
func difference(saving float64) string {
	if saving < 0 {
		return fmt.Sprintf("%.0f%% more", -100*saving)
	}
	return fmt.Sprintf("%.0f%% less", 100*saving)
}

// Verdict says in one line what the comparison at equal misses came to, in whoever's favour it is. It is of a setting that no
// row of the table has, unless it is the one that is written, and so it has figures of its own.
func (e EqualMisses) Verdict() string {
	setting := fmt.Sprintf("Tuned to quantile %.3g and headroom %s", e.Quantile, e.Headroom)
	if e.AsWritten {
		setting = "As it is written"
	}
	figures := fmt.Sprintf("the WarmPool has %d misses and costs %.2f, %s", e.Misses, e.Cost, difference(e.Saving))
	switch {
	case !e.Reached:
		return fmt.Sprintf("No setting of the WarmPool keeps to the %d misses of the fixed 15%% pool. %s, which is the best, %s.", e.Allowed, setting, figures)
	case e.Saving >= 0:
		return fmt.Sprintf("With no more than the %d misses of the fixed 15%% pool: %s, %s.", e.Allowed, lowerFirst(setting), figures)
	default:
		return fmt.Sprintf("With no more than the %d misses of the fixed 15%% pool: %s, %s. This demand has no pattern by the hour that would pay for learning it.",
			e.Allowed, lowerFirst(setting), figures)
	}
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }

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
