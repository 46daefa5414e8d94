# Everything here works on a Linux machine that has Go, git, make and gcc.

# RELEASE is stamped into the binary. VERSION is the Kubernetes to test with.
RELEASE     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
VERSION     ?= $(shell awk '$$1 == "k8s.io/kubernetes" {print $$2; exit}' hack/tools/go.mod)

IMAGE       ?= sakeeper:dev
PLATFORM    ?= linux/$(shell $${DOCKER:-docker} version --format '{{.Server.Arch}}' 2>/dev/null || go env GOARCH)

K8S_VERSION := v$(VERSION:v%=%)
ASSETS    := bin/k8s/$(K8S_VERSION)
LDFLAGS   := -X main.version=$(RELEASE)
# gRPC's tracing pages bring text/template, with which the linker must keep every exported
# method: without them the binary and its resident memory are a third smaller.
TAGS      := grpcnotrace
LINT      := bin/tools/golangci-lint
LOGCHECK  := bin/tools/logcheck
KIND      := bin/tools/kind

.PHONY: help build image assets demo up manifests test test-long e2e e2e-kind bench lint fuzz clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/sakeeper
	CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/sakeeper ./cmd/sakeeper

image: ## Build the container image IMAGE (sakeeper:dev) for PLATFORM (that of this machine), with docker alone
	TAGS=$(TAGS) hack/image.sh $(IMAGE) $(PLATFORM) $(RELEASE)

assets: $(ASSETS)/.done ## Build etcd, kube-apiserver, kube-controller-manager and kubectl (some 5 minutes, once)

$(ASSETS)/.done: hack/tools/go.mod hack/tools/go.sum hack/assets.sh
	hack/assets.sh $(K8S_VERSION) $(ASSETS)
	@touch $@

demo: assets build ## Show the main job, step by step, on a control plane of its own
	go build -o bin/demo ./hack/demo && exec bin/demo

up: assets build ## Keep a control plane with sakeeper running, for kubectl, until interrupted
	go build -o bin/demo ./hack/demo && exec bin/demo -up

BENCH_SCALE ?= small
bench: assets build ## Measure side by side with kube-controller-manager; BENCH_SCALE=small or full
	go build -o bin/bench ./hack/bench && exec bin/bench -scale $(BENCH_SCALE) -json bin/bench-$(BENCH_SCALE).json

manifests: assets ## Render the overlays of manifests into manifests/rendered
	go test ./manifests -run TestRendered -count 1 -update

test: assets ## Run the unit and integration tests, with the race detector
	go test -race -timeout 10m ./cmd/... ./pkg/... ./hack/... ./manifests/...

test-long: assets ## Run the tests that must take their time: e2e, faults, comparison with in-tree
	cd hack/differential && go test -count 1 -timeout 20m ./...
	$(MAKE) e2e

e2e: assets ## Run the built binary against a real API server; VERSION=1.35.4 is another one
	# What e2e builds and applies is hidden from the test cache.
	KUBERNETES_VERSION=$(K8S_VERSION) go test -race -count 1 -timeout 40m -v ./e2e

.PHONY: docker
docker:
	@docker version >/dev/null 2>&1 || { echo "No docker engine answers 'docker version': start one, and run this again." >&2; exit 1; }

e2e-kind: docker assets build $(KIND) ## Run the tests on clusters of kind; needs a docker engine. KIND_NODE_IMAGE names the nodes' image
	$(MAKE) image IMAGE=sakeeper:dev
	E2E_KIND=1 go test -count 1 -timeout 40m -v ./e2e/kind/...

$(KIND): hack/tools/kind/go.mod hack/tools/kind/go.sum
	cd hack/tools/kind && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../../../bin/tools/ tool

lint: $(LINT) $(LOGCHECK) ## Run the linters
	$(LINT) run
	cd hack/differential && ../../$(LINT) run --config ../../.golangci.yml ./... && go mod tidy -diff
	$(LOGCHECK) -check-contextual ./pkg/... ./cmd/...
	go mod verify >/dev/null && go mod tidy -diff

$(LINT) $(LOGCHECK) &: hack/tools/lint/go.mod hack/tools/lint/go.sum
	cd hack/tools/lint && go build -o ../../../bin/tools/ tool

fuzz: ## Fuzz every parser for a minute each
	hack/fuzz.sh 1m

clean: ## Remove everything that was built
	rm -rf bin
