# Everything here works on a Linux machine that has Go, git, make and gcc.

# RELEASE is stamped into the binary. VERSION is the Kubernetes to test with.
RELEASE     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
VERSION     ?= $(shell awk '$$1 == "k8s.io/kubernetes" {print $$2; exit}' hack/tools/go.mod)

IMAGE       ?= sakeeper:dev
PLATFORM    ?= linux/$(shell $${DOCKER:-docker} version --format '{{.Server.Arch}}' 2>/dev/null || go env GOARCH)

K8S_VERSION := v$(VERSION:v%=%)
LDFLAGS   := -X main.version=$(RELEASE)
LINT      := bin/tools/golangci-lint
LOGCHECK  := bin/tools/logcheck
KIND      := bin/tools/kind
RELEASER  := bin/tools/cyclonedx-gomod
HELM      := bin/tools/helm

# Everything is built by this one command, so that no package is compiled twice: only what
# the linker is told differs. The tests need cgo, for the race detector, and are apart.
# gRPC's tracing pages bring text/template, with which the linker must keep every exported
# method: without them the binary and its resident memory are a third smaller.
export GO_BUILD := CGO_ENABLED=0 go build -trimpath -tags=grpcnotrace
# Which of bin/k8s is run.
export KUBERNETES_VERSION := $(K8S_VERSION)

.PHONY: help build image assets demo up pictures manifests test test-long test-skew e2e e2e-kind soak soak-mutants bench lint fuzz release test-release vulnerabilities clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/sakeeper and bin/kubectl-sakeeper, the plugin of kubectl
	$(GO_BUILD) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/sakeeper ./cmd/kubectl-sakeeper

image: ## Build the container image IMAGE (sakeeper:dev) for PLATFORM (that of this machine), with docker alone
	hack/image.sh $(IMAGE) $(PLATFORM) $(RELEASE)

assets: ## Build etcd, kube-apiserver, kube-controller-manager and kubectl (some minutes, once)
	@hack/assets.sh $(K8S_VERSION) etcd kube-apiserver kube-controller-manager kubectl

.PHONY: control-plane kube-controller-manager kubectl
# The parts of it that other targets need.
control-plane:
	@hack/assets.sh $(K8S_VERSION) etcd kube-apiserver
kube-controller-manager kubectl:
	@hack/assets.sh $(K8S_VERSION) $@

demo: control-plane build ## Show the main job, step by step, on a control plane of its own
	$(GO_BUILD) -o bin/demo ./hack/demo && exec bin/demo

up: control-plane build ## Keep a control plane with sakeeper running, for kubectl, until interrupted
	$(GO_BUILD) -o bin/demo ./hack/demo && exec bin/demo -up

pictures: control-plane build ## Draw the recorded terminal of README, from a real run of the demo
	$(GO_BUILD) -o bin/demo ./hack/demo
	go run ./hack/record -title 'make demo' -o .github/images/demo.svg bin/demo

BENCH_SCALE ?= small
bench: control-plane kube-controller-manager build ## Measure side by side with kube-controller-manager; BENCH_SCALE=small or full
	$(GO_BUILD) -o bin/bench ./hack/bench && exec bin/bench -scale $(BENCH_SCALE) -json bin/bench-$(BENCH_SCALE).json -chart bin/bench-$(BENCH_SCALE).svg

N ?= 100000
.PHONY: bench-scale
bench-scale: control-plane kube-controller-manager build ## Measure how both grow with the number of namespaces, up to N=100000; not in CI
	$(GO_BUILD) -o bin/bench ./hack/bench && exec bin/bench scale -n $(N) -json bin/bench-scale.json

manifests: kubectl ## Render the overlays of manifests into manifests/rendered, and make the chart, the custom resource definition and the policies
	go tool -modfile=hack/tools/generate/go.mod controller-gen object crd paths=./pkg/api/v1alpha1 output:crd:dir=manifests/components/account-templates
	go test ./manifests -run "TestRendered|TestPolicies" -count 1 -update
	go run ./hack/chart

test: control-plane kube-controller-manager kubectl $(HELM) ## Run the unit and integration tests, with the race detector, and the programs of e2e/embed
	go test -race -timeout 20m ./cmd/... ./pkg/... ./hack/... ./manifests/... ./e2e/soak
	cd e2e/embed && go vet ./... && KUBEBUILDER_CONTROLPLANE_START_TIMEOUT=2m KUBEBUILDER_ASSETS=$${KUBEBUILDER_ASSETS:-$(CURDIR)/bin/k8s/$(K8S_VERSION)} go test ./...

.PHONY: test-report
test-report: ## Open the report of the plugin in headless Chromium, which it installs from Debian, with npm packages
	hack/report.sh bin/report

test-long: ## Run the tests that must take their time: e2e, faults, comparison with in-tree
	cd hack/differential && go test -count 1 -timeout 20m ./...
	$(MAKE) e2e

SOAK ?= 30m
# SEED is that of a run that is to be repeated, SCRIPT a file that a failed run left. A clock that can be
# set makes the build take minutes.
SOAK_FLAGS ?= -clock -shrink 30m
soak: control-plane kube-controller-manager ## Run users and disturbances at random, made from SEED or in SCRIPT, for SOAK=30m, and look for contradictions
	go test -count 1 ./e2e/soak
	go run ./e2e/soak -for $(SOAK) $(if $(SEED),-seed $(SEED)) $(if $(SCRIPT),-script $(SCRIPT)) $(SOAK_FLAGS)

soak-mutants: control-plane kube-controller-manager ## Plant faults in sakeeper, each of which the soak must find in three minutes; not in CI
	go run ./hack/mutants -soak

e2e: control-plane kube-controller-manager kubectl ## Run the built binary against a real API server; VERSION=1.35.4 is another one
	# What e2e builds and applies is hidden from the test cache.
	go test -race -count 1 -timeout 60m -v $(E2E_FLAGS) ./e2e

LOAD ?= 1m
.PHONY: load
load: control-plane build ## Attack webhook and authenticator for LOAD each, and load the signer; fails where latency, memory or goroutines grow
	E2E_LOAD=$(LOAD) go test -count 1 -timeout 0 -v ./e2e/load

SKEW ?= 1.34.4 1.35.4 1.36.3
test-skew: ## Run e2e against older API servers, SKEW, without the tests (TestLong) that take minutes; not in CI
	for version in $(SKEW); do $(MAKE) e2e VERSION=$$version E2E_FLAGS='-skip TestLong' || exit 1; done

.PHONY: test-upgrade
# The last revision of each month before this one.
FROM ?= $(shell TZ=UTC git log --date=format-local:%Y-%m --format='%cd %h' | awk -v now="$$(date -u +%Y-%m)" '$$1 < now && !seen[$$1]++ {print $$2}')
test-upgrade: control-plane kube-controller-manager kubectl build ## Upgrade from older revisions, FROM (the last of each month before this one), under load, and back; not in CI
	@[ -n '$(FROM)' ] || { echo "No revision is from a month before this one: name one, FROM=REVISION. A shallow clone lacks them ('git fetch --unshallow')." >&2; exit 1; }
	for revision in $(FROM); do E2E_UPGRADE_FROM=$$revision go test -count 1 -timeout 30m -v ./e2e/upgrade || exit 1; done

.PHONY: docker
docker:
	@docker version >/dev/null 2>&1 || { echo "No docker engine answers 'docker version': start one, and run this again." >&2; exit 1; }

e2e-kind: docker kubectl build $(KIND) $(HELM) ## Run the tests on clusters of kind; needs a docker engine. KIND_NODE_IMAGE names the nodes' image
	$(MAKE) image IMAGE=sakeeper:dev
	E2E_KIND=1 go test -count 1 -timeout 40m -v ./e2e/kind/...

$(KIND): hack/tools/kind/go.mod hack/tools/kind/go.sum
	cd hack/tools/kind && $(GO_BUILD) -ldflags '-s -w' -o ../../../bin/tools/ tool

$(HELM): hack/tools/helm/go.mod hack/tools/helm/go.sum
	cd hack/tools/helm && $(GO_BUILD) -ldflags '-s -w' -o ../../../bin/tools/ tool

lint: $(LINT) $(LOGCHECK) ## Run the linters
	$(LINT) run
	for dir in hack/differential e2e/embed; do (cd $$dir && ../../$(LINT) run --config ../../.golangci.yml ./... && go mod tidy -diff) || exit 1; done
	$(LOGCHECK) -check-contextual ./pkg/... ./cmd/...
	go mod verify >/dev/null && go mod tidy -diff

release: $(RELEASER) $(HELM) ## Make the files of the release VERSION=v0.x.y, in bin/release; nothing is uploaded
	CYCLONEDX=$(RELEASER) HELM=$(HELM) hack/release.sh $(if $(filter-out file,$(origin VERSION)),$(VERSION))

test-release: $(RELEASER) ## Make a release in two clones, compare the bytes, and check the workflows
	bin/tools/actionlint
	hack/reproduce.sh v0.0.0-test

vulnerabilities: $(RELEASER) ## Look for known vulnerabilities of what is called; needs the database of vuln.go.dev
	bin/tools/govulncheck ./...

$(RELEASER): hack/tools/release/go.mod hack/tools/release/go.sum
	cd hack/tools/release && $(GO_BUILD) -o ../../../bin/tools/ tool

$(LINT) $(LOGCHECK) &: hack/tools/lint/go.mod hack/tools/lint/go.sum
	cd hack/tools/lint && $(GO_BUILD) -o ../../../bin/tools/ tool

fuzz: ## Fuzz every parser for a minute each
	hack/fuzz.sh 1m

clean: ## Remove everything that was built
	rm -rf bin
