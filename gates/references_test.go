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
		"a ClusterTrustBundle by name": {
			spec: volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: &name}},
				{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: &name, Optional: &yes}},
			}}}),
			want: []objectRef{{KindClusterTrustBundle, name}},
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
		t.Run(name, func(t *testing.T) {
			var found references
			found.read(&tc.spec)
			require.Equal(t, tc.want, found.Objects)
		})
	}
}

func TestDependencyOfAReferenceIsInThePodsNamespaceUnlessItHasNone(t *testing.T) {
	require.Equal(t, Dependency{Kind: KindSecret, Namespace: "shop", Name: "token"}, objectRef{KindSecret, "token"}.in("shop"))
	require.Equal(t, Dependency{Kind: KindRuntimeClass, Name: "gvisor"}, objectRef{KindRuntimeClass, "gvisor"}.in("shop"))
	require.Equal(t, "Secret shop/token", Dependency{Kind: KindSecret, Namespace: "shop", Name: "token"}.String())
}

func TestWhatIsMissing(t *testing.T) {
	yes := true
	key := func(name, key string, optional *bool) corev1.EnvVar {
		return corev1.EnvVar{Name: "X", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: local(name), Key: key, Optional: optional,
		}}}
	}
	cases := map[string]struct {
		pod   func(*corev1.PodSpec)
		facts map[string]Existence // by the dependency's text
		want  string
	}{
		"a key that is not there": {
			pod:   func(s *corev1.PodSpec) { s.Containers[0].Env = []corev1.EnvVar{key("token", "b", nil)} },
			facts: map[string]Existence{"Secret shop/token": {There: true, Names: []string{"a"}, NamesKnown: true}},
			want:  "Secret shop/token: it has no key b",
		},
		"a key that is optional": {
			pod:   func(s *corev1.PodSpec) { s.Containers[0].Env = []corev1.EnvVar{key("token", "b", &yes)} },
			facts: map[string]Existence{"Secret shop/token": {There: true, Names: []string{"a"}, NamesKnown: true}},
		},
		"keys that nobody knows": {
			pod:   func(s *corev1.PodSpec) { s.Containers[0].Env = []corev1.EnvVar{key("token", "b", nil)} },
			facts: map[string]Existence{"Secret shop/token": {There: true}},
		},
		"a key of a volume's items": {
			pod: func(s *corev1.PodSpec) {
				s.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: local("flags"), Items: []corev1.KeyToPath{{Key: "a"}, {Key: "b"}},
				}}}}
			},
			facts: map[string]Existence{"ConfigMap shop/flags": {There: true, Names: []string{"a"}, NamesKnown: true}},
			want:  "ConfigMap shop/flags: it has no key b",
		},
		"a pull secret that came from the ServiceAccount": {
			pod: func(s *corev1.PodSpec) {
				s.ServiceAccountName, s.ImagePullSecrets = "robot", []corev1.LocalObjectReference{local("registry")}
			},
			facts: map[string]Existence{"ServiceAccount shop/robot": {There: true, Names: []string{"registry"}}},
		},
		"a pull secret of the pod's own": {
			pod: func(s *corev1.PodSpec) {
				s.ServiceAccountName, s.ImagePullSecrets = "robot", []corev1.LocalObjectReference{local("registry")}
			},
			facts: map[string]Existence{"ServiceAccount shop/robot": {There: true}},
			want:  "Secret shop/registry does not exist",
		},
		"a ServiceAccount of which nobody knows yet": {
			pod:   func(s *corev1.PodSpec) { s.ServiceAccountName = "robot" },
			facts: map[string]Existence{"ServiceAccount shop/robot": {Unknown: true}},
			want:  "ServiceAccount shop/robot has not been looked for yet",
		},
		"Secrets that the controller may not list": {
			pod:   func(s *corev1.PodSpec) { s.Containers[0].Env = []corev1.EnvVar{key("token", "b", nil)} },
			facts: map[string]Existence{"Secret shop/token": {Unknown: true, Problem: "forbidden"}},
			want:  "Secret shop/token cannot be read: forbidden",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := makePod(t, NewShapes(), "p", "1", func(p *corev1.Pod) { tc.pod(&p.Spec) })
			unmet := referencesRequirement{}.unmet(pod, Facts{Exists: func(d Dependency) Existence { return tc.facts[d.String()] }})
			require.Equal(t, tc.want, Describe(unmet))
		})
	}
}

// By default the controller may not read ConfigMaps and Secrets: a pod that names one must not wait for its deadline.
func TestWhatNobodyMayReadIsNotWaitedFor(t *testing.T) {
	pod := &Pod{Namespace: "default", Shape: &Shape{}}
	pod.references.Objects = []objectRef{{KindConfigMap, "flags"}, {KindSecret, "token"}, {KindServiceAccount, "robot"}}
	ask := func(is Existence) []Unmet {
		return referencesRequirement{}.unmet(pod, Facts{Exists: func(Dependency) Existence { return is }})
	}
	require.Len(t, ask(Existence{Unknown: true, Problem: "the server is away"}), 3)
	denied := ask(Existence{Unknown: true, Denied: true, Problem: "forbidden"})
	require.Len(t, denied, 1)
	require.Equal(t, KindServiceAccount, denied[0].Dependency.Kind)
}
