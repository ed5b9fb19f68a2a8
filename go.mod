module headstart.dev

go 1.26.6

require (
	github.com/NVIDIA/go-nvml v0.13.4-1 // NVIDIA's own binding of NVML, and its mock of a DGX A100 for tests
	github.com/awslabs/amazon-ecr-credential-helper/ecr-login v0.12.0 // AWS's own credentials for ECR: IRSA, Pod Identity, instance roles
	github.com/chrismellard/docker-credential-acr-env v0.0.0-20230304212654-82a0ddb27589 // credentials for ACR, as go-containerregistry's own keychains use it
	github.com/container-storage-interface/spec v1.13.0 // gRPC types that a CSI driver answers
	github.com/containerd/containerd/api v1.12.0 // types of the events and services that the client does not wrap
	github.com/containerd/containerd/v2 v2.4.2 // the client: content, snapshots, leases, images; the tar applier
	github.com/containerd/continuity v0.5.0 // sysx: extended attributes as containerd reads them (tests: tree hash)
	github.com/containerd/errdefs v1.0.0 // containerd's error kinds
	github.com/containerd/log v0.2.0 // containerd's logger, silenced in our process
	github.com/containerd/platforms v1.0.0-rc.5 // which manifest of an index is for this node
	github.com/containernetworking/cni v1.3.1 // libcni parses a conflist as containerd does
	github.com/coreos/go-systemd/v22 v22.7.0 // D-Bus units and sd_notify
	github.com/distribution/reference v0.6.0 // image names normalised as Docker and the CRI do
	github.com/fsnotify/fsnotify v1.10.1 // inotify: probes wait for events, not for ticks
	github.com/go-logr/logr v1.4.4 // the logging interface of controller-runtime
	github.com/godbus/dbus/v5 v5.2.2 // signals of systemd units
	github.com/google/cel-go v0.29.2 // expressions of GatePolicies, cost-limited; the version of Kubernetes 1.37
	github.com/google/go-cmp v0.7.0 // readable differences in tests
	github.com/google/go-containerregistry v0.22.1 // image manifests and a registry client; makes images without an engine
	github.com/klauspost/compress v1.20.3 // the fastest well-kept gzip and zstd in Go
	github.com/kubernetes-csi/csi-test/v5 v5.6.0 // a mock CSI driver (tests)
	github.com/opencontainers/go-digest v1.0.0 // digests
	github.com/opencontainers/image-spec v1.1.1 // manifests, indexes, image configs
	github.com/pelletier/go-toml/v2 v2.4.3 // Bottlerocket user data and containerd configs
	github.com/prometheus/client_golang v1.25.0 // metrics
	github.com/robfig/cron/v3 v3.0.1 // cron expressions of WarmPool schedules
	github.com/sirupsen/logrus v1.10.2 // what containerd's logger is made of: to silence it
	github.com/spf13/cobra v1.10.2 // commands, help, completion
	github.com/spf13/pflag v1.0.10 // cobra's flags
	github.com/stretchr/testify v1.12.1 // assertions (tests)
	github.com/vbauerster/mpb/v8 v8.16.2 // progress bars on a terminal
	github.com/vishvananda/netlink v1.3.1 // network namespaces and links (testbed), link events
	github.com/vishvananda/netns v0.0.5 // network namespaces (testbed)
	go.etcd.io/bbolt v1.5.0 // reads what containerd has while it is not up
	go.uber.org/goleak v1.3.0 // no goroutine outlives a test (tests)
	golang.org/x/crypto/x509roots/fallback v0.0.0-20261030153154-30a33513ff6d // Mozilla's root certificates, for our images
	golang.org/x/net v0.60.0 // httpproxy: containerd's proxy settings read as net/http reads its own
	golang.org/x/sync v0.24.0 // errgroup, singleflight, semaphore
	golang.org/x/sys v0.49.0 // statfs, renameat2, mounts, prctl
	golang.org/x/term v0.47.0 // is this a terminal
	golang.org/x/time v0.16.0 // rate limits
	google.golang.org/grpc v1.85.0 // CRI, CSI, kubelet sockets, health probes
	google.golang.org/protobuf v1.36.12 // messages of those
	k8s.io/api v0.37.2 // Kubernetes types
	k8s.io/apiextensions-apiserver v0.37.2 // CRD types (tests, watching for a CRD)
	k8s.io/apimachinery v0.37.2 // Kubernetes machinery
	k8s.io/client-go v0.37.2 // the Kubernetes client
	k8s.io/component-helpers v0.37.2 // the scheduler's own matching of affinity and resources
	k8s.io/cri-api v0.37.2 // the CRI
	k8s.io/klog/v2 v2.140.0 // names of objects in logs
	k8s.io/kubelet v0.37.2 // credential provider, podresources, PodsAPI, kubelet config
	sigs.k8s.io/controller-runtime v0.25.2 // manager, caches, leader election
	sigs.k8s.io/json v0.0.0-20250730193827-2d320260d730 // strict JSON as the API server decodes it
	sigs.k8s.io/yaml v1.6.0 // YAML with JSON tags, strict
)

require (
	cel.dev/expr v0.25.3 // indirect
	cloud.google.com/go/compute/metadata v0.9.0 // indirect
	github.com/Azure/azure-sdk-for-go v46.4.0+incompatible // indirect
	github.com/Azure/go-autorest v14.2.0+incompatible // indirect
	github.com/Azure/go-autorest/autorest v0.11.28 // indirect
	github.com/Azure/go-autorest/autorest/adal v0.9.21 // indirect
	github.com/Azure/go-autorest/autorest/azure/auth v0.5.11 // indirect
	github.com/Azure/go-autorest/autorest/azure/cli v0.4.5 // indirect
	github.com/Azure/go-autorest/autorest/date v0.3.0 // indirect
	github.com/Azure/go-autorest/logger v0.2.1 // indirect
	github.com/Azure/go-autorest/tracing v0.6.0 // indirect
	github.com/Microsoft/go-winio v0.6.3-0.20251027160822-ad3df93bed29 // indirect
	github.com/Microsoft/hcsshim v0.15.0-rc.4 // indirect
	github.com/VividCortex/ewma v1.2.0 // indirect
	github.com/acarl005/stripansi v0.0.0-20180116102854-5a71ef0e047d // indirect
	github.com/antlr4-go/antlr/v4 v4.13.1 // indirect
	github.com/aws/aws-sdk-go-v2 v1.41.2 // indirect
	github.com/aws/aws-sdk-go-v2/config v1.32.10 // indirect
	github.com/aws/aws-sdk-go-v2/credentials v1.19.10 // indirect
	github.com/aws/aws-sdk-go-v2/feature/ec2/imds v1.18.18 // indirect
	github.com/aws/aws-sdk-go-v2/internal/configsources v1.4.18 // indirect
	github.com/aws/aws-sdk-go-v2/internal/endpoints/v2 v2.7.18 // indirect
	github.com/aws/aws-sdk-go-v2/internal/ini v1.8.4 // indirect
	github.com/aws/aws-sdk-go-v2/service/ecr v1.55.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/ecrpublic v1.38.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/accept-encoding v1.13.5 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/presigned-url v1.13.18 // indirect
	github.com/aws/aws-sdk-go-v2/service/signin v1.0.6 // indirect
	github.com/aws/aws-sdk-go-v2/service/sso v1.30.11 // indirect
	github.com/aws/aws-sdk-go-v2/service/ssooidc v1.35.15 // indirect
	github.com/aws/aws-sdk-go-v2/service/sts v1.41.7 // indirect
	github.com/aws/smithy-go v1.24.1 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/clipperhouse/uax29/v2 v2.7.0 // indirect
	github.com/containerd/cgroups/v3 v3.1.3 // indirect
	github.com/containerd/errdefs/pkg v0.3.0 // indirect
	github.com/containerd/fifo v1.1.0 // indirect
	github.com/containerd/log/otel v0.1.0 // indirect
	github.com/containerd/plugin v1.1.0 // indirect
	github.com/containerd/ttrpc v1.2.9 // indirect
	github.com/containerd/typeurl/v2 v2.3.0 // indirect
	github.com/davecgh/go-spew v1.1.2-0.20180830191138-d8f796af33cc // indirect
	github.com/dimchansky/utfbom v1.1.1 // indirect
	github.com/docker/cli v29.7.2+incompatible // indirect
	github.com/docker/docker-credential-helpers v0.9.5 // indirect
	github.com/emicklei/go-restful/v3 v3.13.0 // indirect
	github.com/evanphx/json-patch/v5 v5.9.11 // indirect
	github.com/felixge/httpsnoop v1.1.0 // indirect
	github.com/fxamacker/cbor/v2 v2.9.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/go-openapi/jsonpointer v1.0.0 // indirect
	github.com/go-openapi/jsonreference v1.0.0 // indirect
	github.com/go-openapi/swag v0.28.0 // indirect
	github.com/go-openapi/swag/cmdutils v0.28.0 // indirect
	github.com/go-openapi/swag/conv v0.28.0 // indirect
	github.com/go-openapi/swag/fileutils v0.28.0 // indirect
	github.com/go-openapi/swag/jsonutils v0.28.0 // indirect
	github.com/go-openapi/swag/loading v0.28.0 // indirect
	github.com/go-openapi/swag/mangling v0.28.0 // indirect
	github.com/go-openapi/swag/netutils v0.28.0 // indirect
	github.com/go-openapi/swag/pools v0.28.0 // indirect
	github.com/go-openapi/swag/stringutils v0.28.0 // indirect
	github.com/go-openapi/swag/typeutils v0.28.0 // indirect
	github.com/go-openapi/swag/yamlutils v0.28.0 // indirect
	github.com/golang-jwt/jwt/v4 v4.5.2 // indirect
	github.com/google/gnostic-models v0.7.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/kylelemons/godebug v1.1.0 // indirect
	github.com/mattn/go-runewidth v0.0.30 // indirect
	github.com/mitchellh/go-homedir v1.1.0 // indirect
	github.com/moby/locker v1.0.1 // indirect
	github.com/moby/sys/mountinfo v0.7.2 // indirect
	github.com/moby/sys/signal v0.7.1 // indirect
	github.com/moby/sys/user v0.4.1 // indirect
	github.com/moby/sys/userns v0.2.1 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v1.0.3-0.20250322232337-35a7c28c31ee // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/opencontainers/runtime-spec v1.3.0 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/pmezard/go-difflib v1.0.1-0.20181226105442-5d4384ee4fb2 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/vbauerster/cupwriter v0.0.5 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp v0.71.0 // indirect
	go.opentelemetry.io/otel v1.46.0 // indirect
	go.opentelemetry.io/otel/metric v1.46.0 // indirect
	go.opentelemetry.io/otel/sdk v1.46.0 // indirect
	go.opentelemetry.io/otel/trace v1.46.0 // indirect
	go.uber.org/mock v0.6.0 // indirect
	go.yaml.in/yaml/v2 v2.4.4 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/exp v0.0.0-20260410095643-746e56fc9e2f // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	gomodules.xyz/jsonpatch/v2 v2.4.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260825221802-da73d73af1c5 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260825221802-da73d73af1c5 // indirect
	gopkg.in/evanphx/json-patch.v4 v4.13.0 // indirect
	gopkg.in/inf.v0 v0.9.1 // indirect
	gotest.tools/v3 v3.5.2 // indirect
	k8s.io/kube-openapi v0.0.0-20260721132016-d427ff9ee9ad // indirect
	k8s.io/utils v0.0.0-20260626114624-be93311217bd // indirect
	sigs.k8s.io/randfill v1.0.0 // indirect
	sigs.k8s.io/structured-merge-diff/v6 v6.4.2 // indirect
)
