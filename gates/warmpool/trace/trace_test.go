package trace_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/gates/warmpool/trace"
)

func TestParse(t *testing.T) {
	eight := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	want := trace.Trace{{At: eight, Replicas: 3}, {At: eight.Add(time.Minute), Replicas: 4.5}}
	cases := map[string]string{
		"CSV with a head":                       "time,replicas\n2026-03-02T08:00:00Z,3\n2026-03-02T08:01:00Z,4.5\n",
		"CSV of Windows, with names of its own": "# exported\r\ntimestamp,pods\r\n1772438400,3\r\n1772438460,4.5\r\n",
		"CSV without, in seconds":               "1772438400,3\n1772438460,4.5\n",

		"CSV with an offset, comments and a byte order mark": "\ufeff2026-03-02T09:00:00+01:00, 3\n# noon\n2026-03-02T08:01:00Z, 4.5\n",

		"one Prometheus series":        `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1772438400,"3"],[1772438460.000,"4.5"]]}]}}`,
		"two Prometheus series, added": ` {"status":"success","data":{"resultType":"matrix","result":[{"values":[[1772438400,"1"],[1772438460,"4"]]},{"values":[[1772438400,"2"],[1772438460,"0.5"]]}]}}`,
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := trace.Parse(strings.NewReader(text))
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestParseRefuses(t *testing.T) {
	cases := map[string]struct{ text, says string }{
		"nothing":                    {"", "empty"},
		"white space":                {" \n\n", "empty"},
		"one point":                  {"1772438400,3\n", "at least two"},
		"time that goes back":        {"1772438400,3\n1772438340,3\n", "not after"},
		"a negative demand":          {"1772438400,3\n1772438460,-3\n", "not negative"},
		"no number":                  {"1772438400,3\n1772438460,many\n", "line 2"},
		"NaN":                        {"1772438400,3\n1772438460,NaN\n", "not negative"},
		"no time":                    {"yesterday,3\n", "RFC 3339"},
		"milliseconds":               {"1772438400000,3\n1772438460000,3\n", "Unix seconds"},
		"three columns":              {"1772438400,3,4\n", "two columns"},
		"a Prometheus error":         {`{"status":"error","error":"bad query"}`, "bad query"},
		"an instant query":           {`{"status":"success","data":{"resultType":"vector","result":[]}}`, "want a matrix"},
		"a sample of bad shape":      {`{"status":"success","data":{"resultType":"matrix","result":[{"values":[["x",3]]}]}}`, "want [seconds"},
		"gzip":                       {"\x1f\x8b\b\x00", "gunzip"},
		"UTF-16, of a PowerShell":    {"\xff\xfet\x00i\x00", "UTF-8"},
		"a list of JSON":             {`[{"values":[[1772438400,"1"]]}]`, "query_range"},
		"a query that found nothing": {`{"status":"success","data":{"resultType":"matrix","result":[]}}`, "the query found nothing"},
		"a header and nothing":       {"time,replicas\n", "at least two"},
		"a second header":            {"time,replicas\ntime,replicas\n", "line 2"},
		"what is too long":           {"# " + strings.Repeat("x", 64<<20) + "\n1772438400,3\n1772438460,3\n", "larger than"},
		"broken JSON":                {`{"status":`, "read Prometheus"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := trace.Parse(strings.NewReader(tc.text))
			require.ErrorContains(t, err, tc.says)
		})
	}
}

// The shipped files are what the generator makes, and reading them gives the same step function back.
func TestShippedTracesAreGenerated(t *testing.T) {
	for _, kind := range trace.Kinds() {
		t.Run(kind, func(t *testing.T) {
			made, err := trace.Generate(kind)
			require.NoError(t, err)
			require.NotEmpty(t, trace.Shows(kind))
			var written bytes.Buffer
			require.NoError(t, made.WriteCSV(&written))
			shipped, err := os.ReadFile(filepath.Join("../../../deploy/warmpool/demand", kind+".csv"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(shipped, written.Bytes()), "deploy/warmpool/demand/%s.csv is stale: kubectl headstart plan --generate %s", kind, kind)

			read, err := trace.Parse(&written)
			require.NoError(t, err)
			require.Equal(t, made.Peak(), read.Peak())
			require.Equal(t, made.Span(), read.Span())
			next := 0
			for _, p := range made {
				for next+1 < len(read) && !read[next+1].At.After(p.At) {
					next++
				}
				require.Equal(t, p.Replicas, read[next].Replicas, "%s", p.At)
			}
		})
	}
	_, err := trace.Generate("nothing")
	require.ErrorContains(t, err, "daily, flash-crowd, batch")
}

func FuzzParse(f *testing.F) {
	f.Add("1772438400,3\n1772438460,4.5\n")
	f.Add(`{"status":"success","data":{"resultType":"matrix","result":[{"values":[[1,"3"],[2,"4"]]}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := trace.Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for i := 1; i < len(got); i++ {
			require.True(t, got[i].At.After(got[i-1].At))
			require.GreaterOrEqual(t, got[i].Replicas, 0.0)
		}
	})
}
