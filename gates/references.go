package gates

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// injectedTokenVolume is how the ServiceAccount admission plugin names the volume that it adds to every pod. It refers to
// ConfigMap kube-root-ca.crt, which is the cluster's plumbing: no pod names it.
// Source: kubernetes plugin/pkg/admission/serviceaccount/admission.go@v1.37.2 (ServiceAccountVolumeName).
const injectedTokenVolume = "kube-api-access-"

// objectRef is a named object; namespaced kinds are meant in the pod's own namespace.
type objectRef struct {
	Kind Kind
	Name string
}

func (r objectRef) in(namespace string) Dependency {
	switch r.Kind {
	case KindStorageClass, KindPriorityClass, KindRuntimeClass:
		return Dependency{Kind: r.Kind, Name: r.Name}
	case KindClusterTrustBundle:
		return Dependency{Kind: KindObject, Type: TrustBundleType, Namespace: namespace, Name: r.Name}
	default:
		return Dependency{Kind: r.Kind, Namespace: namespace, Name: r.Name}
	}
}

// TrustBundleType is the API of ClusterTrustBundles; where another version of it is served, that one is read.
const TrustBundleType = "certificates.k8s.io/v1beta1/ClusterTrustBundle"

// keyRef is a key of a ConfigMap or a Secret without which a container does not start.
type keyRef struct {
	objectRef
	Key string
}

// collector gathers references, each once, in the order of the spec.
type collector struct {
	found []objectRef
	keys  []keyRef
}

func (c *collector) key(optional *bool, kind Kind, name, key string) {
	c.addUnless(optional, kind, name)
	ref := keyRef{objectRef{kind, name}, key}
	if (optional == nil || !*optional) && name != "" && key != "" && !slices.Contains(c.keys, ref) {
		c.keys = append(c.keys, ref)
	}
}

func (c *collector) items(optional *bool, kind Kind, name string, items []corev1.KeyToPath) {
	c.addUnless(optional, kind, name)
	for _, item := range items {
		c.key(optional, kind, name, item.Key)
	}
}

func (c *collector) add(kind Kind, name string) {
	ref := objectRef{kind, name}
	if name != "" && !slices.Contains(c.found, ref) {
		c.found = append(c.found, ref)
	}
}

func (c *collector) addUnless(optional *bool, kind Kind, name string) {
	if optional == nil || !*optional {
		c.add(kind, name)
	}
}

func (c *collector) secret(ref *corev1.LocalObjectReference) {
	if ref != nil {
		c.add(KindSecret, ref.Name)
	}
}

// references are what a pod names and cannot start without.
type references struct {
	Objects []objectRef
	// Keys are those that it needs of the objects.
	Keys []keyRef
	// Pull are the Secrets that it names for pulls alone. The API server copies those of the ServiceAccount into pods that
	// name none; the kubelet does without one that does not exist.
	// Source: kubernetes plugin/pkg/admission/serviceaccount/admission.go@v1.37.2.
	Pull []string
}

// read reads a pod. Objects marked optional are left out.
func (r *references) read(spec *corev1.PodSpec) {
	var c collector
	c.pod(spec)
	named := slices.Clone(c.found)
	for i := range spec.ImagePullSecrets {
		c.secret(&spec.ImagePullSecrets[i])
	}
	for _, ref := range c.found[len(named):] {
		r.Pull = append(r.Pull, ref.Name)
	}
	r.Objects, r.Keys = c.found, c.keys
}

func (c *collector) pod(spec *corev1.PodSpec) {
	c.add(KindServiceAccount, spec.ServiceAccountName)
	c.add(KindPriorityClass, spec.PriorityClassName)
	if spec.RuntimeClassName != nil {
		c.add(KindRuntimeClass, *spec.RuntimeClassName)
	}
	for i := range spec.ResourceClaims {
		c.resourceClaim(&spec.ResourceClaims[i])
	}
	for i := range spec.InitContainers {
		c.environment(spec.InitContainers[i].Env, spec.InitContainers[i].EnvFrom)
	}
	for i := range spec.Containers {
		c.environment(spec.Containers[i].Env, spec.Containers[i].EnvFrom)
	}
	for i := range spec.Volumes {
		if !strings.HasPrefix(spec.Volumes[i].Name, injectedTokenVolume) {
			c.volume(&spec.Volumes[i].VolumeSource)
		}
	}
}

func (c *collector) resourceClaim(claim *corev1.PodResourceClaim) {
	if claim.ResourceClaimName != nil {
		c.add(KindResourceClaim, *claim.ResourceClaimName)
	}
	if claim.ResourceClaimTemplateName != nil {
		c.add(KindResourceClaimTemplate, *claim.ResourceClaimTemplateName)
	}
}

func (c *collector) environment(env []corev1.EnvVar, from []corev1.EnvFromSource) {
	for _, source := range from {
		if ref := source.ConfigMapRef; ref != nil {
			c.addUnless(ref.Optional, KindConfigMap, ref.Name)
		}
		if ref := source.SecretRef; ref != nil {
			c.addUnless(ref.Optional, KindSecret, ref.Name)
		}
	}
	for i := range env {
		source := env[i].ValueFrom
		if source == nil {
			continue
		}
		if ref := source.ConfigMapKeyRef; ref != nil {
			c.key(ref.Optional, KindConfigMap, ref.Name, ref.Key)
		}
		if ref := source.SecretKeyRef; ref != nil {
			c.key(ref.Optional, KindSecret, ref.Name, ref.Key)
		}
	}
}

func (c *collector) volume(source *corev1.VolumeSource) {
	if s := source.ConfigMap; s != nil {
		c.items(s.Optional, KindConfigMap, s.Name, s.Items)
	}
	if s := source.Secret; s != nil {
		c.items(s.Optional, KindSecret, s.SecretName, s.Items)
	}
	if s := source.PersistentVolumeClaim; s != nil {
		c.add(KindPersistentVolumeClaim, s.ClaimName)
	}
	if s := source.Projected; s != nil {
		c.projected(s.Sources)
	}
	if s := source.Ephemeral; s != nil && s.VolumeClaimTemplate != nil && s.VolumeClaimTemplate.Spec.StorageClassName != nil {
		c.add(KindStorageClass, *s.VolumeClaimTemplate.Spec.StorageClassName)
	}
	if s := source.CSI; s != nil {
		c.secret(s.NodePublishSecretRef)
	}
	c.legacyVolume(source)
}

func (c *collector) projected(sources []corev1.VolumeProjection) {
	for i := range sources {
		if s := sources[i].ClusterTrustBundle; s != nil && s.Name != nil {
			c.addUnless(s.Optional, KindClusterTrustBundle, *s.Name)
		}
		if s := sources[i].ConfigMap; s != nil {
			c.items(s.Optional, KindConfigMap, s.Name, s.Items)
		}
		if s := sources[i].Secret; s != nil {
			c.items(s.Optional, KindSecret, s.Name, s.Items)
		}
	}
}

// legacyVolume reads the secrets of the in-tree volume types that still can be written in a pod.
func (c *collector) legacyVolume(source *corev1.VolumeSource) {
	if s := source.AzureFile; s != nil {
		c.add(KindSecret, s.SecretName)
	}
	if s := source.CephFS; s != nil {
		c.secret(s.SecretRef)
	}
	if s := source.Cinder; s != nil {
		c.secret(s.SecretRef)
	}
	if s := source.FlexVolume; s != nil {
		c.secret(s.SecretRef)
	}
	if s := source.RBD; s != nil {
		c.secret(s.SecretRef)
	}
	if s := source.ScaleIO; s != nil {
		c.secret(s.SecretRef)
	}
	if s := source.ISCSI; s != nil {
		c.secret(s.SecretRef)
	}
	if s := source.StorageOS; s != nil {
		c.secret(s.SecretRef)
	}
}
