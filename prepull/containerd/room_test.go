package containerd

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd/internal/layer"
	"headstart.dev/prepull/containerd/internal/registry"
)

// What one writer was granted another lacks, until it has written it or given it back.
func TestGrantsAddUp(t *testing.T) {
	n := &node{ledger: &ledger{}, found: Discovery{SnapshotterRoot: t.TempDir()}}
	free, err := n.free(0, 0)
	require.NoError(t, err)
	n.keepFree = room{bytes: free / 2}
	first, second := n.claim(), n.claim()
	granted, err := first.grant(free/4, 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, granted, free/4)
	_, err = second.grant(free/3, 0)
	require.ErrorIs(t, err, ErrNoRoom)
	first.end()
	_, err = second.grant(free/3, 0)
	require.NoError(t, err)
	second.end()
	require.Zero(t, n.ledger.granted)
	require.False(t, n.hasRoom(free))
	var nobody *claim
	granted, err = nobody.grant(1, 0)
	require.NoError(t, err)
	require.EqualValues(t, int64(math.MaxInt64), granted)
	nobody.end()
}

// What a failure means for another attempt.
func TestClassify(t *testing.T) {
	hostile := errors.Join(errors.New("engine direct"), layer.ErrHostile)
	asked := errors.New("engine cri: rpc error: code = Unknown desc = failed to extract layer")
	for name, tc := range map[string]struct {
		err       error
		permanent bool
		refused   bool
	}{
		"no such image":                             {exhausted([]error{registry.ErrNotFound}), false, true},
		"no right":                                  {exhausted([]error{registry.ErrUnauthorized, asked}), false, true},
		"a registry that is down":                   {exhausted([]error{errors.New("503"), asked}), false, false},
		"a layer that nobody can read":              {exhausted([]error{hostile, asked}), true, false},
		"a layer that only the CRI could not fetch": {exhausted([]error{hostile, errors.New("i/o timeout")}), false, false},
		"the same by a digest with digits in it":    {exhausted([]error{hostile, errors.New("sha256:00429e503")}), true, false},
		"a layer larger than the disk":              {layer.ErrOversize, true, false},
		"a verifier's no":                           {errVerifier, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := classify(tc.err)
			require.Equal(t, tc.permanent, prepull.IsPermanent(err))
			_, refused := errors.AsType[*prepull.RefusedError](err)
			require.Equal(t, tc.refused, refused && !tc.permanent)
		})
	}
	full := &roomError{own: 30, need: 40, free: 5, keep: 3, total: 12}
	require.True(t, prepull.IsPermanent((&node{ledger: &ledger{}}).afterRoom(full, 0)), "no clearing makes that room")
	full.own = 15
	_, later := errors.AsType[*prepull.LaterError]((&node{ledger: &ledger{}}).afterRoom(full, 0))
	require.True(t, later, "what others were granted is no reason to give up")
}
