package learn

import (
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/api/resource"

	"headstart.dev/internal/columns"
)

// Where the controller keeps the window of a policy: a ConfigMap of its own namespace, under binaryData.
const (
	configMapPrefix = "prepull-learned-"
	// Key is the key under binaryData.
	Key = "window"
	// Label, "true", marks these ConfigMaps, whatever the controller's namespace; their owner is the policy.
	Label = "headstart.dev/learned"
)

// ConfigMapName is the name of the ConfigMap that holds what the policy of this name learned.
func ConfigMapName(policy string) string { return configMapPrefix + policy }

// WriteTable prints the first top images of a ranking for a person, with a star at each that is among the prepulled. No line
// has more than columns.Width characters.
func WriteTable(out io.Writer, ranked []Ranked, top int) error {
	table := columns.Table{
		Header: []string{"", "IMAGE", "STARTS", "PULLS", "SIZE", "SAVED"},
		Shrink: []columns.Shrink{{Column: 1, Least: 20, Cut: columns.CutImage}},
	}
	for i, r := range ranked {
		mark := ""
		if i < top {
			mark = "*"
		}
		table.Rows = append(table.Rows, []string{mark, r.Image, fmt.Sprint(r.Starts), fmt.Sprint(r.Pulls), known(r.Bytes), known(r.Saved)})
	}
	if err := table.Write(out, columns.Width); err != nil {
		return fmt.Errorf("print ranking: %w", err)
	}
	return nil
}

func known(bytes int64) string {
	if bytes == 0 {
		return "?"
	}
	// Two or three digits are what a person compares by.
	for bytes >= 1<<14 && bytes%(1<<10) != 0 {
		bytes = bytes >> 10 << 10
	}
	if bytes >= 1<<24 {
		bytes = bytes >> 20 << 20
	}
	return resource.NewQuantity(bytes, resource.BinarySI).String()
}
