package workload_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"headstart.dev/prepull/workload"
)

func TestImages(t *testing.T) {
	cases := map[string]struct {
		object string
		want   []string
	}{
		"a Deployment's containers, init containers and image volumes": {
			object: `
kind: Deployment
spec:
  template:
    spec:
      initContainers: [{name: a, image: init:1}]
      containers: [{name: b, image: app:1}, {name: c, image: sidecar:1}]
      volumes: [{name: m, image: {reference: model:1}}, {name: s, secret: {secretName: x}}]`,
			want: []string{"init:1", "app:1", "sidecar:1", "model:1"},
		},
		"a CronJob's job template": {
			object: `{kind: CronJob, spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: job:1}]}}}}}}`,
			want:   []string{"job:1"},
		},
		"an Argo Rollout": {
			object: `{kind: Rollout, spec: {strategy: {canary: {steps: [{setWeight: 20}]}}, template: {spec: {containers: [{image: app:2}]}}}}`,
			want:   []string{"app:2"},
		},
		"a JobSet with several templates, each image once": {
			object: `
kind: JobSet
spec:
  replicatedJobs:
  - {name: driver, template: {spec: {template: {spec: {containers: [{image: driver:1}, {image: log:1}]}}}}}
  - {name: worker, template: {spec: {template: {spec: {containers: [{image: worker:1}, {image: log:1}]}}}}}`,
			want: []string{"driver:1", "log:1", "worker:1"},
		},
		"a LeaderWorkerSet": {
			object: `{spec: {leaderWorkerTemplate: {leaderTemplate: {spec: {containers: [{image: l:1}]}}, workerTemplate: {spec: {containers: [{image: w:1}]}}}}}`,
			want:   []string{"l:1", "w:1"},
		},
		"a PodTemplate, which CapacityBuffers and Kueue name": {
			object: `{kind: PodTemplate, metadata: {name: x}, template: {metadata: {name: y}, spec: {containers: [{image: app:1}]}}}`,
			want:   []string{"app:1"},
		},
		"the steps of an Argo Workflow": {
			object: `{kind: Workflow, spec: {templates: [{container: {image: step:1}}, {script: {image: python:3}}, {dag: {tasks: []}}, {containerSet: {containers: [{image: set:1}]}}]}}`,
			want:   []string{"step:1", "python:3", "set:1"},
		},
		"ephemeral containers of a pod": {
			object: `{kind: Pod, spec: {containers: [{image: app:1}], ephemeralContainers: [{image: debug:1}]}}`,
			want:   []string{"app:1", "debug:1"},
		},
		"no pod template":                          {object: `{kind: Rollout, spec: {workloadRef: {name: x}}}`},
		"containers without images":                {object: `{spec: {containers: [{name: a}]}}`},
		"containers of another form":               {object: `{spec: {template: {spec: {containers: {image: a}}}}}`},
		"image of another type":                    {object: `{spec: {template: {spec: {containers: [{image: 7}, {image: b:1}]}}}}`, want: []string{"b:1"}},
		"images outside of spec are not looked at": {object: `{status: {template: {spec: {containers: [{image: a:1}]}}}}`},
		"a name longer than any registry allows":   {object: `{spec: {containers: [{image: ` + strings.Repeat("a", 600) + `}, {image: b:1}]}}`, want: []string{"b:1"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, workload.Images(parse(t, tc.object)))
		})
		t.Run(name+", stripped", func(t *testing.T) {
			object := parse(t, tc.object)
			require.Equal(t, tc.want, workload.Images(workload.Strip(object)), "what is stripped is not read")
		})
	}
}

func TestImagesBoundsHostileObjects(t *testing.T) {
	containers := make([]any, 5000)
	for i := range containers {
		containers[i] = map[string]any{"image": fmt.Sprintf("app:%d", i)}
	}
	many := map[string]any{"spec": map[string]any{"containers": containers}}
	require.Len(t, workload.Images(many), 100)

	deep := map[string]any{"containers": containers}
	for range 1000 {
		deep = map[string]any{"next": deep}
	}
	require.Empty(t, workload.Images(map[string]any{"spec": deep}))
}

func TestStripKeepsWhatSelectsAWorkload(t *testing.T) {
	object := parse(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: prod, uid: u, resourceVersion: "7", labels: {app: web}, annotations: {big: text}, managedFields: [{manager: x}]}
spec: {replicas: 3, template: {spec: {containers: [{image: app:1, env: [{name: A, value: secret}]}]}}}
status: {replicas: 3}`)
	require.Equal(t, parse(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: prod, uid: u, resourceVersion: "7", labels: {app: web}}
spec: {containers: [{image: app:1}]}`), workload.Strip(object))
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var object map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(text), &object))
	return object
}

func TestImagesAtPaths(t *testing.T) {
	const spark = `{kind: SparkApplication, spec: {image: spark:4, driver: {image: driver:1}, executor: {instances: 3, image: null}, deps: {jars: [a, b]}}, status: {image: old:1}}`
	cases := map[string]struct {
		paths []string
		want  []string
	}{
		"no path":                    {nil, nil},
		"with and without braces":    {[]string{"{.spec.image}", "spec.driver.image", ".spec.image"}, []string{"spark:4", "driver:1"}},
		"what is not there":          {[]string{"{.spec.executor.image}", "{.spec.driver.image}"}, []string{"driver:1"}},
		"what is no text":            {[]string{"{.spec.executor.instances}", "{.spec.driver}"}, nil},
		"each of a list, or of all":  {[]string{"{.spec.deps.jars[*]}", "{.spec.*.image}"}, []string{"a", "b", "driver:1"}},
		"another form than expected": {[]string{"{.spec.image[0].name}"}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var object map[string]any
			require.NoError(t, yaml.Unmarshal([]byte(spark), &object))
			paths, err := workload.ParsePaths(tc.paths)
			require.NoError(t, err)
			require.Equal(t, tc.want, workload.Images(object, paths...))
			require.Equal(t, tc.want, workload.Images(workload.Strip(object, paths...)), "what is kept says the same")
		})
	}
	_, err := workload.ParsePaths([]string{"{.spec.image", "{.ok}"})
	require.ErrorContains(t, err, `read imagePaths "{.spec.image"`)
}
