package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"

	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/guide"
	"headstart.dev/readiness/v1alpha1"
)

// owned is what the controller may have put on nodes.
type owned struct {
	// taints are in the form key:effect.
	taints map[string]bool
	labels map[string]bool
}

func (o *owned) addTaint(key, effect string) {
	if key != "" {
		o.taints[readiness.TaintID(&corev1.Taint{Key: key, Effect: corev1.TaintEffect(effect)})] = true
	}
}

// owned reads what all rules name, ours and the guide's, and what the ledger has of rules that are gone. What upstream's
// rules name is for upstream's controller to go on with.
func (c *Cluster) owned(ctx context.Context) (*owned, error) {
	out := &owned{taints: map[string]bool{}, labels: map[string]bool{}}
	for _, key := range c.Taints {
		out.addTaint(key, string(corev1.TaintEffectNoSchedule))
	}
	for _, group := range []string{v1alpha1.GroupVersion.Group, guide.GroupVersion.Group} {
		err := c.each(ctx, group, "nodereadinessrules", func(rule *unstructured.Unstructured) {
			key, _, _ := unstructured.NestedString(rule.Object, "spec", "taint", "key")
			if key == "" {
				key = readiness.TaintPrefix + rule.GetName()
			}
			effect, _, _ := unstructured.NestedString(rule.Object, "spec", "taint", "effect")
			if effect == "" {
				effect = string(corev1.TaintEffectNoSchedule)
			}
			out.addTaint(key, effect)
			optional, _, _ := unstructured.NestedSlice(rule.Object, "spec", "optionalDaemonSets")
			for _, one := range optional {
				if set, ok := one.(map[string]any); ok {
					label, _, _ := unstructured.NestedString(set, "readyLabel")
					out.labels[label] = true
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, c.addLedger(ctx, out)
}

// ledger is the ConfigMap in which the controller keeps what rules have claimed.
const (
	ledgerName = "headstart-readiness"
	ledgerKey  = "claims"
)

func (c *Cluster) addLedger(ctx context.Context, out *owned) error {
	list, err := c.Core.CoreV1().ConfigMaps(c.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, ledgerName).String(),
	})
	if err != nil {
		return fmt.Errorf("read the controller's ledger: %w", err)
	}
	if len(list.Items) == 0 || list.Items[0].Data[ledgerKey] == "" {
		return nil
	}
	var claims []struct {
		Form   readiness.Form `json:"form"`
		Key    string         `json:"key"`
		Effect string         `json:"effect"`
		Labels []string       `json:"labels"`
	}
	if err := json.Unmarshal([]byte(list.Items[0].Data[ledgerKey]), &claims); err != nil {
		c.Log.Error(err, "the controller's ledger cannot be read: taints of rules that are gone stay")
		return nil
	}
	for i := range claims {
		if claims[i].Form == readiness.FormUpstream {
			continue
		}
		out.addTaint(claims[i].Key, claims[i].Effect)
		for _, label := range claims[i].Labels {
			out.labels[label] = true
		}
	}
	return nil
}
