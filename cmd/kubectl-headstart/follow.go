package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/readiness"
	"headstart.dev/readiness/inspect"
)

const (
	// lookAgain is how often what nodes are judged by is read anew while they are watched: rules, who is alive, the time.
	lookAgain = 10 * time.Second
	// beginAgain is the pause before a watch that has ended is begun anew.
	beginAgain = time.Second
	// stateDeleted is the state of a node that went while it was looked at.
	stateDeleted readiness.State = "Deleted"
)

// follower prints each node whose row has changed.
type follower struct {
	*statusFlags
	cmd *cobra.Command
	c   *cluster

	facts  facts
	nodes  map[string]corev1.Node
	rows   map[string][]string // as they were printed last
	notice string
	begun  bool
}

// follow prints the status, and then every change until the user has seen enough.
func (s *statusFlags) follow(cmd *cobra.Command, c *cluster) error {
	f := &follower{statusFlags: s, cmd: cmd, c: c, rows: map[string][]string{}}
	ctx, warn := cmd.Context(), once(warner(cmd))
	for {
		if err := f.look(ctx, warn); err != nil && ctx.Err() == nil {
			if !f.begun {
				return err
			}
			warn(err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(beginAgain):
		}
	}
}

// look lists the nodes, prints what has changed, and watches them until the watch ends.
func (f *follower) look(ctx context.Context, warn func(string)) error {
	nodes, version, err := f.c.nodes(ctx, f.of)
	if err != nil {
		return err
	}
	if f.facts, err = f.c.facts(ctx, warn); err != nil {
		return err
	}
	before := f.nodes
	f.nodes = map[string]corev1.Node{}
	for i := range nodes {
		f.nodes[nodes[i].Name] = nodes[i]
		delete(before, nodes[i].Name)
	}
	if err := f.show(); err != nil {
		return err
	}
	for name := range before {
		if err := f.gone(name); err != nil {
			return err
		}
	}
	options := metav1.ListOptions{LabelSelector: f.of.selector, ResourceVersion: version}
	if f.of.name != "" {
		options.FieldSelector = "metadata.name=" + f.of.name
	}
	changes, err := f.c.watching.CoreV1().Nodes().Watch(ctx, options)
	if err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	defer changes.Stop()
	return f.take(ctx, changes.ResultChan(), warn)
}

func (f *follower) take(ctx context.Context, changes <-chan watch.Event, warn func(string)) error {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			facts, err := f.c.facts(ctx, warn)
			if err != nil {
				return err
			}
			f.facts = facts
		case change, open := <-changes:
			node, isNode := change.Object.(*corev1.Node)
			if !open || !isNode { // it has ended, or tells of an error: what comes next is a list
				return nil
			}
			if change.Type == watch.Deleted {
				if err := f.gone(node.Name); err != nil {
					return err
				}
				continue
			}
			f.nodes[node.Name] = *node
			f.facts.view.Now = f.c.clock.now()
		}
		if err := f.show(); err != nil {
			return err
		}
	}
}

// show prints the nodes whose rows have changed: all of them the first time. With --held those too that are held no more.
func (f *follower) show() error {
	nodes := make([]corev1.Node, 0, len(f.nodes))
	for _, node := range f.nodes {
		nodes = append(nodes, node)
	}
	report := f.facts.view.Nodes(nodes, f.facts.rules)
	table := f.facts.view.StatusTable(report, f.output == cli.Wide)
	widths := table.Widths(f.width())
	out := f.cmd.OutOrStdout()
	if !f.begun && f.table() && !f.noHeaders {
		fmt.Fprintln(out, table.Line(table.Header, widths))
	}
	f.begun = true
	for i := range report {
		if !f.changed(&report[i], table.Rows[i]) {
			continue
		}
		if err := f.one(out, &report[i], table.Line(table.Rows[i], widths)); err != nil {
			return err
		}
	}
	notice := f.facts.view.Notice()
	if notice != f.notice && notice != "" {
		warner(f.cmd)(notice)
	}
	f.notice = notice
	return nil
}

// changed says whether a node is to be shown, and remembers it as shown.
func (f *follower) changed(node *inspect.Node, row []string) bool {
	row = slices.Clone(row)
	row[inspect.AgeColumn] = ""
	last, shown := f.rows[node.Name]
	leaves := f.held && node.State != readiness.StateHeld
	if leaves {
		delete(f.rows, node.Name)
		return shown
	}
	f.rows[node.Name] = row
	return !shown || !slices.Equal(last, row)
}

// one prints one node in the form that was asked for.
func (f *follower) one(out io.Writer, node *inspect.Node, line string) error {
	switch f.output {
	case cli.Name:
		line = "node/" + node.Name
	case cli.YAML:
		fmt.Fprintln(out, "---")
		return cli.Print(out, f.output, node)
	case cli.JSON:
		return cli.Print(out, f.output, node)
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// gone tells that a node is there no more, if it was shown.
func (f *follower) gone(name string) error {
	delete(f.nodes, name)
	row, shown := f.rows[name]
	if !shown {
		return nil
	}
	delete(f.rows, name)
	line := strings.Join([]string{name, string(stateDeleted)}, "  ")
	return f.one(f.cmd.OutOrStdout(), &inspect.Node{Name: row[0], State: stateDeleted}, line)
}
