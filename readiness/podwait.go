package readiness

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// PodWait is what "kubectl wait --for=condition=C pod -l S -n N" waits for, asked of one node's pods alone: all that the
// selector selects have the condition, and there is one. It is answered from what the controller knows of pods; nothing is
// run.
type PodWait struct {
	Namespace string
	Selector  labels.Selector
	Condition corev1.PodConditionType
}

// errNotWait says that a command is none that can be answered from the API.
var errNotWait = errors.New(`only "kubectl wait --for=condition=C pod -l S -n N" can be answered without running it`)

// ParsePodWait reads the command of an exec probe: kubectl itself, or a shell with one kubectl command as its script.
func ParsePodWait(command []string) (*PodWait, error) {
	words := command
	if len(words) == 3 && shells[path.Base(words[0])] && (words[1] == "-c" || words[1] == "-ec") {
		var err error
		if words, err = split(words[2]); err != nil {
			return nil, err
		}
	}
	if len(words) > 0 && words[0] == "exec" {
		words = words[1:]
	}
	if len(words) < 2 || path.Base(words[0]) != "kubectl" {
		return nil, errNotWait
	}
	return parseWait(words[1:])
}

var shells = map[string]bool{"sh": true, "bash": true, "ash": true, "dash": true}

// waitFlags are the flags that matter, by every name that they have, and those that do not.
var waitFlags = map[string]string{
	"--for": "for", "-l": "selector", "--selector": "selector", "-n": "namespace", "--namespace": "namespace",
	"--timeout": "", "--request-timeout": "", "--kubeconfig": "", "--context": "", "-o": "", "--output": "",
}

// parseWait reads the arguments of kubectl.
func parseWait(args []string) (*PodWait, error) {
	flags := map[string]string{}
	var words []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if !strings.HasPrefix(arg, "-") {
			words = append(words, arg)
			continue
		}
		name, value, given := cutFlag(arg)
		meaning, known := waitFlags[name]
		if !known {
			return nil, fmt.Errorf("%w: it has the argument %s", errNotWait, arg)
		}
		if !given {
			if len(args) == 0 {
				return nil, fmt.Errorf("%w: %s has no value", errNotWait, arg)
			}
			value, args = args[0], args[1:]
		}
		flags[meaning] = value
	}
	if len(words) != 2 || words[0] != "wait" || !podWords[strings.ToLower(words[1])] {
		return nil, fmt.Errorf("%w: it is kubectl %s", errNotWait, strings.Join(words, " "))
	}
	return newPodWait(flags)
}

var podWords = map[string]bool{"pod": true, "pods": true, "po": true}

// cutFlag splits --name=value and -nvalue.
func cutFlag(arg string) (name, value string, given bool) {
	if strings.HasPrefix(arg, "--") || len(arg) < 3 {
		return cut(arg)
	}
	return arg[:2], strings.TrimPrefix(arg[2:], "="), true
}

func cut(arg string) (name, value string, given bool) { return strings.Cut(arg, "=") }

func newPodWait(flags map[string]string) (*PodWait, error) {
	condition, ok := strings.CutPrefix(flags["for"], "condition=")
	condition, status, hasStatus := strings.Cut(condition, "=")
	if !ok || condition == "" || hasStatus && !strings.EqualFold(status, string(corev1.ConditionTrue)) {
		return nil, fmt.Errorf("%w: write --for=condition=<type>, not %q", errNotWait, flags["for"])
	}
	if flags["namespace"] == "" || flags["selector"] == "" {
		return nil, fmt.Errorf("%w: name the pods with -l and their namespace with -n", errNotWait)
	}
	selector, err := labels.Parse(flags["selector"])
	if err != nil {
		return nil, fmt.Errorf("%w: -l %s: %w", errNotWait, flags["selector"], err)
	}
	return &PodWait{Namespace: flags["namespace"], Selector: selector, Condition: corev1.PodConditionType(condition)}, nil
}

// split takes a shell script apart that is one simple command: words, quotes, comments, and lines continued by a
// backslash. Whatever makes a shell do more is refused.
func split(script string) ([]string, error) {
	s := splitter{}
	for _, r := range strings.ReplaceAll(script, "\\\n", " ") {
		if err := s.take(r); err != nil {
			return nil, err
		}
	}
	if s.quote != 0 {
		return nil, fmt.Errorf("%w: a quote is not closed", errNotWait)
	}
	s.end()
	return s.words, nil
}

type splitter struct {
	words []string
	word  strings.Builder
	begun bool
	quote rune
	// ended says that a line has ended: another command may not follow.
	ended bool
}

func (s *splitter) take(r rune) error {
	switch {
	case s.quote != 0 && r == s.quote:
		s.quote = 0
	case s.quote == '\'':
		s.word.WriteRune(r)
	case strings.ContainsRune("$`\\", r), s.quote == 0 && strings.ContainsRune(";&|<>(){}*?#~", r):
		return fmt.Errorf("%w: its script has %q", errNotWait, r)
	case s.quote != 0:
		s.word.WriteRune(r)
	case r == '\n', r == ' ', r == '\t', r == '\r':
		s.end()
		s.ended = s.ended || r == '\n' && len(s.words) > 0
	case s.ended:
		return fmt.Errorf("%w: its script has more than one command", errNotWait)
	case r == '\'' || r == '"':
		s.quote, s.begun = r, true
	default:
		s.begun = true
		s.word.WriteRune(r)
	}
	return nil
}

func (s *splitter) end() {
	if s.begun {
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.begun = false
}

// String is the command that p came from, in short.
func (p *PodWait) String() string {
	return fmt.Sprintf("kubectl wait --for=condition=%s pod -l %s -n %s", p.Condition, p.Selector, p.Namespace)
}

// checkPodWait asks for the condition of the node's pods.
func checkPodWait(want *PodWait, ds *DaemonSet, f *Facts, fresh bool, v *verdict) {
	if f.Partial {
		v.miss(ReasonDaemonSetUnknown, ds.String(), "needs condition %s of pods %s in %s on the node, which was not looked at", want.Condition, want.Selector, want.Namespace)
		return
	}
	found := false
	for i := range f.Pods {
		pod := &f.Pods[i]
		if pod.Terminating || pod.Namespace != want.Namespace || !want.Selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if found = true; !pod.has(want.Condition) || f.stalePod(pod, fresh) {
			v.miss(ReasonPodCondition, ds.String(), "condition %s of pod %s is not True", want.Condition, pod.Name)
			return
		}
	}
	if !found {
		v.miss(ReasonDaemonSetMissing, ds.String(), "no pod %s of namespace %s is on the node", want.Selector, want.Namespace)
	}
}

// has says whether the condition is True; as for kubectl, whatever the case of its type.
func (p *Pod) has(t corev1.PodConditionType) bool {
	for have := range strings.SplitSeq(p.True, ",") {
		if strings.EqualFold(have, string(t)) {
			return true
		}
	}
	return false
}

// JoinTrue renders the types of the conditions that are True, for Pod.True.
func JoinTrue(conditions []corev1.PodCondition) string {
	var out []string
	for i := range conditions {
		if conditions[i].Status == corev1.ConditionTrue {
			out = append(out, string(conditions[i].Type))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
