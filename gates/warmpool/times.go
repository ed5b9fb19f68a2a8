package warmpool

import (
	"slices"
	"time"
)

// maxTimes is how many measurements a Times keeps: the 95th percentile of 64 still forgets three stragglers.
const maxTimes = 64

// Times keeps the last measurements of one duration. The zero value is empty and ready. Not safe for concurrent use.
type Times struct{ last []time.Duration }

// Add records a measurement. What is not positive was not measured and is dropped.
func (t *Times) Add(d time.Duration) {
	if d <= 0 {
		return
	}
	if len(t.last) == maxTimes {
		t.last = slices.Delete(t.last, 0, 1)
	}
	t.last = append(t.last, d)
}

// Quantile returns the q-quantile, or fallback where nothing was measured.
func (t *Times) Quantile(q float64, fallback time.Duration) time.Duration {
	if len(t.last) == 0 {
		return fallback
	}
	return quantile(slices.Clone(t.last), q)
}

// Len returns how many measurements there are.
func (t *Times) Len() int { return len(t.last) }

// Seconds returns the measurements in seconds, oldest first, for keeping.
func (t *Times) Seconds() []float64 {
	out := make([]float64, 0, len(t.last))
	for _, d := range t.last {
		out = append(out, d.Round(time.Millisecond).Seconds())
	}
	return out
}

// Restore replaces the measurements by those of an earlier Seconds; what no clock can have measured is dropped.
func (t *Times) Restore(seconds []float64) {
	t.last = nil
	for _, s := range seconds {
		if s > 0 && s < (24*time.Hour).Seconds() {
			t.Add(time.Duration(s * float64(time.Second)))
		}
	}
}
