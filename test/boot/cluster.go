// Package boot boots one node the way a real one boots, with Headstart or without, beside a real control plane, and
// records when each thing happened. The demo shows it and the e2e tests check it.
//
// What a cloud adds to a boot is played, with the same delays in both forms: the time until the kubelet starts, the CNI
// plugin that its DaemonSet brings, the ConfigMap that somebody writes. All else is the real thing. Start from
// NewCluster.
package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

const (
	controllerNamespace = "headstart-system"
	controllerUser      = "system:serviceaccount:" + controllerNamespace + ":headstart-controller"
	imageName           = "shop/web:v1"
)

// Config describes the cluster.
type Config struct {
	// Image is the workload's image.
	Image images.Spec
	// RegistryBytesPerSecond limits what the registry sends, all connections together; 0 is as fast as the machine.
	RegistryBytesPerSecond int64
	// Progress receives lines while servers, programs and images are made.
	Progress io.Writer
}

// Cluster is a control plane with headstart-controller in it, a registry that holds the workload's image, and no node.
type Cluster struct {
	// ImageRef is the workload's image, ImageBytes the compressed size of its layers.
	ImageRef   string
	ImageBytes int64
	// LayerSizes are the compressed sizes of the image's layers by digest.
	LayerSizes map[string]int64

	cfg        Config
	plane      *testenv.ControlPlane
	registry   *testenv.Registry
	controller *testenv.Program
	client     *kubernetes.Clientset
	dir        string // of what agents read
	agent      string
}

// NewCluster starts a cluster. The caller must Stop it; on error nothing is left running.
func NewCluster(ctx context.Context, cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg, LayerSizes: map[string]int64{}}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	say := func(format string, args ...any) { fmt.Fprintf(c.cfg.Progress, format+"\n", args...) }
	var err error
	if c.dir, err = os.MkdirTemp("", "headstart-boot-"); err != nil {
		return fmt.Errorf("make a folder for the agents' files: %w", err)
	}
	if _, err := testenv.BuildServers(ctx, c.cfg.Progress, testenv.BootServers()...); err != nil {
		return err
	}
	say("building headstart-agent and headstart-controller")
	if c.agent, err = testenv.BuildCommand(ctx, "headstart-agent"); err != nil {
		return err
	}
	controller, err := testenv.BuildCommand(ctx, "headstart-controller")
	if err != nil {
		return err
	}
	say("starting etcd, kube-apiserver, kube-scheduler and kube-controller-manager")
	c.plane, err = testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{
		Scheduler: true, ControllerManager: true, CRDDirs: []string{"deploy/crd"}, Progress: c.cfg.Progress,
	})
	if err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(c.plane.Config()); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := c.startRegistry(ctx, say); err != nil {
		return err
	}
	say("starting headstart-controller with the roles of deploy/rbac")
	return c.startController(ctx, controller)
}

// startRegistry makes the workload's image of real files and pushes it.
func (c *Cluster) startRegistry(ctx context.Context, say func(string, ...any)) error {
	var err error
	c.registry, err = testenv.NewRegistry(ctx, testenv.RegistryConfig{Progress: c.cfg.Progress})
	if err != nil {
		return err
	}
	say("making the workload's image of real files: %d layers, %d MiB", len(c.cfg.Image.Layers), c.cfg.Image.Bytes()>>20)
	image, err := images.Build(ctx, c.cfg.Image)
	if err != nil {
		return err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return fmt.Errorf("read the workload's manifest: %w", err)
	}
	for _, layer := range manifest.Layers {
		c.ImageBytes += layer.Size
		c.LayerSizes[layer.Digest.String()] = layer.Size
	}
	say("pushing it to the local registry: %d MiB compressed", c.ImageBytes>>20)
	if c.ImageRef, _, err = c.registry.Push(ctx, imageName, image); err != nil {
		return err
	}
	c.registry.Proxy.SetBandwidth(c.cfg.RegistryBytesPerSecond)
	return nil
}

// startController runs headstart-controller as the service account that it is deployed with, and with its roles only.
func (c *Cluster) startController(ctx context.Context, program string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: controllerNamespace}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make the controller's namespace: %w", err)
	}
	root, err := testenv.ModuleRoot()
	if err != nil {
		return err
	}
	roles, err := roleFiles(filepath.Join(root, "deploy", "rbac"))
	if err != nil {
		return err
	}
	if err := testenv.ApplyFiles(ctx, c.plane.Config(), roles...); err != nil {
		return err
	}
	if err := testenv.Apply(ctx, c.plane.Config(), policies); err != nil {
		return err
	}
	c.controller, err = testenv.NewProgram(ctx, testenv.ProgramConfig{
		Path: program,
		Args: []string{
			"--kubeconfig=" + c.plane.Kubeconfig(controllerUser, "system:serviceaccounts", "system:serviceaccounts:"+controllerNamespace),
			// Another program of this machine may have the default ports.
			"--metrics-bind-address=0", "--health-probe-bind-address=0",
		},
	})
	return err
}

// roleFiles returns the manifests below dir.
func roleFiles(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".yaml" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find the roles: %w", err)
	}
	return files, nil
}

// Registry holds the workload's image and counts what is pulled of it.
func (c *Cluster) Registry() *testenv.Registry { return c.registry }

// ControllerLog is the end of what headstart-controller wrote.
func (c *Cluster) ControllerLog() string {
	if c.controller == nil {
		return ""
	}
	return c.controller.Log(logBytes)
}

// Stop ends everything. It is safe to call again.
func (c *Cluster) Stop() error {
	var errs []error
	if c.controller != nil {
		errs = append(errs, c.controller.Stop())
	}
	if c.registry != nil {
		errs = append(errs, c.registry.Stop())
	}
	if c.plane != nil {
		errs = append(errs, c.plane.Stop())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}
