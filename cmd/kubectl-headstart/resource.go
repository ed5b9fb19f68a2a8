package main

import (
	"strings"

	"headstart.dev/cmd/internal/cli"
)

// Kinds of what can be asked for.
const (
	kindNode = "node"
	kindPod  = "pod"
)

// kinds are kubectl's names of them.
var kinds = map[string]string{
	"no": kindNode, "node": kindNode, "nodes": kindNode,
	"po": kindPod, "pod": kindPod, "pods": kindPod,
}

// resource reads KIND/NAME, or KIND NAME, as kubectl takes them. A name without a kind is that of a node.
func resource(args []string) (kind, name string, err error) {
	word, name := kindNode, args[0]
	if before, after, slash := strings.Cut(args[0], "/"); slash {
		if len(args) > 1 {
			return "", "", cli.Usagef("%q: want one %s, not more", strings.Join(args, " "), before)
		}
		word, name = before, after
	} else if len(args) > 1 {
		word, name = args[0], args[1]
	}
	kind, known := kinds[strings.ToLower(word)]
	switch {
	case !known:
		return "", "", cli.Usagef("%q is neither a pod nor a node: want pod/NAME or node/NAME", word)
	case name == "" || strings.Contains(name, "/"):
		return "", "", cli.Usagef("%q: want %s/NAME", strings.Join(args, " "), kind)
	}
	return kind, name, nil
}
