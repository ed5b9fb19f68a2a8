package main

import (
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
	"headstart.dev/readiness/compat/guide"
	"headstart.dev/readiness/compat/upstream"
)

// ruleResource is what all forms of rules are called.
const ruleResource = "nodereadinessrules"

// requiredResources are those of our group without which no controller starts.
var requiredResources = []string{"gatepolicies", "prepullpolicies", "warmpools"}

// installed fails where CRDs are missing, with what to do: without them there is nothing to report on, and an empty report
// would look as if all were well.
func (c *cluster) installed() error {
	group := gatesv1alpha1.GroupVersion
	served, err := c.served(group)
	if err != nil {
		return err
	}
	var missing []string
	for _, resource := range requiredResources {
		if !slices.Contains(served, resource) {
			missing = append(missing, resource+"."+group.Group)
		}
	}
	ruled := slices.Contains(served, ruleResource)
	for _, form := range []schema.GroupVersion{guide.GroupVersion, upstream.GroupVersion} {
		if ruled {
			break
		}
		served, err := c.served(form)
		if err != nil {
			return err
		}
		ruled = slices.Contains(served, ruleResource)
	}
	if !ruled {
		missing = append(missing, ruleResource+"."+group.Group)
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("the CRDs are not installed: %s: apply them (kubectl apply --server-side -f deploy/crd), or install the chart, which has them",
		strings.Join(missing, ", "))
}

// served are the resources of a group and version; none where nobody serves it.
func (c *cluster) served(of schema.GroupVersion) ([]string, error) {
	list, err := c.core.Discovery().ServerResourcesForGroupVersion(of.String())
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for CRDs: %w", err)
	}
	var out []string
	for i := range list.APIResources {
		out = append(out, list.APIResources[i].Name)
	}
	return out, nil
}
