package testenv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"headstart.dev/test/testenv/internal/binaries"
	"headstart.dev/test/testenv/internal/process"
)

const (
	stopSignal     = syscall.SIGSTOP
	continueSignal = syscall.SIGCONT

	// secondAPIServer is the name of the process, not of its program.
	secondAPIServer = "kube-apiserver-2"

	serviceCIDR = "10.96.0.0/16"
	// apiServerStopTimeout is how long open requests may hold the server up; watches are ended after a second.
	apiServerStopTimeout = 20 * time.Second

	serviceAccountTimeout = 30 * time.Second
	serviceAccountPeriod  = 50 * time.Millisecond
)

var (
	servingIPs   = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}
	servingNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
)

func (cp *ControlPlane) startEtcd(ctx context.Context) error {
	ports, err := twoFreePorts(ctx)
	if err != nil {
		return err
	}
	cp.etcdURL = "http://" + loopback(ports[0])
	peer := "http://" + loopback(ports[1])
	return cp.startServer(ctx, process.Config{
		Name: binaries.Etcd,
		Args: []string{
			"--name=default", "--data-dir=" + cp.work.Path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + cp.etcdURL, "--advertise-client-urls=" + cp.etcdURL,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
			"--quota-backend-bytes=" + strconv.Itoa(4<<30),
		},
		Ready: answersOK(cp.etcdURL+"/health", nil),
	})
}

// StartAPIServer starts kube-apiserver after StopAPIServer, on the same port and data. It returns when the server is ready.
func (cp *ControlPlane) StartAPIServer(ctx context.Context) error {
	return cp.startAPIServer(ctx, binaries.APIServer, cp.serverPort)
}

// StartSecondAPIServer starts another kube-apiserver on the same data, as a control plane of several machines has, and
// returns its address, host and port. It stops with the control plane.
func (cp *ControlPlane) StartSecondAPIServer(ctx context.Context) (string, error) {
	port, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	return loopback(port), cp.startAPIServer(ctx, secondAPIServer, port)
}

func (cp *ControlPlane) startAPIServer(ctx context.Context, name string, port int) error {
	file := func(name string) string { return cp.work.Path(name) }
	args := []string{
		"--etcd-servers=" + cp.etcdURL,
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port), "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + serviceCIDR, "--allow-privileged=true",
		"--client-ca-file=" + file("ca.crt"), "--tls-cert-file=" + file("serving.crt"), "--tls-private-key-file=" + file("serving.key"),
		"--kubelet-client-certificate=" + file("kubelet-client.crt"), "--kubelet-client-key=" + file("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + file("service-account.pub"),
		"--service-account-signing-key-file=" + file("service-account.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		// Without a grace period the server does not end watches but waits for their clients, up to a minute.
		"--shutdown-watch-termination-grace-period=1s",
	}
	if !cp.cfg.ControllerManager {
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	tlsConfig, err := rest.TLSConfigFor(cp.Config())
	if err != nil {
		return fmt.Errorf("make the admin's TLS configuration: %w", err)
	}
	return cp.startServer(ctx, process.Config{
		Name: name, Path: cp.binDir + "/" + binaries.APIServer, Args: append(args, cp.cfg.APIServerArgs...), StopTimeout: apiServerStopTimeout,
		// /readyz waits for the bootstrap RBAC roles, not for the namespace, which every client takes for granted.
		Ready: both(answersOK("https://"+loopback(port)+"/readyz", tlsConfig), answersOK("https://"+loopback(port)+"/api/v1/namespaces/default", tlsConfig)),
	})
}

func (cp *ControlPlane) startScheduler(ctx context.Context) error {
	args, ready, err := cp.clientServer(ctx, "system:kube-scheduler")
	if err != nil {
		return err
	}
	return cp.startServer(ctx, process.Config{
		Name: binaries.Scheduler, Args: append(args, cp.cfg.SchedulerArgs...), Ready: ready,
	})
}

func (cp *ControlPlane) startControllerManager(ctx context.Context) error {
	args, ready, err := cp.clientServer(ctx, "system:kube-controller-manager")
	if err != nil {
		return err
	}
	args = append(args,
		"--use-service-account-credentials=true", "--service-account-private-key-file="+cp.work.Path("service-account.key"),
		"--root-ca-file="+cp.work.Path("ca.crt"),
		"--cluster-signing-cert-file="+cp.work.Path("ca.crt"), "--cluster-signing-key-file="+cp.work.Path("ca.key"))
	return cp.startServer(ctx, process.Config{
		Name: binaries.ControllerManager, Args: append(args, cp.cfg.ControllerManagerArgs...), Ready: ready,
	})
}

// waitServiceAccount returns when pods can be created in the namespace "default".
func (cp *ControlPlane) waitServiceAccount(ctx context.Context) error {
	tlsConfig, err := rest.TLSConfigFor(cp.Config())
	if err != nil {
		return fmt.Errorf("make the admin's TLS configuration: %w", err)
	}
	exists := answersOK(cp.url()+"/api/v1/namespaces/default/serviceaccounts/default", tlsConfig)
	ctx, cancel := context.WithTimeout(ctx, serviceAccountTimeout)
	defer cancel()
	tick := time.NewTicker(serviceAccountPeriod)
	defer tick.Stop()
	for {
		err := exists(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the default service account: %w", err)
		case <-tick.C:
		}
	}
}

// clientServer returns the flags and the health check that the scheduler and the controller-manager have in common.
func (cp *ControlPlane) clientServer(ctx context.Context, user string) ([]string, func(context.Context) error, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, nil, err
	}
	kubeconfig, err := cp.writeKubeconfig(user)
	if err != nil {
		return nil, nil, err
	}
	args := []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port),
	}
	// Its serving certificate is self-signed at start, so there is nothing to check it against; it is our own child.
	insecure := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
	return args, answersOK("https://"+loopback(port)+"/healthz", insecure), nil
}

func (cp *ControlPlane) signal(name string, signal syscall.Signal) error {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if server := cp.servers[name]; server != nil {
		return server.Signal(signal)
	}
	return nil
}

func (cp *ControlPlane) url() string { return "https://" + loopback(cp.serverPort) }

// CertPool holds the cluster's certificate authority, for clients that bring their own transport.
func (cp *ControlPlane) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cp.authority.Cert())
	return pool
}
