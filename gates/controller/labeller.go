package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"

	"headstart.dev/readiness/health"
)

const (
	// labelPeriod is the least time between two looks at the labels: pods wait for them.
	labelPeriod = 20 * time.Millisecond
	// labelLinger is how long labels stay that no pod asks for any more: pods of one workload come one after another.
	labelLinger = time.Minute
	// labelEcho is how long the watch may take to show a label that was written; after it the write is tried again.
	labelEcho = 5 * time.Second
	// labelWriters is how many nodes are written at once.
	labelWriters = 8
)

// labeller sets the labels of placement Required on warm nodes, for as many as pods ask for, and takes them off again. It
// keeps no record: the labels on the nodes are the record, and the pods say who wants them.
type labeller struct {
	nodes    metadata.Getter
	waitlist *waitlist
	log      logr.Logger
	bell     bell
	opened   <-chan struct{}
	work     health.Work

	idleSince map[string]time.Time // by label, since when no pod asks for it
	sent      map[labelChange]time.Time
}

func newLabeller(nodes metadata.Getter, list *waitlist, log logr.Logger, opened <-chan struct{}) *labeller {
	return &labeller{
		nodes: nodes, waitlist: list, log: log, bell: newBell(), opened: opened,
		idleSince: map[string]time.Time{}, sent: map[labelChange]time.Time{},
	}
}

// run keeps the labels until ctx ends.
func (l *labeller) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-l.opened:
	}
	l.bell.each(ctx, labelPeriod, func() time.Time { return l.reconcile(ctx, time.Now()) })
	return nil
}

// reconcile brings the labels to what they should be, and says when to look again although nothing happens.
func (l *labeller) reconcile(ctx context.Context, now time.Time) (again time.Time) {
	for change, at := range l.sent {
		if now.Sub(at) >= labelEcho {
			delete(l.sent, change)
		}
	}
	group := errgroup.Group{}
	group.SetLimit(labelWriters)
	for _, change := range l.waitlist.labels(func(label string, wanted bool) bool { return l.expired(label, wanted, now) }) {
		if _, done := l.sent[change]; done {
			continue
		}
		l.sent[change] = now
		delete(l.sent, labelChange{change.node, change.uid, change.label, !change.set})
		group.Go(func() error {
			if err := l.write(ctx, change); err != nil && ctx.Err() == nil {
				l.log.Error(err, "label not written")
			}
			return nil
		})
	}
	_ = group.Wait() // nothing of it fails: see sent
	for _, since := range l.idleSince {
		again = sooner(again, since.Add(labelLinger))
	}
	for _, at := range l.sent {
		again = sooner(again, at.Add(labelEcho))
	}
	return again
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// expired says whether nobody has asked for a label long enough that it may go.
func (l *labeller) expired(label string, wanted bool, now time.Time) bool {
	since, idle := l.idleSince[label]
	switch {
	case wanted:
		delete(l.idleSince, label)
	case !idle:
		l.idleSince[label] = now
	case now.Sub(since) >= labelLinger:
		delete(l.idleSince, label)
		return true
	}
	return false
}

func (l *labeller) write(ctx context.Context, change labelChange) error {
	defer l.work.Begin().End()
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	var value any
	if change.set {
		value = "true"
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": change.uid, "labels": map[string]any{change.label: value}}})
	if err != nil {
		return fmt.Errorf("encode patch of node %s: %w", change.node, err)
	}
	_, err = l.nodes.Patch(ctx, change.node, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsNotFound(err) && !anotherObject(err) {
		return fmt.Errorf("label node %s: %w", change.node, err)
	}
	l.log.V(1).Info("steering label", "node", change.node, "label", change.label, "set", change.set)
	return nil
}
