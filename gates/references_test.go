package gates

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func local(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func TestReferencesOf(t *testing.T) {
	yes, no, name := true, false, "named"
	volume := func(source corev1.VolumeSource) corev1.PodSpec {
		return corev1.PodSpec{Volumes: []corev1.Volume{{Name: "data", VolumeSource: source}}}
	}
	container := func(c corev1.Container) corev1.PodSpec { return corev1.PodSpec{Containers: []corev1.Container{c}} }
	cases := map[string]struct {
		spec corev1.PodSpec
		want []objectRef
	}{
		"a pod that names nothing": {spec: corev1.PodSpec{}},
		"service account, priority class and runtime class": {
			spec: corev1.PodSpec{ServiceAccountName: "robot", PriorityClassName: "high", RuntimeClassName: &name},
			want: []objectRef{{KindServiceAccount, "robot"}, {KindPriorityClass, "high"}, {KindRuntimeClass, name}},
		},
		"pull secrets": {
			spec: corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{local("registry")}},
			want: []objectRef{{KindSecret, "registry"}},
		},
		"resource claims by name and by template": {
			spec: corev1.PodSpec{ResourceClaims: []corev1.PodResourceClaim{
				{Name: "a", ResourceClaimName: &name}, {Name: "b", ResourceClaimTemplateName: &name},
			}},
			want: []objectRef{{KindResourceClaim, name}, {KindResourceClaimTemplate, name}},
		},
		"envFrom, each thing once": {
			spec: container(corev1.Container{EnvFrom: []corev1.EnvFromSource{
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("flags")}},
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("token"), Optional: &no}},
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("flags")}},
			}}),
			want: []objectRef{{KindConfigMap, "flags"}, {KindSecret, "token"}},
		},
		"env of an init container": {
			spec: corev1.PodSpec{InitContainers: []corev1.Container{{Env: []corev1.EnvVar{
				{Name: "A", Value: "plain"},
				{Name: "B", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("flags")}}},
				{Name: "C", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("token")}}},
			}}}},
			want: []objectRef{{KindConfigMap, "flags"}, {KindSecret, "token"}},
		},
		"optional things are not waited for": {
			spec: corev1.PodSpec{
				Containers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
					{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("flags"), Optional: &yes}},
				}}},
				Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "token", Optional: &yes}}}},
			},
		},
		"a projected volume": {
			spec: volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("flags")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("token")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("maybe"), Optional: &yes}},
			}}}),
			want: []objectRef{{KindConfigMap, "flags"}, {KindSecret, "token"}},
		},
		"a claim": {
			spec: volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}),
			want: []objectRef{{KindPersistentVolumeClaim, "disk"}},
		},
		"the class of an ephemeral volume": {
			spec: volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
				Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &name},
			}}}),
			want: []objectRef{{KindStorageClass, name}},
		},
		"an ephemeral volume of the default class": {
			spec: volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{}}}),
		},
		"the secret of an inline CSI volume": {
			spec: volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: &corev1.LocalObjectReference{Name: "vault"}}}),
			want: []objectRef{{KindSecret, "vault"}},
		},
		"what admission injected is not named by the pod": {
			spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "kube-api-access-x7v2q", VolumeSource: corev1.VolumeSource{
				Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("kube-root-ca.crt")}},
				}},
			}}}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, referencesOf(&tc.spec)) })
	}
}

func TestDependencyOfAReferenceIsInThePodsNamespaceUnlessItHasNone(t *testing.T) {
	require.Equal(t, Dependency{Kind: KindSecret, Namespace: "shop", Name: "token"}, objectRef{KindSecret, "token"}.in("shop"))
	require.Equal(t, Dependency{Kind: KindRuntimeClass, Name: "gvisor"}, objectRef{KindRuntimeClass, "gvisor"}.in("shop"))
	require.Equal(t, "Secret shop/token", Dependency{Kind: KindSecret, Namespace: "shop", Name: "token"}.String())
}
