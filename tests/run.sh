#!/usr/bin/env bash
# Every test there is, on a machine where only Rust is installed (Debian; as root, or with sudo).
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: tests/run.sh [PART]...

Without a PART, everything runs. What is missing is installed by apt-get, npm and pip.

  fmt          cargo fmt --check
  clippy       cargo clippy, warnings are errors
  doc          cargo doc, warnings are errors
  test         every cargo test: units, documentation, behaviour, tidy
  behaviour    the black-box tests alone
  tidy         the rules of the house alone
  conformance  the public test suite for HTTP caches, against the baselines
  browser      the demo in headless Chromium
  sdk          the SDKs of Fastly and Cloudflare against a node's purge APIs
  otlp         clippy and the tests of traces, of a build with the feature otlp
  bench        the tables of the comparison with other caches: the README's are those of the figures kept
  deploy       units, image, manifests, rules, dashboard: against the program, with a real Prometheus

The heavy behaviour tests are short unless LARDER_SOAK_SECS and LARDER_IDLE_CONNECTIONS (10000 is what
is promised; the default is 2000) say otherwise.

A failing part does not keep the next from running, a failing build does. The last line is
"N passed, N failed"; the exit code is 0 only when nothing failed. CARGO_TARGET_DIR is respected.
TEXT
}

PARTS=(fmt clippy doc test bench conformance browser sdk deploy otlp)
EXTRA_PARTS=(behaviour tidy)

parts=()
for argument in "$@"; do
    case " ${PARTS[*]} ${EXTRA_PARTS[*]} " in
        *" $argument "*) parts+=("$argument") ;;
        *)
            if [[ $argument == -h || $argument == --help ]]; then
                usage
                exit 0
            fi
            echo "tests/run.sh: there is no part '$argument'" >&2
            usage >&2
            exit 2
            ;;
    esac
done
((${#parts[@]} > 0)) || parts=("${PARTS[@]}")

# Absolute, for the parts that are not cargo's.
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m -- "${CARGO_TARGET_DIR:-$root/target}")
export CARGO_TARGET_DIR=$target
cd -- "$root"

log=$(mktemp)
trap 'rm -f -- "$log"' EXIT

passed=0
failed=0

wants() {
    [[ " ${parts[*]} " == *" $1 "* ]]
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "tests/run.sh: to install what is missing it must run as root, or with sudo: $*" >&2
        return 1
    fi
}

# need COMMAND PACKAGE: remembers the Debian package of a command that is missing.
missing=()
need() {
    command -v "$1" >/dev/null || missing+=("$2")
}

install_missing() {
    need cc gcc
    if wants test || wants behaviour; then need strace strace; fi
    if wants conformance || wants browser; then
        need node nodejs
        need npm npm
    fi
    if wants browser; then
        need curl curl
        need chromium chromium
    fi
    if wants bench; then need python3 python3; fi
    if wants deploy; then
        need promtool prometheus
        need systemd-analyze systemd
        need kubectl kubernetes-client
        need openssl openssl
        need strace strace
        need docker-compose docker-compose
        need ip iproute2
        /usr/bin/python3 -c "import prometheus_client, yaml, ensurepip" 2>/dev/null ||
            missing+=(python3-prometheus-client python3-yaml python3-venv)
    fi
    if wants sdk; then
        need python3 python3
        # Debian has the module that makes an environment apart.
        python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    fi
    if ((${#missing[@]} > 0)); then
        echo "installing ${missing[*]}"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends ca-certificates "${missing[@]}"
    fi
    # A minimal toolchain comes without these.
    if wants fmt && ! cargo fmt --version >/dev/null 2>&1; then rustup component add rustfmt; fi
    if wants clippy && ! cargo clippy --version >/dev/null 2>&1; then rustup component add clippy; fi
}

# The dev profile everywhere: what the tests start is what they were built with, and it is built once.
build() {
    echo "== build"
    cargo build --locked
    if wants test; then
        cargo test --locked --no-run
    fi
    local part
    for part in behaviour tidy; do
        if wants "$part"; then cargo test --locked --no-run --test "$part"; fi
    done
}

# count PASSED FAILED STATUS: adds a runner's figures. A runner that fails without naming a failure counts as one.
count() {
    passed=$((passed + $1))
    failed=$((failed + $2))
    if (($3 != 0 && $2 == 0)); then failed=$((failed + 1)); fi
}

# The sum of a runner's "N passed" or "N failed" over all its summaries in the log. Cargo separates them by
# semicolons, one summary for each binary; ours by commas, one in all.
figures() {
    { grep -E '^(test result: .*|[0-9]+ passed, [0-9]+ failed$)' "$log" || true; } |
        grep -oE "[0-9]+ $1" | awk '{ sum += $1 } END { print sum + 0 }' || true
}

# check COMMAND...: one check, passed or failed.
check() {
    local status=0
    "$@" || status=$?
    count $((status == 0 ? 1 : 0)) 0 "$status"
}

# suite COMMAND...: a runner that prints its own figures.
suite() {
    local status=0
    "$@" 2>&1 | tee -- "$log" || status=$?
    count "$(figures passed)" "$(figures failed)" "$status"
}

run_part() {
    case $1 in
        fmt) check cargo fmt --check ;;
        clippy) check cargo clippy --all-targets --locked -- -D warnings ;;
        doc) RUSTDOCFLAGS="-D warnings" check cargo doc --no-deps --locked ;;
        test) suite cargo test --locked --no-fail-fast ;;
        behaviour | tidy) suite cargo test --locked --no-fail-fast --test "$1" ;;
        # Last, since it builds the program anew under the same name.
        otlp)
            check cargo clippy --all-targets --locked --features otlp -- -D warnings
            suite cargo test --locked --no-fail-fast --features otlp --test behaviour traces
            ;;
        bench) check python3 -B -m unittest discover -q benches/peers ;;
        conformance | browser | sdk | deploy) LARDER_BIN=$target/debug/larder suite "tests/$1/run" ;;
    esac
}

install_missing
build
summary=()
for part in "${parts[@]}"; do
    echo "== $part"
    before=$passed/$failed started=$SECONDS
    run_part "$part"
    summary+=("$(printf '%-12s %5d passed %4d failed %5d s' "$part" \
        $((passed - ${before%/*})) $((failed - ${before#*/})) $((SECONDS - started)))")
done

printf '\n'
printf '%s\n' "${summary[@]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
