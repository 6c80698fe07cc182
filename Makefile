# The targets call one program each; `make help` lists them.

CACHE  ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/incusos
KEYS   ?= $(CACHE)/keys
OUTPUT ?= $(CACHE)/image
RUN    ?= $(CACHE)/run
INCUSOS = go run ./cmd/incusos
export INCUSOS_CACHE := $(CACHE)
export INCUSOS_IMAGE_DIR := $(OUTPUT)
export INCUSOS_KEYS := $(KEYS)

.PHONY: help run test test-vm test-network image reproduce lint fmt generate deps keys bench bench-api clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: deps ## build the image, install it in a virtual machine and run that until Ctrl-C
	@$(INCUSOS) vm run --build --dir $(RUN) --image-dir $(OUTPUT) --keys $(KEYS)

test: ## build, vet, lint, unit and script tests with the race detector; no VM, no root
	go build ./...
	go vet ./...
	$(MAKE) --no-print-directory lint
	go test -race ./...

test-vm: image ## ask with Debian's incus client; form a cluster; boot the image in virtual machines and try to break it
	go test -count=1 -timeout=240m -tags=vm ./test/client ./test/cluster ./test/vm/...

test-network: image ## apply network configurations with the image's systemd-networkd, in a virtual machine
	CGO_ENABLED=0 go test -count=1 -timeout=85m -tags=vm ./test/network

image: keys ## build the disk image and the extension images
	@$(INCUSOS) image build --keys $(KEYS) --output $(OUTPUT)

reproduce: keys ## build twice without caches and compare
	@$(INCUSOS) image reproduce --keys $(KEYS)

keys: deps ## make keys of your own, unless there are some
	@test -e $(KEYS)/PK.crt || $(INCUSOS) keys init $(KEYS)

lint: ## check the style that tools can check
	go tool staticcheck ./...
	@test -z "$$(gofmt -l .)" || { echo "not formatted; run make fmt:"; gofmt -l .; exit 1; }

fmt: ## format the code
	gofmt -w .

generate: ## make the files that are made from the code
	go generate ./...

deps: ## install what the build needs from Debian
	@.ci/deps

bench: image ## measure the boot against a plain Debian with Incus
	go run ./bench/boot

bench-api: ## measure the daemon with a hundred drives: memory, size, answers
	go run ./bench/api

clean: ## remove the image and the run; keep keys and caches
	rm -rf $(OUTPUT) $(RUN)
