package plan

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLabelsDoNotMeet(t *testing.T) {
	frame := box{balanceLeft, 0, balanceWidth, balanceHeight - balanceBottom}
	for name, at := range map[string][][2]float64{
		"far from each other":       {{100, 50}, {200, 100}, {300, 150}},
		"two at one cost":           {{64, 100}, {64, 104}, {300, 150}},
		"all at one place":          {{64, 100}, {64, 100}, {64, 100}},
		"all at the edge":           {{430, 12}, {430, 14}, {430, 18}},
		"one above the other, near": {{64, 90}, {64, 105}, {64, 120}},
	} {
		t.Run(name, func(t *testing.T) {
			var dots []dot
			for i, strategy := range []string{NamePool, NameFixed, NameCron} {
				dots = append(dots, dot{name: strategy, x: at[i][0], y: at[i][1]})
			}
			place(dots, frame)
			for i := range dots {
				require.True(t, dots[i].label.within(frame))
				for j := range dots {
					require.False(t, dots[i].label.meets(dots[j].box()), "%s on the dot of %s", dots[i].name, dots[j].name)
					require.False(t, j > i && dots[i].label.meets(dots[j].label), "%s on %s", dots[i].name, dots[j].name)
				}
			}
		})
	}
}
