package install_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent"
)

// TestTheConfigShowsEveryField keeps the word that agent.yaml gives: the fields in its comments are all that there are, and none
// that the agent refuses.
func TestTheConfigShowsEveryField(t *testing.T) {
	text, err := os.ReadFile("agent.yaml")
	require.NoError(t, err)
	_, err = agent.Parse(text)
	require.NoError(t, err)
	var shown strings.Builder
	for line := range strings.Lines(string(text)) {
		if field, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(field, " ") || strings.HasPrefix(line, "#  ") {
			line = field
		}
		shown.WriteString(line)
	}
	_, err = agent.Parse([]byte(shown.String()))
	require.NoError(t, err, shown.String())
	for name := range fields(reflect.TypeFor[agent.Config]()) {
		require.Regexp(t, regexp.MustCompile(`(?m)(^\W*|[{ ])`+name+`:`), shown.String(), "the field %s is not shown", name)
	}
	for _, family := range []agent.ProbeType{
		agent.ProbeCNI, agent.ProbeCSI, agent.ProbeGPU, agent.ProbeEFA, agent.ProbeDRA, agent.ProbeNeuron, agent.ProbeSystemd,
		agent.ProbeHTTP, agent.ProbeTCP, agent.ProbeGRPC, agent.ProbeUnix, agent.ProbeFile, agent.ProbeExec,
	} {
		require.Contains(t, shown.String(), "type: "+string(family))
	}
}

// fields are the names that a type has in YAML, those of our own types inside of it too.
func fields(of reflect.Type) map[string]bool {
	out := map[string]bool{}
	for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || !strings.HasPrefix(of.PkgPath(), "headstart.dev/") {
		return out
	}
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		out[name] = true
		for inner := range fields(field.Type) {
			out[inner] = true
		}
	}
	return out
}
