package chart

import (
	"reflect"
	"slices"
	"strings"

	"headstart.dev/agent"
)

// agentConfig is the schema of an AgentConfig, from the agent's own types: what it does not know is refused here, and not by
// every agent of the cluster when it starts.
func agentConfig() node {
	s := schemaOf(reflect.TypeFor[agent.Config]())
	properties(s)["apiVersion"], properties(s)["kind"] = node{"const": agent.APIVersion}, node{"const": agent.Kind}
	delete(s, "required")
	properties(s)["probes"] = listOf(probeSchema())
	return s
}

// probeSchema has, for each type, the fields that all types have and its own.
func probeSchema() node {
	all := properties(schemaOf(reflect.TypeFor[agent.Probe]()))
	types, own := []string{}, map[string]bool{}
	for kind, fields := range agent.FieldsOfProbes() {
		types = append(types, string(kind))
		for _, field := range fields {
			own[field] = true
		}
	}
	slices.Sort(types)
	var cases []any
	for _, kind := range types {
		allowed := node{}
		for name, schema := range all {
			if fields := agent.FieldsOfProbes()[agent.ProbeType(kind)]; !own[name] || slices.Contains(fields, name) {
				allowed[name] = schema
			}
		}
		cases = append(cases, node{
			"if":   node{"properties": node{"type": node{"const": kind}}},
			"then": closed(allowed, requiredOf(agent.ProbeType(kind))...),
		})
	}
	name := pattern("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
	name["maxLength"], name["not"] = 48, node{"const": "images"}
	// A user probe of a built-in family's name would be taken for one.
	for _, builtIn := range []string{"cni", "csi", "gpu"} {
		cases = append(cases, node{"if": node{"properties": node{"name": node{"const": builtIn}}}, "then": node{"properties": node{"type": node{"const": builtIn}}}})
	}
	return node{"type": "object", "required": []string{"name", "type"}, "properties": node{"name": name, "type": node{"enum": types}}, "allOf": cases}
}

// requiredOf are the fields without which the agent refuses a probe of the type.
func requiredOf(kind agent.ProbeType) []string {
	switch kind {
	case agent.ProbeCSI, agent.ProbeDRA:
		return []string{"drivers"}
	case agent.ProbeSystemd:
		return []string{"unit"}
	case agent.ProbeHTTP:
		return []string{"url"}
	case agent.ProbeTCP, agent.ProbeGRPC:
		return []string{"address"}
	case agent.ProbeUnix, agent.ProbeFile:
		return []string{"path"}
	case agent.ProbeExec:
		return []string{"command"}
	case agent.ProbeCNI, agent.ProbeGPU, agent.ProbeNeuron, agent.ProbeEFA:
	}
	return nil
}

func properties(s node) node {
	p, ok := s["properties"].(node)
	if !ok {
		return node{}
	}
	return p
}

// schemaOf follows a Go type's JSON form. Fields without omitempty or omitzero are required.
func schemaOf(t reflect.Type) node {
	switch t {
	case reflect.TypeFor[agent.Duration]():
		return pattern(duration)
	case reflect.TypeFor[agent.Quantity]():
		return quantity
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Bool:
		return boolean
	case reflect.Int, reflect.Int32, reflect.Int64:
		return node{"type": "integer"}
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return count
	case reflect.String:
		return text
	case reflect.Slice:
		return listOf(schemaOf(t.Elem()))
	case reflect.Map:
		return node{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	case reflect.Struct:
		return structSchema(t)
	default: // a kind that no config file has
		return open
	}
}

func structSchema(t reflect.Type) node {
	fields, required := node{}, []string{}
	for field := range t.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" || name == "" {
			continue
		}
		fields[name] = schemaOf(field.Type)
		if options == "" {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	return closed(fields, required...)
}
