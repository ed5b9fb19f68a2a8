package readiness_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// longRecord is of rules with names of thirty characters.
func longRecord(rules int) readiness.Record {
	rec := readiness.Record{Node: nodeUID, Rules: map[types.UID]readiness.Entry{}}
	for i := range rules {
		name := fmt.Sprintf("a-rule-with-a-name-of-30-ch-%03d", i)
		rec.Rules[types.UID(fmt.Sprintf("5a2c8d6e-0000-4000-8000-%012d", i))] = readiness.Entry{
			Name: name, State: readiness.EntryDone, Taint: "readiness.k8s.io/" + name + ":NoSchedule", Boot: "3e0b5b0c-5c3e-4a52-8d3f-1f6f0c9b7a11", At: 1790000000,
		}
	}
	return rec
}

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	for _, rules := range []int{1, 100, 146, 300, 1000, 5000} {
		t.Run(fmt.Sprint(rules), func(t *testing.T) {
			rec := longRecord(rules)
			text, err := rec.Encode()
			require.NoError(t, err)
			require.LessOrEqual(t, len(text), readiness.MaxRecordBytes)
			f := makeFacts(func(f *readiness.Facts) { f.Node.Annotations = map[string]string{readiness.AnnotationReadiness: text} })
			f.Record, err = readiness.DecodeRecord(f.Node)
			require.NoError(t, err)
			require.Equal(t, rules <= 146, len(f.Record.Rules) == rules && f.Record.Rules["5a2c8d6e-0000-4000-8000-000000000000"].Name != "")
			if rules <= 146 {
				again, err := f.Record.Encode()
				require.NoError(t, err)
				require.Equal(t, text, again, "what is read is written as it was")
				require.Equal(t, rec, f.Record)
			}
			for uid, e := range rec.Rules {
				r := makeRule(func(r *readiness.Rule) {
					r.UID, r.Name, r.Taint.Key = uid, e.Name, "readiness.k8s.io/"+e.Name
				})
				require.Equal(t, readiness.StateReleased, readiness.Evaluate(r, f, born.Add(1)).State, "%s does not begin again", e.Name)
			}
		})
	}
}

func TestARecordThatCannotBeReadIsDoneWhereItIsOfThisNode(t *testing.T) {
	mine := `{"node":"` + string(nodeUID) + `",`
	cases := map[string]struct {
		text string
		want readiness.State
	}{
		"too long":            {mine + strings.Repeat(" ", readiness.MaxRecordBytes), readiness.StateReleased},
		"cut off":             {mine + `"rules":{`, readiness.StateReleased},
		"of another Node":     {`{"node":"another",` + strings.Repeat(" ", readiness.MaxRecordBytes), readiness.StateHeld},
		"none of anybody's":   {"nonsense", readiness.StateHeld},
		"a null":              {"null", readiness.StateHeld},
		"of this, and whole":  {mine + `"rules":{}}`, readiness.StateHeld},
		"of this, with marks": {mine + `"rules":{"rule-uid":{"name":"r","state":"done","old":"0000000aff"}}}`, readiness.StateReleased},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := makeFacts(func(f *readiness.Facts) {
				f.Node.Annotations = map[string]string{readiness.AnnotationReadiness: tc.text}
			})
			f.Record, _ = readiness.DecodeRecord(f.Node)
			require.Equal(t, tc.want, readiness.Evaluate(makeRule(), f, born.Add(90)).State)
			if tc.want == readiness.StateReleased {
				taintedFact(f)
				f.Record.Rules = nil
				if f.Record.More {
					require.Equal(t, readiness.StateHeld, readiness.Evaluate(makeRule(), f, born.Add(90)).State, "its taint says that it is not")
				}
			}
		})
	}
}

func TestMarksAreAString(t *testing.T) {
	rec := readiness.Record{Node: nodeUID, Rules: map[types.UID]readiness.Entry{"r": {Name: "r", State: readiness.EntryHeld, Taint: "k:NoSchedule", Old: readiness.Marks{1, 0xffffffff}}}}
	text, err := rec.Encode()
	require.NoError(t, err)
	require.Contains(t, text, `"old":"00000001ffffffff"`)
	n := makeFacts().Node
	n.Annotations = map[string]string{readiness.AnnotationReadiness: text}
	got, err := readiness.DecodeRecord(n)
	require.NoError(t, err)
	require.Equal(t, rec, got)
}

// FuzzRecord reads what a node wrote.
func FuzzRecord(f *testing.F) {
	f.Add(`{"node":"node-uid","rules":{"rule-uid":{"state":"held","taint":"a:b","old":"zz"}},"labels":["x"]}`)
	f.Add(`{"node":"node-uid","rules":{"rule-uid":null},"boot":"b"}`)
	f.Fuzz(func(t *testing.T, text string) {
		facts := makeFacts(func(f *readiness.Facts) { f.Node.Annotations = map[string]string{readiness.AnnotationReadiness: text} })
		facts.Record, _ = readiness.DecodeRecord(facts.Node)
		out, err := facts.Record.Encode()
		require.NoError(t, err)
		require.LessOrEqual(t, len(out), readiness.MaxRecordBytes)
		facts.Node.Spec.Taints = []corev1.Taint{{Key: "example.com/a", Effect: corev1.TaintEffectNoExecute}}
		require.False(t, plan(t, facts, nil).TaintsChanged)
	})
}
