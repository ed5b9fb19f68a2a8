package warm

// Images counts the keys that the index holds.
func Images(x *Index) int { return len(x.images) }
