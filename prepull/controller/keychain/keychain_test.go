package keychain

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

func dockerConfig(registry, user, password string) []byte {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, registry, auth)
}

func TestSecretsAreReadByNameAndMatched(t *testing.T) {
	secret := func(name string, kind corev1.SecretType, key string, data []byte) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: kind, Data: map[string][]byte{key: data}}
	}
	client := fake.NewClientset(
		secret("team", corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, dockerConfig("registry.example/team", "team", "t0psecret")),
		secret("all", corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, dockerConfig("https://registry.example", "all", "t0psecret")),
		secret("old", corev1.SecretTypeDockercfg, corev1.DockerConfigKey, []byte(`{"registry.example":{"username":"old","password":"t0psecret"}}`)),
		secret("broken", corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, []byte(`t0psecret`)),
		secret("opaque", corev1.SecretTypeOpaque, "password", []byte("t0psecret")),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "all"}, {Name: "gone"}}},
	)
	named := func(names ...string) []types.NamespacedName {
		var out []types.NamespacedName
		for _, name := range names {
			out = append(out, types.NamespacedName{Namespace: "shop", Name: name})
		}
		return out
	}
	cases := map[string]struct {
		image string
		refs  Refs
		users []string
		err   string
	}{
		"the Secret of the repository":       {"registry.example/team/app:v1", Refs{Secrets: named("team", "all")}, []string{"team", "all"}, ""},
		"another team's is not sent":         {"registry.example/other/app:v1", Refs{Secrets: named("team", "all")}, []string{"all"}, ""},
		"another registry's is not sent":     {"evil.example/team/app:v1", Refs{Secrets: named("team", "all", "old")}, nil, ""},
		"those of a ServiceAccount":          {"registry.example/app:v1", Refs{ServiceAccounts: named("web")}, []string{"all"}, "read Secret shop/gone"},
		"the older form":                     {"registry.example/app:v1", Refs{Secrets: named("old")}, []string{"old"}, ""},
		"one that is missing stops no other": {"registry.example/app:v1", Refs{Secrets: named("missing", "all"), ServiceAccounts: named("nobody")}, []string{"all"}, "read ServiceAccount shop/nobody"},
		"what cannot be read":                {"registry.example/app:v1", Refs{Secrets: named("broken")}, nil, "read Secret shop/broken"},
		"no pull Secret":                     {"registry.example/app:v1", Refs{Secrets: named("opaque")}, nil, "want kubernetes.io/dockerconfigjson"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Authenticators(t.Context(), client.CoreV1(), tc.image, tc.refs)
			if tc.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.err)
				require.NotContains(t, err.Error(), "t0psecret")
			}
			var users []string
			for _, one := range got {
				config, err := one.Authorization()
				require.NoError(t, err)
				users = append(users, config.Username)
				require.Equal(t, "t0psecret", config.Password)
			}
			require.Equal(t, tc.users, users)
		})
	}
}

func TestACloudIsAskedForItsOwnRegistriesOnly(t *testing.T) {
	hosts := map[string]func(string) bool{
		"111122223333.dkr.ecr.us-east-1.amazonaws.com": ofECR, "111122223333.dkr-ecr.us-east-1.on.aws": ofECR, "public.ecr.aws": ofECR,
		"team.azurecr.io": ofACR, "europe-docker.pkg.dev": ofGoogle, "gcr.io": ofGoogle, "eu.gcr.io": ofGoogle,
	}
	for host, owner := range hosts {
		require.True(t, owner(host), host)
	}
	for _, host := range []string{"registry.example", "index.docker.io", "azurecr.io.evil.example", "mygcr.io", "pkg.dev.evil.example"} {
		require.False(t, ofECR(host) || ofACR(host) || ofGoogle(host), host)
	}
}

func TestCloud(t *testing.T) {
	asked := 0
	var fails error
	c := newCloud(helper{"ECR", ofECR, func(string) (authn.Authenticator, error) {
		asked++
		return &authn.Basic{Username: "AWS", Password: "token"}, fails
	}})
	target := func(image string) authn.Resource {
		ref, err := name.ParseReference(image)
		require.NoError(t, err)
		return ref.Context()
	}
	private := target("111122223333.dkr.ecr.us-east-1.amazonaws.com/app:v1")
	for range 3 {
		auth, err := c.ResolveContext(t.Context(), private)
		require.NoError(t, err)
		require.Equal(t, &authn.Basic{Username: "AWS", Password: "token"}, auth)
	}
	require.Equal(t, 1, asked, "an answer is kept for a while")
	require.NoError(t, c.Trouble(private.RegistryStr()))

	fails = errors.New("no EC2 role found")
	public := target("public.ecr.aws/app:v1")
	auth, err := c.ResolveContext(t.Context(), public)
	require.NoError(t, err)
	require.Equal(t, authn.Anonymous, auth, "some registries are open to all")
	require.ErrorContains(t, c.Trouble(public.RegistryStr()), "the controller has no credentials for public.ecr.aws: no EC2 role found")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	hangs := newCloud(helper{"ECR", ofECR, func(string) (authn.Authenticator, error) {
		<-t.Context().Done()
		return nil, t.Context().Err()
	}})
	_, err = hangs.ResolveContext(ended, private)
	require.ErrorIs(t, err, context.Canceled, "a helper that hangs does not hang a look-up")
}
