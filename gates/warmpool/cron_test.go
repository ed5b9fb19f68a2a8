package warmpool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCronErrorsArePlain(t *testing.T) {
	cases := map[string]string{
		"0 30 8 * * 1-5":         "it has 6 fields, want five: minute, hour, day of the month, month, day of the week; there is none for seconds or years",
		"0 30 8 * * 1-5 2026":    "there is none for seconds or years",
		"30 8 * *":               "it has 4 fields, want five",
		"":                       "it has 0 fields",
		"30 8 L * *":             `day of the month "L": L, W and # are not known here`,
		"30 8 15W * *":           `day of the month "15W": L, W and #`,
		"30 8 LW * *":            "L, W and #",
		"30 8 L-3 * *":           "L, W and #",
		"30 8 * * 5L":            `day of the week "5L": L, W and #`,
		"30 8 * * FRIL":          "L, W and #",
		"30 8 * * 1#2":           `day of the week "1#2": L, W and #`,
		"60 8 * * *":             `minute "60": want 0 to 59`,
		"0 24 * * *":             `hour "24": want 0 to 23`,
		"0 8 0 * *":              `day of the month "0": want 1 to 31`,
		"0 8 * 13 *":             `month "13": want 1 to 12`,
		"0 8 * * 8":              `day of the week "8": want 0 to 6`,
		"0 8 * * 5-1":            `day of the week "5-1": the range ends before it begins: write it as two, 5-6,0-1`,
		"0 19-8 * * *":           "write it as two, 19-23,0-8",
		"*/0 8 * * *":            "want a step of 1 or more",
		"0 8 1,,2 * *":           "a value is missing beside a comma",
		"@reboot":                "@reboot is not known: write five fields, or one of @yearly",
		"99999999999999 8 * * *": "want 0 to 59",
	}
	for expr, want := range cases {
		t.Run(expr, func(t *testing.T) {
			_, err := NewSchedule("x", expr, "0 0 * * *", "UTC", 1)
			require.ErrorContains(t, err, want)
		})
	}
}

func TestCronTakesWhatCrontabTakes(t *testing.T) {
	sunday := time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC)
	for _, expr := range []string{"0 8 * * 0", "0 8 * * 7", "0 8 * * sun", "0 8 * * 6-7", "0 8 * * 7-7", "0 8 * * 1,7", "0 8 * * 0-6/7"} {
		s, err := NewSchedule("x", expr, "0 9 * * *", "UTC", 1)
		require.NoError(t, err, expr)
		require.True(t, s.Active(sunday.Add(8*time.Hour+time.Minute)), expr)
	}
	for _, expr := range []string{"*/15 8-18 * * MON-FRI", "0 8 1,15 JAN-MAR *", "0 8 ? * *", "@daily", "5/10 * * * *"} {
		_, err := NewSchedule("x", expr, "0 9 * * *", "UTC", 1)
		require.NoError(t, err, expr)
	}
}

func TestPercentIsAShareOfTheWorkload(t *testing.T) {
	s := NewSizer(Config{Min: 2, Max: 50, Percent: 20})
	for scale, want := range map[int32]int32{0: 2, 10: 2, 11: 3, 100: 20, 1000: 50} {
		s.SetScale(scale)
		require.Equal(t, want, s.Decide(monday, lead, 0).Replicas, "%d replicas", scale)
	}
	s.SetScale(100)
	require.Equal(t, "20% of the workload's replicas are 20", s.Decide(monday, lead, 0).Reason())
	require.EqualValues(t, 30, s.Decide(monday, lead, 30).Replicas, "the largest input wins")
}
