#!/bin/sh
# Sets up what `make demo` (no argument) and `make test` (--tests) need: missing Debian packages and .venv from the lock.
# Safe to run again: does nothing when nothing is missing. Works as root, or with sudo.
set -eu

cd "$(dirname "$0")/.."
lock=requirements/dev.txt
stamp=.venv/.lock-sha256
wanted=demo
[ "${1:-}" = "--tests" ] && wanted=test

say() { printf 'setup: %s\n' "$*" >&2; }

install_apt_packages() {
    missing=
    while read -r package kind _; do
        case "$package" in '' | '#'*) continue ;; esac
        [ "$kind" = test ] && [ "$wanted" != test ] && continue
        status=$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
        case "$status" in ii*) ;; *) missing="$missing $package" ;; esac
    done <scripts/apt-packages.txt
    [ -z "$missing" ] && return 0

    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1; then
        as_root=sudo
    else
        say "neither root nor sudo here, so these stay missing:$missing (what needs them will say so)"
        return 0
    fi
    say "installing Debian packages:$missing"

    # Debian starts a freshly installed sshd on port 22 and enables it for the next boot. The tests run an sshd of
    # their own on loopback, so a machine that had no SSH server doesn't get an open port from us.
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$policy" ]; then
        ours=$policy
        trap '$as_root rm -f "$ours"' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    $as_root apt-get update -q >&2
    # shellcheck disable=SC2086 # a list of package names, split on purpose
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
    case " $missing " in
    *" openssh-server "*)
        if [ -n "$ours" ] && command -v systemctl >/dev/null 2>&1; then
            $as_root systemctl disable ssh.service >&2
        fi
        ;;
    esac
    if [ -n "$ours" ]; then
        $as_root rm -f "$ours"
        trap - EXIT INT TERM
    fi
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    say "no Python 3.11 or newer with venv found; install one, or name it: PYTHON=/path/to/python3 $0"
    return 1
}

# What a bottle's egress gate runs on caps its dependencies below what the rest needs: an environment of its own.
install_egress() {
    stamp_egress=.venv-egress/.lock-sha256
    want=$(sha256sum requirements/egress.txt | cut -d' ' -f1)
    if [ -x .venv-egress/bin/python ] && [ "$(cat "$stamp_egress" 2>/dev/null)" = "$want" ]; then
        return 0
    fi
    say "making .venv-egress for the bottle's egress gate"
    .venv/bin/python -m venv .venv-egress
    .venv-egress/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/egress.txt >&2
    .venv-egress/bin/python -m compileall -q .venv-egress/lib >/dev/null
    printf '%s\n' "$want" >"$stamp_egress"
}

install_lock() {
    want=$(sha256sum "$lock" pyproject.toml | sha256sum | cut -d' ' -f1)
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
        return 0
    fi
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        say "making .venv with $("$python" --version)"
        "$python" -m venv .venv
    fi
    say "installing the locked dependencies"
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r "$lock" >&2
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
    printf '%s\n' "$want" >"$stamp"
}

tailnet=
if [ "$wanted" = test ]; then
    scripts/tailnet.sh >/dev/null &  # the longest of it all, beside the rest
    tailnet=$!
    scripts/runsc.sh >/dev/null &  # the kernel that bottles on Docker are tried behind
    runsc=$!
    command -v npm >/dev/null 2>&1 && scripts/agents.sh >/dev/null &  # the agents that bottles are tried with
    agents=$!
fi
if command -v apt-get >/dev/null 2>&1; then
    install_apt_packages
else
    say "no apt-get here: see scripts/apt-packages.txt for what to install by hand"
fi
if [ "$wanted" = test ]; then
    scripts/images.sh >/dev/null &  # what the shipped Dockerfiles are built of; by now mmdebstrap is here
    images=$!
fi
install_lock
install_egress
if [ -n "$tailnet" ]; then
    wait "$images" || say "what the shipped Dockerfiles are built of isn't here, so the tests that need it will say so"
    wait "$agents" || say "the coding agents aren't installed, so the tests that need them will say so"
    wait "$runsc" || say "runsc isn't built, so the tests that need it will say so"
    wait "$tailnet" || say "the tailnet's programs aren't built, so the tests that need them will say so"
fi
