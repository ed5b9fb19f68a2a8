package agent

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func TestInventoryChangesAtMostOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inventory throttled
		began := time.Now()
		changes, last := 0, ""
		for i := range 50 {
			text := inventory.next(fmt.Sprint(i), corev1.ConditionFalse, time.Now(), func() {})
			if text != last {
				changes, last = changes+1, text
			}
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the bubble's clock
		}
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, 5, changes)
	})
}

func TestInventoryIsNeverForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inventory throttled
		again := make(chan struct{}, 1)
		require.Equal(t, "a", inventory.next("a", corev1.ConditionFalse, time.Now(), nil))
		require.Equal(t, "a", inventory.next("b", corev1.ConditionFalse, time.Now(), func() { again <- struct{}{} }))
		<-again
		require.Equal(t, "b", inventory.next("b", corev1.ConditionFalse, time.Now(), nil))
		require.Equal(t, "c", inventory.next("c", corev1.ConditionTrue, time.Now(), nil), "rides along with the condition")
	})
}
