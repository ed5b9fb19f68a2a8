package controller

import (
	"bytes"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"headstart.dev/prepull/learn"
	"headstart.dev/prepull/v1alpha1"
)

// store keeps what policies learned in ConfigMaps of the controller's namespace.
type store struct {
	configMaps typedcorev1.ConfigMapsGetter
	namespaces typedcorev1.NamespacesGetter
	namespace  string
}

// load reads a policy's window; one that was never stored, or cannot be read, is empty. An error of the API server is
// returned: going on would overwrite what is there.
func (m *store) load(ctx context.Context, policy *v1alpha1.PrepullPolicy, span time.Duration) (w *learn.Window, stored []byte, damage, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cm, err := m.configMaps.ConfigMaps(m.namespace).Get(ctx, learn.ConfigMapName(policy.Name), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return learn.New(span), nil, nil, nil
	case err != nil:
		return nil, nil, nil, fmt.Errorf("read what prepull policy %q learned: %w", policy.Name, err)
	case !metav1.IsControlledBy(cm, policy):
		// Of a policy of the same name that was deleted: garbage collection is about to take it.
		return learn.New(span), nil, nil, nil
	}
	stored = cm.BinaryData[learn.Key]
	w, damage = learn.Decode(stored, span)
	return w, stored, damage, nil
}

// save stores a policy's window unless it is stored already, and returns what is stored now.
func (m *store) save(ctx context.Context, policy *v1alpha1.PrepullPolicy, data, stored []byte) ([]byte, error) {
	if bytes.Equal(data, stored) {
		return stored, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: learn.ConfigMapName(policy.Name), Namespace: m.namespace, Labels: map[string]string{learn.Label: "true"},
			// No blockOwnerDeletion: setting it needs rights on the policy's finalizers, and nothing has to wait for this.
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "PrepullPolicy", Name: policy.Name, UID: policy.UID, Controller: new(true),
			}},
		},
		BinaryData: map[string][]byte{learn.Key: data},
	}
	client := m.configMaps.ConfigMaps(m.namespace)
	_, err := client.Update(ctx, cm, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = client.Create(ctx, cm, metav1.CreateOptions{})
	}
	if apierrors.IsNotFound(err) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m.namespace}}
		if _, err = m.namespaces.Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err == nil {
			_, err = client.Create(ctx, cm, metav1.CreateOptions{})
		}
	}
	if err != nil {
		return stored, fmt.Errorf("store what prepull policy %q learned: %w", policy.Name, err)
	}
	return data, nil
}

// forget deletes the window of a policy that learns no more.
func (m *store) forget(ctx context.Context, policy string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := m.configMaps.ConfigMaps(m.namespace).Delete(ctx, learn.ConfigMapName(policy), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete what prepull policy %q learned: %w", policy, err)
	}
	return nil
}
