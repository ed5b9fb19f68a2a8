package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"headstart.dev/cmd/internal/cli"
)

const (
	// requestTimeout bounds one request to the API server where --request-timeout does not.
	requestTimeout = 30 * time.Second
	// requestsPerSecond and burst are those of kubectl: what client-go has for a default makes a person wait.
	requestsPerSecond, burst = 50, 300
)

// clusterFlags say which cluster, and as whom; they are kubectl's own.
type clusterFlags struct {
	kubeconfig string
	overrides  clientcmd.ConfigOverrides
	flags      *pflag.FlagSet
}

// shownFlags are those that the help shows; the others are for whoever knows them from kubectl.
var shownFlags = []string{"kubeconfig", "context", "namespace", "request-timeout"}

func (f *clusterFlags) register(cmd *cobra.Command) {
	own := pflag.NewFlagSet("cluster", pflag.ContinueOnError)
	own.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file` (default $KUBECONFIG, else ~/.kube/config)")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	names.ClusterOverrideFlags.APIServer.ShortName = "s"
	clientcmd.BindOverrideFlags(&f.overrides, own, names)
	own.Lookup("context").Usage = "`name` of the kubeconfig's context"
	own.Lookup("namespace").Usage = "`namespace` of the pod (default the context's)"
	timeout := own.Lookup("request-timeout")
	timeout.Usage, timeout.DefValue = "how `long` one request may take, such as 1m; 0: for ever", requestTimeout.String()
	own.VisitAll(func(flag *pflag.Flag) { flag.Hidden = !slices.Contains(shownFlags, flag.Name) })
	cmd.Flags().AddFlagSet(own)
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long += "\n\nBeside the flags below, kubectl's own for the connection work: --server, --token, --user, --cluster, --as and so on."
	f.flags = cmd.Flags()
}

// connect finds the cluster; it sends nothing yet.
func (f *clusterFlags) connect() (*cluster, error) {
	config, namespace, err := f.load()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "kubectl-headstart/" + cli.Current().Version
	config.QPS, config.Burst = requestsPerSecond, burst
	if !f.flags.Changed("request-timeout") {
		config.Timeout = requestTimeout
	}
	c := &cluster{namespace: namespace, clock: &serverClock{}}
	config.Wrap(c.clock.wrap)
	// A time limit of requests would end a watch as well, which lasts as long as the user looks at it.
	watching := rest.CopyConfig(config)
	watching.Timeout = 0
	var errs [3]error
	c.core, errs[0] = kubernetes.NewForConfig(config)
	c.dynamic, errs[1] = dynamic.NewForConfig(config)
	c.watching, errs[2] = kubernetes.NewForConfig(watching)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return c, nil
}

// load reads the kubeconfig, or what a pod has in place of one.
func (f *clusterFlags) load() (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &f.overrides)
	config, err := loaded.ClientConfig()
	if err != nil {
		return nil, "", explainKubeconfig(err, rules, f.overrides.CurrentContext)
	}
	namespace, _, err := loaded.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	return config, namespace, nil
}

// explainKubeconfig says what to do where client-go's own words name what no user has.
func explainKubeconfig(err error, rules *clientcmd.ClientConfigLoadingRules, context string) error {
	if clientcmd.IsEmptyConfig(err) {
		return fmt.Errorf("no kubeconfig: %s: write --kubeconfig FILE or set KUBECONFIG, or have the provider write one (such as aws eks update-kubeconfig --name CLUSTER)",
			lookedAt(rules))
	}
	loaded, loadErr := rules.Load()
	if loadErr != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	if _, known := loaded.Contexts[context]; context != "" && !known {
		return fmt.Errorf("read kubeconfig: it has no context %q: it has %s", context, strings.Join(slices.Sorted(maps.Keys(loaded.Contexts)), ", "))
	}
	return fmt.Errorf("read kubeconfig: %w", err)
}

// lookedAt says where no cluster was found.
func lookedAt(rules *clientcmd.ClientConfigLoadingRules) string {
	files := rules.GetLoadingPrecedence()
	there := slices.DeleteFunc(slices.Clone(files), func(name string) bool {
		_, err := os.Stat(name)
		return err != nil
	})
	if len(there) > 0 {
		return strings.Join(there, ", ") + " names no cluster"
	}
	return strings.Join(files, ", ") + " is not there"
}
