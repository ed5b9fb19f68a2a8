package tokens_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/tokens"
)

func TestTokensGoByRank(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tk := tokens.New(1)
		require.NoError(t, tk.Acquire(t.Context(), tokens.Rank{}))
		order := make(chan string, 4)
		wait := func(name string, rank tokens.Rank) {
			go func() {
				if tk.Acquire(t.Context(), rank) == nil {
					order <- name
					tk.Release()
				}
			}()
			synctest.Wait()
		}
		wait("late small", tokens.Rank{Cost: 1})
		wait("large", tokens.Rank{Cost: 9})
		wait("urgent", tokens.Rank{Priority: 5})
		wait("second small", tokens.Rank{Cost: 1})
		tk.Release()
		synctest.Wait()
		require.Equal(t, []string{"urgent", "large", "late small", "second small"}, []string{<-order, <-order, <-order, <-order})
	})
}

func TestTokensSurviveCancelAndNewLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tk := tokens.New(1)
		require.NoError(t, tk.Acquire(t.Context(), tokens.Rank{}))
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() { failed <- tk.Acquire(ctx, tokens.Rank{}) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)

		tk.SetLimit(2)
		require.NoError(t, tk.Acquire(t.Context(), tokens.Rank{}))
		tk.SetLimit(0)
		require.Equal(t, 1, tk.Limit(), "one token is the least")
		tk.Release()
		got := make(chan error, 1)
		go func() { got <- tk.Acquire(t.Context(), tokens.Rank{}) }()
		synctest.Wait()
		require.Empty(t, got, "one is still in use and one is all there is")
		tk.Release()
		require.NoError(t, <-got)
	})
}

// A context that has ended takes no token, though one is free: nobody would give it back.
func TestAcquireAfterTheEndTakesNone(t *testing.T) {
	s := tokens.New(1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Acquire(ended, tokens.Rank{}), context.Canceled)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.Acquire(ctx, tokens.Rank{}), "it is still free")
}
