package bottlerocket

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Merge is Render into settings that are there already. What they say stays; where they say of one setting something else
// than we must, that is an error, because one of the two would be lost. Our own host container is written anew.
func Merge(s Settings, earlier []byte) (string, error) {
	ours, err := Render(s)
	if err != nil || len(strings.TrimSpace(string(earlier))) == 0 {
		return ours, err
	}
	var into, from map[string]any
	if err := toml.Unmarshal(earlier, &into); err != nil {
		return "", fmt.Errorf("merge userData: read it as TOML: %w", err)
	}
	if err := toml.Unmarshal([]byte(ours), &from); err != nil {
		return "", fmt.Errorf("merge userData: %w", err)
	}
	if containers, ok := lookUp(into, "settings", "host-containers"); ok {
		delete(containers, ContainerName)
	}
	if err := mergeTables(into, from, ""); err != nil {
		return "", fmt.Errorf("merge userData: %w", err)
	}
	var out strings.Builder
	encoder := toml.NewEncoder(&out)
	encoder.SetTablesInline(false)
	if err := encoder.Encode(into); err != nil {
		return "", fmt.Errorf("merge userData: %w", err)
	}
	return header + out.String(), nil
}

// lookUp walks down tables.
func lookUp(table map[string]any, path ...string) (map[string]any, bool) {
	for _, key := range path {
		below, ok := table[key].(map[string]any)
		if !ok {
			return nil, false
		}
		table = below
	}
	return table, true
}

// mergeTables adds from to into. Lists, as of taints, are joined.
func mergeTables(into, from map[string]any, path string) error {
	for key, value := range from {
		at := strings.TrimPrefix(path+"."+key, ".")
		have, there := into[key]
		if !there {
			into[key] = value
			continue
		}
		haveTable, isTable := have.(map[string]any)
		table, ours := value.(map[string]any)
		haveList, isList := have.([]any)
		list, oursList := value.([]any)
		switch {
		case isTable && ours:
			if err := mergeTables(haveTable, table, at); err != nil {
				return err
			}
		case isList && oursList:
			for _, element := range list {
				if !slices.ContainsFunc(haveList, func(h any) bool { return reflect.DeepEqual(h, element) }) {
					haveList = append(haveList, element)
				}
			}
			into[key] = haveList
		case !reflect.DeepEqual(have, value):
			return fmt.Errorf("%s is %v there, and must be %v: change one of them", at, have, value)
		}
	}
	return nil
}
