package learn

import (
	"fmt"
	"io"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/api/resource"
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

// WriteTable prints the first top images of a ranking for a person, with a star at each that is among the prepulled.
func WriteTable(out io.Writer, ranked []Ranked, top int) error {
	tab := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tab, "\tIMAGE\tSTARTS\tPULLS\tSIZE\tSAVED")
	for i, r := range ranked {
		mark := ""
		if i < top {
			mark = "*"
		}
		fmt.Fprintf(tab, "%s\t%s\t%d\t%d\t%s\t%s\n", mark, r.Image, r.Starts, r.Pulls, known(r.Bytes), known(r.Saved))
	}
	if err := tab.Flush(); err != nil {
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
