package testenv_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

func TestContainerd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	testenv.RequireRoot(t)
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	image, err := images.Build(t.Context(), images.Sized("testenv", 3<<20, 1<<20))
	require.NoError(t, err)
	ref, _, err := reg.Push(t.Context(), "team/app:v1", image)
	require.NoError(t, err)
	require.Zero(t, reg.Proxy.Pulled(), "a push is not counted")

	ctd, err := testenv.NewContainerd(t.Context(), testenv.ContainerdConfig{Registry: reg})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ctd.Stop()) })
	client, err := ctd.Client()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	conn, err := ctd.CRI()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	cri, criImages := runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)

	t.Run("the CRI pulls from the registry, and the proxy counts", func(t *testing.T) {
		_, err := criImages.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
		require.NoError(t, err)
		manifest, err := image.Manifest()
		require.NoError(t, err)
		for _, layer := range manifest.Layers {
			require.Equal(t, layer.Size, reg.Proxy.Blob(layer.Digest.String()).Bytes)
		}
	})
	t.Run("has a disk of its own, with the file system of an AL2023 node", func(t *testing.T) {
		var disk, machine unix.Statfs_t
		require.NoError(t, unix.Statfs(ctd.Root(), &disk))
		require.NoError(t, unix.Statfs(filepath.Dir(ctd.ConfigPath()), &machine))
		require.EqualValues(t, unix.XFS_SUPER_MAGIC, disk.Type)
		require.NotEqual(t, machine.Fsid, disk.Fsid)
	})
	var pod string
	t.Run("runs a pod without network", func(t *testing.T) {
		sandbox := hostPod(t.TempDir())
		created, err := cri.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandbox})
		require.NoError(t, err)
		pod = created.PodSandboxId
		container, err := cri.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{
			PodSandboxId: pod, SandboxConfig: sandbox,
			Config: &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: ref}, LogPath: "c.log",
			},
		})
		require.NoError(t, err)
		_, err = cri.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: container.ContainerId})
		require.NoError(t, err)
	})
	t.Run("keeps its images and containers over a kill", func(t *testing.T) {
		require.NoError(t, ctd.Kill())
		require.NoError(t, ctd.Restart(t.Context()))
		list, err := cri.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
		require.NoError(t, err)
		require.Len(t, list.Containers, 1)
		require.Equal(t, runtimeapi.ContainerState_CONTAINER_RUNNING, list.Containers[0].State)
	})
	t.Run("a registry that is down refuses, and serves again", func(t *testing.T) {
		require.NoError(t, reg.Down())
		resolver := containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts))}))
		_, err := client.Fetch(t.Context(), ref, resolver)
		require.ErrorContains(t, err, "connection refused")
		require.NoError(t, reg.Up(t.Context()))
		_, err = client.Fetch(t.Context(), ref, resolver)
		require.NoError(t, err)
	})
	t.Run("leaves nothing when it is stopped with a pod running", func(t *testing.T) {
		dir := filepath.Dir(ctd.ConfigPath())
		require.NotEmpty(t, mountsBelow(t, dir))
		id := strings.TrimPrefix(filepath.Base(dir), "headstart-testenv-")
		require.NoError(t, ctd.Stop())
		require.Empty(t, mountsBelow(t, dir))
		require.Empty(t, marked(t, id))
		require.NoDirExists(t, dir)
		cgroups, err := filepath.Glob("/sys/fs/cgroup/*/k8s.io/" + pod)
		require.NoError(t, err)
		require.Empty(t, cgroups)
	})
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	content, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	var found []string
	for line := range bytes.Lines(content) {
		if strings.Contains(string(line), " "+dir+"/") {
			found = append(found, string(line))
		}
	}
	return found
}
