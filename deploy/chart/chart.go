// Package chart makes the files of deploy/charts/headstart and deploy/kustomize that are made of others: the copies of CRDs,
// roles and policies (a chart that is fetched from Git must have no symbolic links: some fetchers drop them), the list of
// these files, by which templates know whether one is missing, and the schema of the values, from the agent's own types. It
// reads and computes; package sync writes. Start from Files.
package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Where generated files go, relative to the folder deploy.
const (
	chartDir     = "charts/headstart/"
	filesDir     = chartDir + "files/"
	crdsDir      = chartDir + "charts/crds/crds/"
	kustomizeCRD = "kustomize/crds/crds.yaml"
)

// Generated are the folders (with a slash at the end) and files that hold nothing but what Files returns.
var Generated = []string{filesDir, crdsDir, chartDir + "values.schema.json", kustomizeCRD}

// shared are the folders of deploy whose files the templates read, by their name below files.
var shared = map[string]string{
	"rbac/agent": "rbac/agent", "rbac/controller": "rbac/controller", "rbac/reader": "rbac/reader",
	"admission": "admission", "policies": "policies", "compat": "crd/compat",
}

// Files returns the content of every generated file by its path below deploy, which is source.
func Files(source fs.FS) (map[string][]byte, error) {
	out := map[string][]byte{}
	index := map[string][]string{}
	for name, folder := range shared {
		files, err := manifests(source, folder)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			index[name] = append(index[name], path.Base(file.path))
			out[filesDir+name+"/"+path.Base(file.path)] = file.content
		}
	}
	list, err := yaml.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("write list of files: %w", err)
	}
	out[filesDir+"index.yaml"] = append([]byte("# What belongs here: templates fail where one of them is missing. Written by \"make generate\".\n"), list...)
	if err := addCRDs(source, out); err != nil {
		return nil, err
	}
	schema, err := json.MarshalIndent(Schema(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	out[chartDir+"values.schema.json"] = append(schema, '\n')
	return out, nil
}

// addCRDs adds the CRDs of our own group. Helm never deletes them; the annotation says the same to those that render the
// chart and prune by themselves (Argo CD). Kustomize refuses files outside of its folder.
func addCRDs(source fs.FS, out map[string][]byte) error {
	files, err := manifests(source, "crd")
	if err != nil {
		return err
	}
	all := [][]byte{[]byte("# Copied from deploy/crd by \"make generate\".\n")}
	for _, file := range files {
		const annotations = "\n  annotations:\n"
		if bytes.Count(file.content, []byte(annotations)) != 1 {
			return fmt.Errorf("keep CRD %s: its metadata has no annotations to add one to", file.path)
		}
		out[crdsDir+path.Base(file.path)] = bytes.Replace(file.content, []byte(annotations), []byte(annotations+"    helm.sh/resource-policy: keep\n"), 1)
		all = append(all, file.content)
	}
	out[kustomizeCRD] = bytes.Join(all, nil)
	return nil
}

type manifest struct {
	path    string
	content []byte
}

// manifests are the YAML files of a folder, without those of folders in it, by name.
func manifests(source fs.FS, folder string) ([]manifest, error) {
	names, err := fs.Glob(source, folder+"/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	slices.Sort(names)
	out := make([]manifest, 0, len(names))
	for _, name := range names {
		content, err := fs.ReadFile(source, name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		out = append(out, manifest{name, content})
	}
	return out, nil
}

// IsGenerated says whether a path below deploy is one that Files alone may have.
func IsGenerated(name string) bool {
	return slices.ContainsFunc(Generated, func(g string) bool {
		return name == g || strings.HasSuffix(g, "/") && strings.HasPrefix(name, g)
	})
}
