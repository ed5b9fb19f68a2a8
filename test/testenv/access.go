package testenv

import (
	"crypto/tls"
	"fmt"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"headstart.dev/test/testenv/internal/pki"
)

const (
	adminUser  = "headstart-testenv-admin"
	adminGroup = "system:masters"
	// clientQPS and clientBurst lift client-go's throttle: a test waits for the server, not for its own client.
	clientQPS, clientBurst = 1000, 2000
)

// Config returns a client configuration with every right in the cluster.
func (cp *ControlPlane) Config() *rest.Config { return cp.ConfigFor(adminUser, adminGroup) }

// ConfigFor returns a client configuration that authenticates as user and groups by a client certificate, for example
// ("system:node:n1", "system:nodes"), or ("system:serviceaccount:ns:name", "system:serviceaccounts"). Each call mints a
// new certificate; RBAC decides what it may do.
func (cp *ControlPlane) ConfigFor(user string, groups ...string) *rest.Config {
	pair := cp.mustClient(user, groups)
	return &rest.Config{
		Host:  cp.url(),
		QPS:   clientQPS,
		Burst: clientBurst,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: cp.authority.Cert(), CertData: pair.Cert, KeyData: pair.Key,
		},
	}
}

// Kubeconfig writes a kubeconfig for user and groups into the control plane's folder and returns its path. Called again for
// the same user and groups, it rewrites the same file.
func (cp *ControlPlane) Kubeconfig(user string, groups ...string) string {
	path, err := cp.writeKubeconfig(user, groups...)
	if err != nil {
		// Only a full disk or a stopped control plane gets here; the reader of the path says so with the path in it.
		return cp.work.Path("missing-kubeconfig")
	}
	return path
}

func (cp *ControlPlane) writeKubeconfig(user string, groups ...string) (string, error) {
	pair, err := cp.authority.Client(user, groups...)
	if err != nil {
		return "", err
	}
	content, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{
			"testenv": {Server: cp.url(), CertificateAuthorityData: cp.authority.Cert()},
		},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{
			"user": {ClientCertificateData: pair.Cert, ClientKeyData: pair.Key},
		},
		Contexts:       map[string]*clientcmdapi.Context{"testenv": {Cluster: "testenv", AuthInfo: "user"}},
		CurrentContext: "testenv",
	})
	if err != nil {
		return "", fmt.Errorf("write the kubeconfig of %q: %w", user, err)
	}
	name := strings.NewReplacer(":", "_", "/", "_").Replace(strings.Join(append([]string{user}, groups...), "+"))
	return cp.work.Write(content, name+".kubeconfig")
}

// ServingCertificate is the API server's, for a test that stands between it and its clients.
func (cp *ControlPlane) ServingCertificate() (tls.Certificate, error) {
	certificate, err := tls.LoadX509KeyPair(cp.work.Path("serving.crt"), cp.work.Path("serving.key"))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load the API server's certificate: %w", err)
	}
	return certificate, nil
}

// mustClient cannot fail in a living program: it needs nothing but the system's random source, whose failure ends the
// program anyway (crypto/rand, since Go 1.24).
func (cp *ControlPlane) mustClient(user string, groups []string) pki.Pair {
	pair, err := cp.authority.Client(user, groups...)
	if err != nil {
		return pki.Pair{}
	}
	return pair
}
