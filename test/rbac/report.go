package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// optional are the features of the controller that the chart leaves off unless somebody asks for them.
var optional = []string{"gates-references", "rules-guide", "rules-upstream"}

// report is what is printed: the same text for the same roles.
func report(features []feature, others map[string]map[string][]string) string {
	var out strings.Builder
	for _, f := range features {
		state := ""
		if f.identity == "controller" && slices.Contains(optional, f.name) {
			state = ", off by default"
		}
		fmt.Fprintf(&out, "%s: %s%s\n", f.identity, f.name, state)
		for _, r := range f.rights {
			fmt.Fprintf(&out, "  %-55s %s%s\n", r.resource, strings.Join(r.verbs, " "), r.limits())
		}
	}
	columns := []string{"default", "all", "nrc", "karpenter"}
	sums := map[string]map[string][]string{
		"default": sum(features, func(name string) bool { return !slices.Contains(optional, name) }),
		"all":     sum(features, func(string) bool { return true }),
		"nrc":     others["nrc"], "karpenter": others["karpenter"],
	}
	fmt.Fprintf(&out, "\nthe controller's sum in the whole cluster, by any name\n  %-44s", "")
	for _, c := range columns {
		fmt.Fprintf(&out, " %-14s", c)
	}
	out.WriteString("\n")
	for _, resource := range resources(sums) {
		fmt.Fprintf(&out, "  %-44s", resource)
		for _, c := range columns {
			fmt.Fprintf(&out, " %-14s", letters(sums[c][resource]))
		}
		out.WriteString("\n")
	}
	out.WriteString("r get, l list, w watch, c create, p patch, u update, d delete, * another\n")
	return strings.ReplaceAll(out.String(), " \n", "\n")
}

func (r *right) limits() string {
	out := ""
	if r.namespaced {
		out += ", in its own namespace"
	}
	if len(r.names) > 0 {
		out += ", named " + strings.Join(r.names, " ")
	}
	return out
}

// sum is what the controller can do with all features whose name passes, in the whole cluster and by any name.
func sum(features []feature, on func(string) bool) map[string][]string {
	out := map[string][]string{}
	for _, f := range features {
		if f.identity != "controller" || !on(f.name) {
			continue
		}
		for _, r := range f.rights {
			if r.namespaced || len(r.names) > 0 || strings.HasPrefix(r.resource, "/") {
				continue
			}
			out[r.resource] = append(out[r.resource], r.verbs...)
		}
	}
	return out
}

func resources(sums map[string]map[string][]string) []string {
	all := map[string]bool{}
	for _, s := range sums {
		for resource := range s {
			all[resource] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

var verbLetters = []struct{ verb, letter string }{
	{"get", "r"}, {"list", "l"}, {"watch", "w"}, {"create", "c"}, {"patch", "p"}, {"update", "u"}, {"delete", "d"},
}

// letters are verbs in short.
func letters(verbs []string) string {
	if len(verbs) == 0 {
		return "-"
	}
	out, known := "", 0
	distinct := slices.Compact(slices.Sorted(slices.Values(verbs)))
	for _, v := range verbLetters {
		if slices.Contains(distinct, v.verb) {
			out += v.letter
			known++
		}
	}
	if known < len(distinct) {
		out += "*"
	}
	return out
}
