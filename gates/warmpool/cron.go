package warmpool

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// cronFields are the fields of an expression, with what they may be.
var cronFields = []struct {
	name     string
	low, top int
}{{"minute", 0, 59}, {"hour", 0, 23}, {"day of the month", 1, 31}, {"month", 1, 12}, {"day of the week", 0, 6}}

// cronNames are the expressions that have a name.
var cronNames = []string{"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}

var (
	// quartz are the signs of Quartz' dialect: L (last), W (nearest weekday), # (which of the month).
	quartz = regexp.MustCompile(`(?i)^(L|LW|L-[0-9]+|[0-9]+W|[0-9]+L|[a-z]{3}L)$|#`)
	number = regexp.MustCompile(`[0-9]+`)
)

// plainCron returns an expression that the parser takes, or says in plain words what is wrong with this one. Sunday may
// be 7, as crontab(5) has it.
func plainCron(expr string) (string, error) {
	if strings.HasPrefix(expr, "@") {
		if !slices.Contains(cronNames, expr) {
			return "", fmt.Errorf("%s is not known: write five fields, or one of %s", expr, strings.Join(cronNames, ", "))
		}
		return expr, nil
	}
	fields := strings.Fields(expr)
	switch {
	case len(fields) == 6 || len(fields) == 7:
		return "", fmt.Errorf("it has %d fields, want five: minute, hour, day of the month, month, day of the week; there is none for seconds or years", len(fields))
	case len(fields) != 5:
		return "", fmt.Errorf("it has %d fields, want five: minute, hour, day of the month, month, day of the week", len(fields))
	}
	for i, field := range fields {
		for part := range strings.SplitSeq(field, ",") {
			if err := checkPart(i, part); err != nil {
				return "", err
			}
		}
	}
	fields[4] = sunday(fields[4])
	return strings.Join(fields, " "), nil
}

func checkPart(field int, part string) error {
	f := cronFields[field]
	if quartz.MatchString(part) {
		return fmt.Errorf("%s %q: L, W and # are not known here: name days by number, or a range of them", f.name, part)
	}
	span, step, stepped := strings.Cut(part, "/")
	if n, err := strconv.Atoi(step); stepped && (err != nil || n < 1) {
		return fmt.Errorf("%s %q: want a step of 1 or more after the /", f.name, part)
	}
	if part == "" {
		return fmt.Errorf("%s: a value is missing beside a comma", f.name)
	}
	top := f.top
	if field == 4 {
		top = 7
	}
	var bounds []int
	for _, text := range number.FindAllString(span, 2) {
		n, err := strconv.Atoi(text)
		if err != nil || n < f.low || n > top {
			return fmt.Errorf("%s %q: want %d to %d", f.name, part, f.low, f.top)
		}
		bounds = append(bounds, n)
	}
	if len(bounds) == 2 && bounds[0] > bounds[1] {
		return fmt.Errorf("%s %q: the range ends before it begins: write it as two, %d-%d,%d-%d", f.name, part, bounds[0], f.top, f.low, bounds[1])
	}
	return nil
}

// sunday writes 7 as 0. A range that ends with it becomes two.
func sunday(field string) string {
	parts := strings.Split(field, ",")
	for i, part := range parts {
		switch first, last, ranged := strings.Cut(part, "-"); {
		case part == "7":
			parts[i] = "0"
		case ranged && last == "7" && first == "7":
			parts[i] = "0"
		case ranged && last == "7":
			parts[i] = first + "-6,0"
		}
	}
	return strings.Join(parts, ",")
}
