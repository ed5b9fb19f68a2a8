package keychain

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"headstart.dev/prepull/credentials"
)

// Refs are the pull Secrets that a policy names, by themselves and by ServiceAccount.
type Refs struct {
	Secrets, ServiceAccounts []types.NamespacedName
}

// Reader reads Secrets and ServiceAccounts by name. Nothing is listed or watched: the right to get those that are named is
// all that it takes.
type Reader interface {
	corev1client.SecretsGetter
	corev1client.ServiceAccountsGetter
}

// Authenticators returns what the Secrets hold for an image, in the order in which they are named. The error joins what
// could not be read; what could is returned beside it, as the kubelet goes on without a Secret that is missing.
func Authenticators(ctx context.Context, reader Reader, image string, refs Refs) ([]authn.Authenticator, error) {
	names := refs.Secrets
	var errs []error
	for _, ref := range refs.ServiceAccounts {
		account, err := reader.ServiceAccounts(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			errs = append(errs, fmt.Errorf("read ServiceAccount %s: %w", ref, err))
			continue
		}
		for _, secret := range account.ImagePullSecrets {
			names = append(slices.Clip(names), types.NamespacedName{Namespace: ref.Namespace, Name: secret.Name})
		}
	}
	var found []authn.Authenticator
	for _, ref := range names {
		secret, err := reader.Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			errs = append(errs, fmt.Errorf("read Secret %s: %w", ref, err))
			continue
		}
		logins, err := loginsOf(secret, image)
		if err != nil {
			errs = append(errs, fmt.Errorf("read Secret %s: %w", ref, err))
		}
		for _, login := range logins {
			found = append(found, authenticator(login))
		}
	}
	return found, errors.Join(errs...)
}

func loginsOf(secret *corev1.Secret, image string) ([]credentials.Login, error) {
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		return credentials.FromDockerConfig(secret.Data[corev1.DockerConfigJsonKey], image)
	case corev1.SecretTypeDockercfg:
		return credentials.FromDockerCfg(secret.Data[corev1.DockerConfigKey], image)
	default:
		return nil, fmt.Errorf("its type is %s, want %s", secret.Type, corev1.SecretTypeDockerConfigJson)
	}
}

func authenticator(login credentials.Login) authn.Authenticator {
	if login.Username == "" {
		return authn.FromConfig(authn.AuthConfig{IdentityToken: login.Secret})
	}
	return &authn.Basic{Username: login.Username, Password: login.Secret}
}
