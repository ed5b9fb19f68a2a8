package probe

// settle turns single looks into a settled Result, as the kubelet does for a container: from False to True after success
// looks in a row, from True to False after failure looks in a row. The first look settles a False at once, because
// before it nothing was ready, and so does one that finds nothing to look at.
type settle struct {
	success, failure int

	current   Result
	successes int
	failures  int
}

// observe takes one look and returns the settled result, and whether it differs from the one before.
func (s *settle) observe(look Result) (Result, bool) {
	if look.Status == NotApplicable {
		changed := look != s.current
		*s = settle{success: s.success, failure: s.failure, current: look}
		return look, changed
	}
	if look.Status == True {
		s.successes++
		s.failures = 0
	} else {
		s.failures++
		s.successes = 0
	}
	next := look
	switch {
	case look.Status == True && s.current.Status != True && s.successes < s.success:
		if s.current.Status == "" || s.current.Status == NotApplicable {
			next = notReady(ReasonPending, "succeeded %d of the %d times that it must", s.successes, s.success)
		} else {
			next = s.current
		}
	case look.Status != True && s.current.Status == True && s.failures < s.failure:
		next = s.current
	}
	changed := next != s.current
	s.current = next
	return next, changed
}
