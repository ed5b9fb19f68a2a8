package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

// feature is a file of roles: what one identity may do for one feature.
type feature struct {
	identity, name string
	rights         []right
}

// right is one rule of a role, for one resource.
type right struct {
	// resource is RESOURCE.GROUP, or a path.
	resource string
	verbs    []string
	// names are those that it is limited to; empty for all.
	names []string
	// namespaced is whether it holds in Headstart's own namespace only.
	namespaced bool
}

// readRoles reads the roles below dir, a folder for each identity, in the order of their names.
func readRoles(dir string) ([]feature, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("find roles: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("find roles: there are none in %s: run it in the module's folder", dir)
	}
	var out []feature
	for _, file := range files {
		f := feature{identity: filepath.Base(filepath.Dir(file)), name: strings.TrimSuffix(filepath.Base(file), ".yaml")}
		if f.rights, err = readRights(file); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func readRights(file string) ([]right, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	defer func() { _ = in.Close() }()
	var out []right
	for decoder := yaml.NewYAMLOrJSONDecoder(in, 4096); ; {
		var role rbacv1.Role // a ClusterRole has the same fields that count here
		if err := decoder.Decode(&role); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("read roles of %s: %w", file, err)
		}
		for i := range role.Rules {
			out = append(out, rightsOf(&role.Rules[i], role.Kind == "Role")...)
		}
	}
}

func rightsOf(rule *rbacv1.PolicyRule, namespaced bool) []right {
	var out []right
	for _, path := range rule.NonResourceURLs {
		out = append(out, right{resource: path, verbs: rule.Verbs})
	}
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			if group != "" {
				resource += "." + group
			}
			out = append(out, right{resource: resource, verbs: slices.Sorted(slices.Values(rule.Verbs)), names: rule.ResourceNames, namespaced: namespaced})
		}
	}
	return out
}

// readOthers reads what others may do: by name, then by resource.
func readOthers(file string) (map[string]map[string][]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the roles of others: %w", err)
	}
	var out map[string]map[string][]string
	if err := sigsyaml.UnmarshalStrict(text, &out); err != nil {
		return nil, fmt.Errorf("read the roles of others: %w", err)
	}
	return out, nil
}
