package nodestatus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"headstart.dev/readiness/connection"
)

// KubeletKubeconfig is where a kubelet keeps its own credentials on the host.
const KubeletKubeconfig = "/var/lib/kubelet/kubeconfig"

const (
	nodeUserPrefix    = "system:node:"
	serviceAccountTag = "system:serviceaccount:"
	// nodeNameExtra is the claim of a pod-bound token that names the pod's node. Source: KEP-4193.
	nodeNameExtra = "authentication.kubernetes.io/node-name"
)

// maxPatchesPerSecond bounds what a probe that flaps without end costs the API server.
const maxPatchesPerSecond = 20

// missingDelay is how soon a kubeconfig that was not there is looked for again: the kubelet makes it during the boot.
const missingDelay = 250 * time.Millisecond

// missingTime is for how long; what is not there by then may never come.
const missingTime = 10 * time.Minute

// Identity is who the agent is to the API server.
type Identity string

// The identities, by preference.
const (
	// IdentityImpersonation is a ServiceAccount that impersonates its own node: NodeRestriction then holds it. KEP-5284.
	IdentityImpersonation Identity = "impersonation"
	// IdentityServiceAccount is a ServiceAccount that a ValidatingAdmissionPolicy holds to its own node.
	IdentityServiceAccount Identity = "serviceaccount"
	// IdentityNode is the kubelet's.
	IdentityNode Identity = "node"
	// IdentityOther is any other user, as on a developer's machine.
	IdentityOther Identity = "other"
)

// Target is where and as whom to publish.
type Target struct {
	// Kubeconfig is a file; empty means in-cluster, else KubeletKubeconfig.
	Kubeconfig string
	// NodeName is the Node's; empty means the one that the identity tells, else Fallback.
	NodeName string
	Fallback string
}

// Connected is a Node that can be published to.
type Connected struct {
	Node     Node
	Name     string
	Identity Identity
	// Credentials are our own, without impersonation: for what the node itself may not read, such as policies and rules.
	Credentials *rest.Config
}

// ErrNotConfigured means that neither a kubeconfig nor a ServiceAccount is there, so there may never be one.
var ErrNotConfigured = errors.New("no way to the API server is configured")

// Configured says whether there is a way to the API server, so that waiting for it makes sense. A kubeconfig that is
// named and not there yet counts.
func Configured(target Target) bool {
	_, err := target.load()
	return !errors.Is(err, ErrNotConfigured)
}

// Connect finds out who we are and returns our Node. It makes requests, and fails while the API server is away or the
// kubeconfig is not there yet; the caller tries again.
func Connect(ctx context.Context, target Target) (Connected, error) {
	config, err := target.load()
	if err != nil {
		return Connected{}, err
	}
	config.UserAgent = "headstart-agent"
	config.Timeout = 0 // each request has a deadline of its own, and a watch ends when it is silent
	config.Wrap(connection.Bounded)
	config.QPS, config.Burst = maxPatchesPerSecond, 2*maxPatchesPerSecond
	requestCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	user, err := whoAmI(requestCtx, config)
	if err != nil {
		return Connected{}, err
	}
	identity, ownNode := classify(user)
	name, err := target.name(identity, ownNode)
	if err != nil {
		return Connected{}, err
	}
	own := rest.CopyConfig(config)
	if identity == IdentityServiceAccount && ownNode != "" {
		may, err := mayImpersonate(requestCtx, config, name)
		if err != nil {
			return Connected{}, err
		}
		if may {
			identity = IdentityImpersonation
			config.Impersonate.UserName = nodeUserPrefix + name
		}
	}
	client, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return Connected{}, fmt.Errorf("make client: %w", err)
	}
	return Connected{Node: &apiNode{name: name, nodes: client.Nodes()}, Name: name, Identity: identity, Credentials: own}, nil
}

// load reads the credentials.
func (t Target) load() (*rest.Config, error) {
	path := t.Kubeconfig
	if path == "" {
		config, err := rest.InClusterConfig()
		if err == nil {
			return config, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("read in-cluster credentials: %w", err)
		}
		path = KubeletKubeconfig
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w: not in a pod, and %s does not exist: set kubeconfig", ErrNotConfigured, path)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", path, err)
	}
	return config, nil
}

// name checks what is configured against what the identity may write: a node's identity reaches its own Node only.
func (t Target) name(identity Identity, ownNode string) (string, error) {
	switch {
	case t.NodeName == "" && ownNode != "":
		return ownNode, nil
	case t.NodeName == "":
		return t.Fallback, nil
	case ownNode != "" && ownNode != t.NodeName:
		return "", fmt.Errorf("node name is %q, but these credentials (%s) are of node %q: set nodeName to it, or leave it out", t.NodeName, identity, ownNode)
	}
	return t.NodeName, nil
}

func whoAmI(ctx context.Context, config *rest.Config) (authenticationv1.UserInfo, error) {
	client, err := typedauthenticationv1.NewForConfig(config)
	if err != nil {
		return authenticationv1.UserInfo{}, fmt.Errorf("make client: %w", err)
	}
	review, err := client.SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, fmt.Errorf("ask the API server at %s who we are: %w", config.Host, err)
	}
	return review.Status.UserInfo, nil
}

// classify tells the kind of user, and the node that it belongs to, if it says so.
func classify(user authenticationv1.UserInfo) (Identity, string) {
	if name, ok := strings.CutPrefix(user.Username, nodeUserPrefix); ok {
		return IdentityNode, name
	}
	if strings.HasPrefix(user.Username, serviceAccountTag) {
		if names := user.Extra[nodeNameExtra]; len(names) == 1 {
			return IdentityServiceAccount, names[0]
		}
		return IdentityServiceAccount, ""
	}
	return IdentityOther, ""
}

// mayImpersonate tries to read the Node as the node itself. A Node that is not there yet is as good an answer.
func mayImpersonate(ctx context.Context, config *rest.Config, name string) (bool, error) {
	as := rest.CopyConfig(config)
	as.Impersonate.UserName = nodeUserPrefix + name
	client, err := typedcorev1.NewForConfig(as)
	if err != nil {
		return false, fmt.Errorf("make client: %w", err)
	}
	_, err = client.Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil || apierrors.IsNotFound(err):
		return true, nil
	case apierrors.IsForbidden(err):
		return false, nil
	}
	return false, fmt.Errorf("try to impersonate node %s: %w", name, err)
}

// Serve connects and publishes until ctx ends, whatever happens to the API server, the credentials or the Node.
// connected is told of every connection, with a context that ends with it.
func (p *Publisher) Serve(ctx context.Context, target Target, connected func(context.Context, Connected)) {
	var retry backoff
	logged, begun := "", time.Now()
	for {
		c, err := Connect(ctx, target)
		if err == nil {
			logged = ""
			started := time.Now()
			connection, cancel := context.WithCancel(ctx)
			connected(connection, c)
			err = p.Run(connection, c.Node)
			cancel()
			if time.Since(started) > stableWatch {
				retry.reset()
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != logged {
			p.log.Info("not publishing yet, goes on trying", "cause", err.Error())
			logged = err.Error()
		}
		if time.Since(begun) < missingTime && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotConfigured)) {
			retry.delay = missingDelay / 2
		}
		if !retry.wait(ctx) {
			return
		}
	}
}
