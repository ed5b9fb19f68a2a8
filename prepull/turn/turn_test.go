package turn_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/turn"
)

func TestSchedule(t *testing.T) {
	idle := func(place int64) turn.Node { return turn.Node{Place: place} }
	busy := func(place int64) turn.Node { return turn.Node{Place: place, Busy: true} }
	cases := map[string]struct {
		nodes       []turn.Node
		max, slots  int
		wantMembers int64
		wantOpen    int64
	}{
		"no node":                                {slots: 2, wantMembers: turn.Last, wantOpen: turn.Last},
		"fewer busy nodes than slots let all in": {nodes: []turn.Node{busy(5), idle(7), busy(9)}, slots: 2, wantMembers: turn.Last, wantOpen: turn.Last},
		"one busy node too many waits":           {nodes: []turn.Node{busy(9), busy(5), busy(7)}, slots: 2, wantMembers: turn.Last, wantOpen: 8},
		"a node that finishes opens the door":    {nodes: []turn.Node{busy(9), idle(5), busy(7)}, slots: 2, wantMembers: turn.Last, wantOpen: turn.Last},
		"idle nodes take no slot":                {nodes: []turn.Node{idle(1), idle(2), busy(3), busy(4)}, slots: 1, wantMembers: turn.Last, wantOpen: 3},
		"maxNodes takes the first places":        {nodes: []turn.Node{idle(9), idle(5), idle(7)}, max: 2, wantMembers: 7, wantOpen: turn.Last},
		"maxNodes larger than the fleet":         {nodes: []turn.Node{idle(9)}, max: 2, wantMembers: turn.Last, wantOpen: turn.Last},
		"nodes that are no members take no slot": {nodes: []turn.Node{busy(5), busy(7), busy(9)}, max: 2, slots: 2, wantMembers: 7, wantOpen: turn.Last},
		"no limit of slots":                      {nodes: []turn.Node{busy(5), busy(7)}, wantMembers: turn.Last, wantOpen: turn.Last},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			members, open := turn.Schedule(tc.nodes, tc.max, tc.slots)
			require.Equal(t, tc.wantMembers, members, "members")
			require.Equal(t, tc.wantOpen, open, "open")
		})
	}
}

func TestScheduleLetsEveryNodeInAndNeverTooMany(t *testing.T) {
	const fleet, slots = 1000, 100
	nodes := make([]turn.Node, fleet)
	for i := range nodes {
		nodes[i] = turn.Node{Place: turn.Place("uid", fmt.Sprintf("ip-10-0-%d-%d", i/256, i%256)), Busy: true}
	}
	started := map[int]bool{}
	rounds := 0
	for ; len(started) < fleet; rounds++ {
		_, open := turn.Schedule(nodes, 0, slots)
		let := 0
		for i := range nodes {
			if nodes[i].Busy && nodes[i].Place <= open {
				let++
				started[i] = true
			}
		}
		require.LessOrEqual(t, let, slots)
		require.NotZero(t, let, "no round without progress")
		for i := range nodes {
			nodes[i].Busy = nodes[i].Busy && nodes[i].Place > open
		}
	}
	require.Equal(t, fleet/slots, rounds)
}

func TestPlaceIsEvenAndPerPolicy(t *testing.T) {
	const fleet = 10000
	var quarters [4]int
	same := 0
	for i := range fleet {
		node := fmt.Sprintf("ip-10-0-%d-%d.ec2.internal", i/256, i%256)
		place := turn.Place("policy-a", node)
		require.GreaterOrEqual(t, place, int64(0))
		require.LessOrEqual(t, place, turn.Last)
		quarters[place>>30]++
		if turn.Place("policy-b", node)>>30 == place>>30 {
			same++
		}
	}
	// Four standard deviations of a binomial distribution with p = 1/4.
	tolerance := 4 * math.Sqrt(fleet*0.25*0.75)
	for i, n := range quarters {
		require.InDelta(t, fleet/4, n, tolerance, "quarter %d", i)
	}
	require.InDelta(t, fleet/4, same, tolerance, "places of two policies are independent")
}
