// Package plan replays recorded demand against ways to size a warm pool and says what each would have cost and whom it
// would have made wait. A strategy only ever sees demand up to now; sizes that need hindsight (15% of a peak) are given
// it, and the report says so. Pure and deterministic. Start from Run.
package plan
