package registry

// How many requests there are at once follows what they bring together: more of them are worth it while the total grows
// by them, and where it does not, fewer bring the same and leave the link, the registry and the memory to others.
const (
	// restAtFirst is how many full windows pass before another number is tried. With goodputWindow it is three seconds:
	// most pulls are over before any of their speed is spent on finding out.
	restAtFirst = 6
	// restAtMost is where the rest ends to double: a trial that fails costs a quarter of a window or two, so at most a
	// hundredth of what comes meanwhile.
	restAtMost = 48
	// leastConnections leaves one that moves when the other stalls.
	leastConnections = 2
)

// climb decides how many requests run at once, from the goodput of one window after the other in which all of them were
// busy. It knows no clock. The memory for ranges is the upper bound, and where it begins: a pull is short, and a link that
// is full shows within seconds.
type climb struct {
	limit, most int

	// The trial under way: what the limit was before it and what that brought, in bytes a second. from is 0 without one.
	from   int
	before float64

	goal int // the limit before a cut, 0 without one

	rest, left int  // windows from one trial to the next, and until the next
	down       bool // the next trial is one of fewer
}

func newClimb(most int) climb {
	return climb{limit: most, most: most, rest: restAtFirst, left: restAtFirst, down: true}
}

// window takes the goodput of a window, in bytes a second, and returns how many requests the next one has.
func (c *climb) window(goodput float64) int {
	if c.from != 0 {
		if !c.paid(goodput) {
			c.limit, c.from = c.from, 0
			c.left, c.down = c.rest, !c.down
			c.rest = min(2*c.rest, restAtMost)
			return c.limit
		}
		c.rest, c.left = restAtFirst, 0 // on in this direction
	}
	c.from = 0
	if c.left > 0 {
		c.left--
		return c.limit
	}
	next := c.step()
	if next == c.limit { // at an end
		c.down = !c.down
		c.left = c.rest
		return c.limit
	}
	c.from, c.before, c.limit = c.limit, goodput, next
	return c.limit
}

// step is the limit to try next: a quarter less or a third more, so that each undoes the other.
func (c *climb) step() int {
	if c.down {
		return max(min(leastConnections, c.most), c.limit-max(1, c.limit/4))
	}
	return min(c.most, c.limit+max(1, c.limit/3))
}

// paid reports whether the limit tried is the better one. The larger of two limits is when it brings at least half of
// what it would if every connection had its own share of the network.
func (c *climb) paid(goodput float64) bool {
	few, many, byFew, byMany := c.limit, c.from, goodput, c.before
	if few > many {
		few, many, byFew, byMany = many, few, byMany, byFew
	}
	worth := byMany >= byFew*(1+float64(many-few)/float64(few)/2)
	return worth == (c.limit == many)
}

// regain goes back up after a cut, one by one, when a window has brought no other and could not tell what more would
// bring: too few requests are no reason to stay with as few.
func (c *climb) regain() int {
	if c.limit < c.goal {
		c.limit++
	}
	return c.limit
}

// cut halves the limit, because a registry says that it is too much, and goes up from there as far as it pays.
func (c *climb) cut() int {
	c.goal = max(c.goal, c.limit)
	c.limit = max(1, c.limit/2)
	c.from, c.down = 0, false
	c.rest, c.left = restAtFirst, restAtFirst
	return c.limit
}
