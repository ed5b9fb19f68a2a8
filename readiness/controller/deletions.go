package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deletionsKey is the key of the NodeClaims that were deleted within their rules' windows: a controller that is started
// again and again must not delete a share of them each time.
const deletionsKey = "deletions"

// loadDeletions takes over what an earlier controller has deleted.
func (l *ledger) loadDeletions(text string) {
	var records []deletionRecord
	if text != "" {
		if err := json.Unmarshal([]byte(text), &records); err != nil {
			l.log.Error(err, "the NodeClaims that were deleted lately cannot be read and are counted anew")
		}
	}
	l.engine.recallDeletions(records)
}

// saveDeletions writes down what has been deleted, or is about to be.
func (l *ledger) saveDeletions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	records := l.engine.deletionRecords()
	slices.SortFunc(records, func(a, b deletionRecord) int { return strings.Compare(a.Rule+a.Claim, b.Rule+b.Claim) })
	text, err := json.Marshal(records)
	if err != nil {
		return fmt.Errorf("encode deletions: %w", err)
	}
	cm, err := l.maps.Get(ctx, ledgerName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: ledgerName}, Data: map[string]string{deletionsKey: string(text)}}
		if _, err = l.maps.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("write down deletions: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read deletions: %w", err)
	}
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	cm.Data[deletionsKey] = string(text)
	if _, err = l.maps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write down deletions: %w", err)
	}
	return nil
}
