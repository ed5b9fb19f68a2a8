// Package probe looks at what a node's pods depend on: one file a probe family, each a Checker that looks once, and a
// Watcher too where the system can say when to look again. A Runner turns looks into a settled Result by thresholds. No
// check may block past its context: what cannot be cancelled is opened non-blocking or runs in a child process. Start
// from Runner.
package probe

import (
	"context"
	"fmt"
	"strings"
)

// Status is what a look found. It has the form of a condition's status.
type Status string

// The outcomes of a look.
const (
	True    Status = "True"
	False   Status = "False"
	Unknown Status = "Unknown"
	// NotApplicable means that this node has nothing of what the probe looks for, as a node without a GPU. It is neither
	// good nor bad, and no condition.
	NotApplicable Status = "NotApplicable"
)

// Satisfied says whether nothing has to be waited for.
func (s Status) Satisfied() bool { return s == True || s == NotApplicable }

// Result is what a look found. Reason is a PascalCase constant, Message one line for a person.
type Result struct {
	Status  Status `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Reasons that several families share.
const (
	// ReasonReady is the reason of every True result.
	ReasonReady = "Ready"
	// ReasonPending is the reason before the first look.
	ReasonPending = "NotProbedYet"
	// ReasonTimeout means that the probe did not answer before its deadline.
	ReasonTimeout = "Timeout"
	// ReasonUnreachable means that nobody listens there.
	ReasonUnreachable = "Unreachable"
	// ReasonUnhealthy means that somebody answered, and said no.
	ReasonUnhealthy = "Unhealthy"
	// ReasonNotFound means that a file, a socket or a unit is not there.
	ReasonNotFound = "NotFound"
	// ReasonInvalid means that something is there, and is not what it should be.
	ReasonInvalid = "Invalid"
)

// Checker looks once. Check honours ctx, returns no later than its deadline, and is called by one goroutine at a time.
type Checker interface {
	Check(ctx context.Context) Result
}

// Watcher is a Checker that is told by the system when another look is worth it. Watch calls wake on every such event
// until ctx ends, and returns an error when it cannot watch; the Runner then goes on by its timers alone. wake does not
// block and may be called from any goroutine.
type Watcher interface {
	Watch(ctx context.Context, wake func()) error
}

// ready is a True result.
func ready(format string, args ...any) Result {
	return Result{Status: True, Reason: ReasonReady, Message: message(format, args...)}
}

// notReady is a False result.
func notReady(reason, format string, args ...any) Result {
	return Result{Status: False, Reason: reason, Message: message(format, args...)}
}

// notApplicable is the result of a probe of what this node does not have.
func notApplicable(reason, format string, args ...any) Result {
	return Result{Status: NotApplicable, Reason: reason, Message: message(format, args...)}
}

// maxMessageBytes keeps what foreign programs say from filling the Node object.
const maxMessageBytes = 512

// message formats one printable line of at most maxMessageBytes: parts of it come from files, sockets and processes that
// are not ours.
func message(format string, args ...any) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(fmt.Sprintf(format, args...), "?")), " ")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
	if len(text) > maxMessageBytes {
		text = strings.ToValidUTF8(text[:maxMessageBytes-3], "") + "..."
	}
	return text
}
