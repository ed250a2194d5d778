# Every line calls a tool; nothing hides here. `make run` and `make test` need Rust, Node 20,
# gcc and Python on a Debian-like system; what else they need they install and say so.

CARGO ?= cargo
NPM ?= npm --no-audit --no-fund --loglevel=error

.PHONY: run test check bench docs web release clean deny

run: web
	$(CARGO) run --locked --profile quick -p perfwatch --bin perfwatch -- $(ARGS)

web: web/dist/index.html

web/node_modules/.installed: web/package.json web/package-lock.json
	cd web && $(NPM) ci
	touch $@

web/dist/index.html: web/node_modules/.installed web/index.html web/vite.config.ts $(shell find web/src web/public -type f 2>/dev/null)
	cd web && $(NPM) run -s build
	touch $@

# Fast checks first; the browser last.
test: check
	scripts/ensure-postgres
	scripts/ensure-sshd
	scripts/ensure-redis
	$(CARGO) test --locked --workspace
	cd web && $(NPM) run -s test
	scripts/ensure-browser
	$(CARGO) build --locked -p perfwatch
	cd web && $(NPM) run -s e2e

check: web
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked -p perfwatch --no-default-features --bin perfwatch-agent -- -D warnings
	cd web && $(NPM) run -s check

bench: web
	scripts/ensure-peers
	scripts/ensure-postgres
	scripts/ensure-sshd
	$(CARGO) build --locked --profile quick -p perfwatch -p perfwatch-bench
	target/quick/perfwatch-bench collect
	target/quick/perfwatch-bench live
	target/quick/perfwatch-bench ingest
	target/quick/perfwatch-bench history
	target/quick/perfwatch-bench budget
	target/quick/perfwatch-bench limits
	target/quick/perfwatch-bench servers
	target/quick/perfwatch-bench agent

# What is generated: pages, the API document, the dashboard's types of it.
docs: web/node_modules/.installed
	UPDATE_DOCS=1 $(CARGO) test --locked -q -p perfwatch --lib docs::
	UPDATE_DOCS=1 $(CARGO) test --locked -q -p perfwatch-hub --lib openapi::
	cd web && $(NPM) run -s schema

release: web
	$(CARGO) build --locked --release -p perfwatch

# Licences, sources and doubles of dependencies; needs `cargo install cargo-deny`.
deny:
	$(CARGO) deny check bans licenses sources

clean:
	rm -rf target web/dist web/node_modules
