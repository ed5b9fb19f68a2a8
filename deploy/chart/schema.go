package chart

import "maps"

// node is a piece of JSON Schema, draft 7.
type node = map[string]any

const (
	duration = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	digest   = `^(sha256:[0-9a-f]{64})?$`
)

func closed(properties node, required ...string) node {
	out := node{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func listOf(items node) node { return node{"type": "array", "items": items} }

func enum(values ...any) node { return node{"enum": values} }

func pattern(p string) node { return node{"type": "string", "pattern": p} }

// described says what a refused value is refused for.
func described(n node, text string) node {
	out := maps.Clone(n)
	out["description"] = text
	return out
}

var (
	text    = node{"type": "string"}
	boolean = node{"type": "boolean"}
	count   = node{"type": "integer", "minimum": 0}
	// open is an object of Kubernetes' own, which the API server checks.
	open    = node{"type": "object"}
	objects = listOf(open)
	texts   = listOf(text)
	// words are labels or annotations.
	words     = node{"type": "object", "additionalProperties": text}
	quantity  = node{"type": []string{"string", "number"}}
	resources = described(closed(node{
		"requests": node{"type": "object", "additionalProperties": quantity},
		"limits":   node{"type": "object", "additionalProperties": quantity, "required": []string{"memory"}},
		"claims":   objects,
	}, "limits"), "limits.memory is needed: the Go runtime keeps below it")
	folder  = pattern(`^/.+`)
	secrets = listOf(node{"type": []string{"string", "object"}})
)

// Schema is the schema of the chart's values.
func Schema() node {
	s := closed(node{
		"enabled": boolean, "global": described(node{"type": "object", "properties": node{"imageRegistry": text, "imagePullSecrets": secrets}},
			"open, because a parent chart's is everybody's; imageRegistry and imagePullSecrets are ours"),
		"imagePullSecrets": secrets, "commonLabels": words, "commonAnnotations": words,
		"proxy": closed(node{"httpProxy": text, "httpsProxy": text, "noProxy": text}),
		// A parent chart's values for the chart of the CRDs come with global.
		"crds":          closed(node{"install": boolean, "keep": boolean, "global": open}),
		"controller":    controller(),
		"agent":         agentValues(),
		"rule":          rule(),
		"gatePolicies":  closed(node{"create": boolean}),
		"warmPool":      warmPool(),
		"resourceQuota": closed(node{"create": boolean, "pods": quantity}),
		"metrics":       metrics(),
		"hooks":         closed(node{"upgradeCRDs": boolean, "cleanUp": boolean}),
	})
	s["$schema"], s["title"] = "http://json-schema.org/draft-07/schema#", "Values of the headstart chart"
	return s
}

func image(more node) node {
	properties := node{
		"repository": pattern(`^([a-z0-9][a-zA-Z0-9._:/-]*)?$`), "digest": pattern(digest),
		"pullPolicy": enum("Always", "IfNotPresent", "Never"),
	}
	maps.Copy(properties, more)
	return closed(properties)
}

// workload are the values that the controller and the agent have in common.
func workload(more node) node {
	properties := node{
		"resources": resources, "priorityClassName": text, "nodeSelector": words, "tolerations": objects, "affinity": open,
		"updateStrategy": open, "revisionHistoryLimit": count, "env": objects, "extraArgs": texts,
		"annotations": words, "labels": words, "podAnnotations": words, "podLabels": words,
		"podSecurityContext": open, "securityContext": open, "serviceAccount": closed(node{"annotations": words}),
	}
	maps.Copy(properties, more)
	return closed(properties)
}

// features are what the controller may do: each brings a role.
func features() node {
	return closed(node{
		"gates": boolean, "secretReferences": boolean, "prepull": boolean, "warmPools": boolean, "capacityBuffers": boolean,
		"staticNodePools": boolean, "deleteNodeClaims": boolean,
	})
}

// keys are those of taints or labels.
var keys = node{
	"type": "array", "uniqueItems": true, "items": pattern(`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`),
}

func controller() node {
	return workload(node{
		"image": image(node{"tag": text}), "replicas": node{"type": "integer", "minimum": 1},
		"rules":      node{"type": "array", "minItems": 1, "uniqueItems": true, "items": enum("native", "guide", "upstream")},
		"logLevel":   enum("info", "debug", "trace"),
		"features":   features(),
		"nodeTaints": keys, "nodeLabels": keys,
		"podDisruptionBudget": boolean,
		"networkPolicy":       closed(node{"enabled": boolean, "metricsFrom": objects, "extraEgress": objects}),
	})
}

func agentValues() node {
	return workload(node{
		"enabled": boolean, "image": image(nil), "config": agentConfig(),
		"profiles": node{"type": "array", "items": closed(node{
			"name": pattern(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`), "config": agentConfig(),
			"nodeSelector": described(node{"type": "object", "additionalProperties": text, "minProperties": 1, "maxProperties": 1}, "one label: the nodes that have it are taken from the other agents"),
		}, "name", "nodeSelector")},
		"kubeletDir": pattern(`^(/.+)?$`), "directPull": boolean, "hostInstall": boolean,
		"containerdRoot": folder, "containerdConfigDir": folder, "credentialProviderDir": pattern(`^(/.+)?$`),
		"scc": text, "hostPaths": node{"type": "array", "uniqueItems": true, "items": pattern(`^/[^:]+$`)},
	})
}

func rule() node {
	return closed(node{
		"create":       boolean,
		"nodeSelector": described(node{"type": "object", "minProperties": 1}, "an empty selector would hold the control plane's nodes too"),
		"conditions": listOf(closed(node{
			"type": text, "requiredStatus": enum("True", "False", "Unknown"), "maxAge": pattern(duration),
		}, "type")),
		"readinessTimeout": pattern(duration), "onTimeout": enum("Hold", "Release", "DeleteNodeClaim"),
	}, "nodeSelector")
}

func warmPool() node {
	return closed(node{"priorityClass": closed(node{"create": boolean, "value": node{
		"type": "integer", "minimum": -33554431, "maximum": -1,
		"description": "Karpenter takes a node whose pods are at or below -33554432 for empty",
	}})})
}

func metrics() node {
	monitor := func(more node) node {
		properties := node{"enabled": boolean, "labels": words}
		maps.Copy(properties, more)
		return closed(properties)
	}
	return closed(node{
		"serviceMonitor": monitor(node{"interval": pattern(duration)}), "podMonitor": monitor(node{"interval": pattern(duration)}),
		"prometheusRule": monitor(node{"podStartSecondsP95": node{"type": "number", "exclusiveMinimum": 0}}), "dashboards": monitor(nil),
		"secure": boolean,
	})
}
