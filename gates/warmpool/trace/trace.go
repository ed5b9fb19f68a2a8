// Package trace holds recorded demand: how many replicas' worth of pods a workload asked for, over time. It reads CSV
// and Prometheus range queries and makes the three traces that the documentation shows. Values only; nothing here
// knows what a warm pool is. Start from Parse or Generate.
package trace

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Point says that from At on, until the next point, demand is Replicas.
type Point struct {
	At       time.Time
	Replicas float64
}

// Trace is a step function of time, ascending, at least two points.
type Trace []Point

// maxPoints bounds what is read: a year of minutes.
const maxPoints = 366 * 24 * 60

var errTooMany = fmt.Errorf("more than %d points: take larger steps or less time", maxPoints)

// maxBytes bounds what is read: maxPoints take about 15 MiB.
const maxBytes = 64 << 20

// Parse reads CSV ("time,replicas"; RFC 3339 or Unix seconds) or the JSON of a Prometheus range query, whichever it is.
// Several series of one query are added up.
func Parse(r io.Reader) (Trace, error) {
	limited := &io.LimitedReader{R: r, N: maxBytes + 1}
	t, err := parse(bufio.NewReader(limited))
	if limited.N <= 0 {
		return nil, fmt.Errorf("parse demand: larger than %d MiB: take larger steps or less time", maxBytes>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("parse demand: %w", err)
	}
	return t, t.check()
}

// parse looks what it is and reads that.
func parse(buffered *bufio.Reader) (Trace, error) {
	for {
		head, _, err := buffered.ReadRune()
		if err != nil {
			return nil, errors.New("the file is empty")
		}
		if head != '\ufeff' && !unicode.IsSpace(head) {
			break
		}
	}
	if err := buffered.UnreadRune(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	head, _ := buffered.Peek(2)
	switch {
	case head[0] == '{':
		return parsePrometheus(buffered)
	case head[0] == '[':
		return nil, errors.New("it is a list: want CSV, or the whole JSON of /api/v1/query_range")
	case string(head) == "\x1f\x8b":
		return nil, errors.New("it is compressed: gunzip it first")
	case string(head) == "\xff\xfe", string(head) == "\xfe\xff":
		return nil, errors.New("it is UTF-16: save it as UTF-8")
	}
	return parseCSV(buffered)
}

func (t Trace) check() error {
	if len(t) < 2 {
		return fmt.Errorf("parse demand: %d points: a replay needs at least two", len(t))
	}
	for i, p := range t {
		if p.Replicas < 0 || math.IsNaN(p.Replicas) || math.IsInf(p.Replicas, 0) {
			return fmt.Errorf("parse demand: point %d is %v replicas: want a number that is not negative", i+1, p.Replicas)
		}
		if i > 0 && !p.At.After(t[i-1].At) {
			return fmt.Errorf("parse demand: point %d (%s) is not after the one before it", i+1, p.At.Format(time.RFC3339))
		}
	}
	return nil
}

func parseCSV(r io.Reader) (Trace, error) {
	reader := csv.NewReader(r)
	reader.FieldsPerRecord = 2
	reader.Comment = '#'
	reader.TrimLeadingSpace = true
	var t Trace
	for head := true; ; head = false {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read CSV (want two columns, time and replicas): %w", err)
		}
		line, _ := reader.FieldPos(0)
		if len(t) == maxPoints {
			return nil, fmt.Errorf("line %d: %w", line, errTooMany)
		}
		at, err := parseTime(record[0])
		replicas, errNumber := strconv.ParseFloat(strings.TrimSpace(record[1]), 64)
		switch {
		case head && err != nil && errNumber != nil:
			continue // the names of the columns, whatever they are
		case err != nil:
			return nil, fmt.Errorf("line %d: %w", line, err)
		case errNumber != nil:
			return nil, fmt.Errorf("line %d: replicas %q is not a number", line, record[1])
		}
		t = append(t, Point{At: at, Replicas: replicas})
	}
}

func parseTime(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return unix(seconds)
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %q: want RFC 3339 (2026-03-02T08:30:00Z) or Unix seconds", text)
	}
	return at.UTC(), nil
}

// unix refuses what a time.Time cannot hold, and milliseconds that were meant as seconds.
func unix(seconds float64) (time.Time, error) {
	if !(seconds >= 0 && seconds < 1e10) {
		return time.Time{}, fmt.Errorf("time %.0f: want Unix seconds (are these milliseconds? then divide them by 1000)", seconds)
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000))).UTC(), nil
}

// rangeQuery is the answer of GET /api/v1/query_range.
type rangeQuery struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   struct {
		ResultType string `json:"resultType"`
		Result     []struct {
			Values [][2]any `json:"values"`
		} `json:"result"`
	} `json:"data"`
}

func parsePrometheus(r io.Reader) (Trace, error) {
	var query rangeQuery
	if err := json.NewDecoder(r).Decode(&query); err != nil {
		return nil, fmt.Errorf("read Prometheus range query: %w", err)
	}
	if query.Status != "success" {
		return nil, fmt.Errorf("the Prometheus answer has status %q %s: want the JSON of /api/v1/query_range", query.Status, query.Error)
	}
	if query.Data.ResultType != "matrix" {
		return nil, fmt.Errorf("the Prometheus answer is a %q: want a matrix, from a range query", query.Data.ResultType)
	}
	if len(query.Data.Result) == 0 {
		return nil, errors.New("the query found nothing: try it in Prometheus, with the start and end that were given")
	}
	sums := map[time.Time]float64{}
	for _, series := range query.Data.Result {
		for _, value := range series.Values {
			at, replicas, err := sample(value)
			if err != nil {
				return nil, err
			}
			sums[at] += replicas
			if len(sums) > maxPoints {
				return nil, errTooMany
			}
		}
	}
	t := make(Trace, 0, len(sums))
	for at, replicas := range sums {
		t = append(t, Point{At: at, Replicas: replicas})
	}
	slices.SortFunc(t, func(a, b Point) int { return a.At.Compare(b.At) })
	return t, nil
}

func sample(value [2]any) (time.Time, float64, error) {
	seconds, okTime := value[0].(float64)
	text, okValue := value[1].(string)
	if !okTime || !okValue {
		return time.Time{}, 0, fmt.Errorf("sample %v: want [seconds, \"value\"]", value)
	}
	at, err := unix(seconds)
	if err != nil {
		return time.Time{}, 0, err
	}
	replicas, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(replicas) || math.IsInf(replicas, 0) {
		return time.Time{}, 0, fmt.Errorf("sample at %s: %q is not a number", at.Format(time.RFC3339), text)
	}
	return at, replicas, nil
}

// WriteCSV writes the form that Parse reads, one line a change.
func (t Trace) WriteCSV(w io.Writer) error {
	buffered := bufio.NewWriter(w)
	if _, err := buffered.WriteString("time,replicas\n"); err != nil {
		return fmt.Errorf("write demand: %w", err)
	}
	for i, p := range t {
		if i > 0 && i < len(t)-1 && p.Replicas == t[i-1].Replicas {
			continue
		}
		if _, err := fmt.Fprintf(buffered, "%s,%s\n", p.At.UTC().Format(time.RFC3339), strconv.FormatFloat(p.Replicas, 'f', -1, 64)); err != nil {
			return fmt.Errorf("write demand: %w", err)
		}
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write demand: %w", err)
	}
	return nil
}

// Scale divides every value: a trace of CPU cores becomes one of replicas.
func (t Trace) Scale(perReplica float64) Trace {
	out := slices.Clone(t)
	for i := range out {
		out[i].Replicas /= perReplica
	}
	return out
}

// Peak is the highest demand.
func (t Trace) Peak() float64 {
	peak := 0.0
	for _, p := range t {
		peak = max(peak, p.Replicas)
	}
	return peak
}

// Span is the time from the first point to the last.
func (t Trace) Span() time.Duration { return t[len(t)-1].At.Sub(t[0].At) }
