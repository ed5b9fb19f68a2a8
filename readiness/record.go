package readiness

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// MaxRecordBytes bounds what is read of the annotation headstart.dev/readiness: a Node's annotations may be written by
// the node itself.
const MaxRecordBytes = 32 << 10

// Record is the annotation headstart.dev/readiness: what the controller has done to this node and what is therefore its
// to undo. Completion is keyed by rule UID, Node UID and bootID. Its JSON form is
// {"node":"<uid>","rules":{"<rule uid>":{"name":"r","state":"done","taint":"key:effect","boot":"<id>","at":<unix s>}},"labels":["l"]}.
type Record struct {
	// Node is the UID of the Node that the record is of: a copy on another Node says nothing.
	Node types.UID `json:"node"`
	// Rules is keyed by rule UID.
	Rules map[types.UID]Entry `json:"rules,omitempty"`
	// Labels are the readyLabels that the controller has put there, sorted.
	Labels []string `json:"labels,omitempty"`
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
}

// at is Entry.At as a time.
func (e *Entry) at() time.Time { return time.Unix(e.At, 0) }

// DecodeRecord reads the node's record. A record of another Node, or one that cannot be read, is empty: what it claimed
// is then decided from the node's taints alone. The error is for the log.
func DecodeRecord(node *corev1.Node) (Record, error) {
	empty := Record{Node: node.UID}
	text := node.Annotations[AnnotationReadiness]
	if text == "" {
		return empty, nil
	}
	if len(text) > MaxRecordBytes {
		return empty, fmt.Errorf("decode annotation %s: %d bytes, at most %d are allowed", AnnotationReadiness, len(text), MaxRecordBytes)
	}
	var rec Record
	if err := json.Unmarshal([]byte(text), &rec); err != nil {
		return empty, fmt.Errorf("decode annotation %s: %w", AnnotationReadiness, err)
	}
	if rec.Node != node.UID {
		return empty, nil
	}
	return rec, nil
}

// Encode renders the record; equal records give equal text.
func (r *Record) Encode() (string, error) {
	out, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode readiness record: %w", err)
	}
	return string(out), nil
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
