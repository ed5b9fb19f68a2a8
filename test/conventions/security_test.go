package conventions

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheThreatModelNamesTestsThatExist holds SECURITY.md to what is proved.
func TestTheThreatModelNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "SECURITY.md"))
	require.NoError(t, err)
	named := map[string]bool{}
	for _, match := range regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(string(text), -1) {
		named[match[1]] = false
	}
	require.NotEmpty(t, named)
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z]+)\(`)
	for _, f := range goFiles(t) {
		if !f.isTest() {
			continue
		}
		code, err := os.ReadFile(filepath.Join(root(t), f.path))
		require.NoError(t, err)
		for _, match := range declared.FindAllStringSubmatch(string(code), -1) {
			if _, wanted := named[match[1]]; wanted {
				named[match[1]] = true
			}
		}
	}
	for name, found := range named {
		require.True(t, found, "SECURITY.md names %s, which is no test", name)
	}
}
