package readiness

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// MaxRecordBytes bounds what is read of the annotation headstart.dev/readiness: a Node's annotations may be written by
// the node itself.
const MaxRecordBytes = 32 << 10

// Record is the annotation headstart.dev/readiness: what the controller has done to this node. Completion is keyed by rule
// UID, Node UID and bootID.
//
// A node can write its own annotations, where no policy denies it that. So the record authorises nothing: a taint or a label
// goes only where a rule of today names it, or one that is kept in the ledger. What a node gains by writing a record of its
// own is an end of its own hold (a "done" that it is not), which it has anyway from its own conditions, and what it loses is
// its own place in the queue: a rule protects pods from nodes that start, not the cluster from nodes that lie.
//
// Its JSON form is
// {"node":"<uid>","rules":{"<rule uid>":{"name":"r","state":"done","taint":"key:effect","boot":"<id>","at":<unix s>}},"labels":["l"]}.
type Record struct {
	// Node is the UID of the Node that the record is of: a copy on another Node says nothing.
	Node types.UID `json:"node"`
	// Rules is keyed by rule UID.
	Rules map[types.UID]Entry `json:"rules,omitempty"`
	// Labels are the readyLabels that the controller has put there, sorted.
	Labels []string `json:"labels,omitempty"`
	// More says that the entries of some completed rules had no room, or that the record is this node's and cannot be read:
	// a bootstrap without an entry and without its taint is taken for done.
	More bool `json:"more,omitempty"`
	// Boot is that of the entries which name none; "" unless the record would be too long otherwise.
	Boot string `json:"boot,omitempty"`
}

// EntryState is how far a rule has come with a node.
type EntryState string

// The states of an Entry.
const (
	EntryHeld     EntryState = "held"
	EntryDone     EntryState = "done"
	EntryTimedOut EntryState = "timedOut"
)

// Entry is what one rule has done to the node.
type Entry struct {
	Name  string     `json:"name"`
	State EntryState `json:"state"`
	// Taint is the taint (key:effect) that is the rule's to take off.
	Taint string `json:"taint,omitempty"`
	// Boot is the bootID in which the state was reached; "" where the kubelet had not reported one.
	Boot string `json:"boot,omitempty"`
	// At is when it was reached, in seconds since 1970 of the API server's clock.
	At int64 `json:"at,omitempty"`
	// Rearmed marks a hold that a reboot caused: reports of the boot before do not count.
	Rearmed bool `json:"rearmed,omitempty"`
	// Old marks what was seen before: where the node boots again, it is no evidence. Only of rules that ask for it.
	Old Marks `json:"old,omitempty"`
}

// at is Entry.At as a time.
func (e *Entry) at() time.Time { return time.Unix(e.At, 0) }

// DecodeRecord reads the node's record. One of another Node is empty: what it claimed is then decided from the node's taints
// alone. One that cannot be read is empty too, but for More where it names this Node: what was completed must not begin
// again because it cannot be read. The error is for the log.
func DecodeRecord(node *corev1.Node) (Record, error) {
	empty := Record{Node: node.UID}
	text := node.Annotations[AnnotationReadiness]
	if text == "" {
		return empty, nil
	}
	mine := Record{Node: node.UID, More: strings.Contains(text, `"node":"`+string(node.UID)+`"`)}
	if len(text) > MaxRecordBytes {
		return mine, fmt.Errorf("decode annotation %s: %d bytes, at most %d are allowed", AnnotationReadiness, len(text), MaxRecordBytes)
	}
	var rec Record
	if err := json.Unmarshal([]byte(text), &rec); err != nil {
		return mine, fmt.Errorf("decode annotation %s: %w", AnnotationReadiness, err)
	}
	if rec.Node != node.UID {
		return empty, nil
	}
	rec.each(func(e *Entry) {
		if e.Taint == "" && e.Name != "" {
			e.Taint = defaultTaintID(e.Name)
		}
		e.Boot = cmp.Or(e.Boot, rec.Boot)
	})
	rec.Boot = ""
	return rec, nil
}

// Encode renders the record; equal records give equal text. It stays within MaxRecordBytes, as what is read must: it leaves
// out first what has a default, then what only tells people or another rule of the same name, then the entries of completed
// rules, and says so in More. Entries of holds go before those of completions: the taint on the node tells of them.
func (r *Record) Encode() (string, error) {
	out := *r
	for _, shrink := range []func(*Record){func(*Record) {}, (*Record).dropDefaults, (*Record).dropNames, (*Record).dropEntries} {
		shrink(&out)
		text, err := json.Marshal(&out)
		if err != nil {
			return "", fmt.Errorf("encode readiness record: %w", err)
		}
		if len(text) <= MaxRecordBytes {
			return string(text), nil
		}
	}
	text, err := json.Marshal(&Record{Node: r.Node, More: true})
	if err != nil {
		return "", fmt.Errorf("encode readiness record: %w", err)
	}
	return string(text), nil
}

func defaultTaintID(rule string) string {
	return TaintID(&corev1.Taint{Key: TaintPrefix + rule, Effect: corev1.TaintEffectNoSchedule})
}

// each changes the entries of a copy.
func (r *Record) each(change func(*Entry)) {
	if r.Rules == nil {
		return
	}
	rules := make(map[types.UID]Entry, len(r.Rules))
	for uid, e := range r.Rules {
		change(&e)
		rules[uid] = e
	}
	r.Rules = rules
}

func (r *Record) dropDefaults() {
	for _, uid := range slices.Sorted(maps.Keys(r.Rules)) {
		r.Boot = cmp.Or(r.Boot, r.Rules[uid].Boot)
	}
	r.each(func(e *Entry) {
		if e.Taint == defaultTaintID(e.Name) {
			e.Taint = ""
		}
		if e.Boot == r.Boot {
			e.Boot = ""
		}
	})
}

func (r *Record) dropNames() {
	r.each(func(e *Entry) {
		e.Name, e.Taint = "", ""
		if e.State == EntryDone {
			e.At = 0
		}
	})
}

// dropEntries keeps what half of the room holds at the least: an entry without names has at most some 200 bytes.
func (r *Record) dropEntries() {
	const keep = MaxRecordBytes / 2 / 200
	order := slices.SortedFunc(maps.Keys(r.Rules), func(a, b types.UID) int {
		return cmp.Or(r.Rules[a].weight()-r.Rules[b].weight(), strings.Compare(string(a), string(b)))
	})
	rules := map[types.UID]Entry{}
	for _, uid := range order[:min(keep, len(order))] {
		e := r.Rules[uid]
		e.Old = nil
		rules[uid] = e
	}
	r.Rules, r.More = rules, true
	r.Labels = r.Labels[:min(len(r.Labels), keep/2)]
}

// weight orders entries by what is lost with them: nothing else tells of a rule that timed out.
func (e Entry) weight() int {
	switch e.State {
	case EntryTimedOut:
		return 0
	case EntryDone:
		return 1
	default:
		return 2
	}
}

// inherited returns the entry of a rule that had the same name and taint under an older UID (one that was deleted and
// created again, as GitOps does), and whether there is one. live says which UIDs are rules today.
func (r *Record) inherited(rule *Rule, live func(types.UID) bool) (Entry, bool) {
	for uid, e := range r.Rules {
		if uid != rule.UID && e.Name == rule.Name && e.Taint == TaintID(&rule.Taint) && !live(uid) {
			return e, true
		}
	}
	return Entry{}, false
}
