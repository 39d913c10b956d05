#!/bin/sh
# Installs the programs opsexec, ops-agent and bottle below one directory, from this checkout and the hash-locked
# requirements; again means upgrade. It prints every command before running it; with --dry-run it runs none of them.
# deploy/install.sh then keeps the ops-agent running.
set -eu
umask 022

usage() {
    cat <<'TEXT'
usage: deploy/programs.sh [--prefix DIR] [--python PROGRAM] [--without-egress] [--dry-run]
       deploy/programs.sh [--prefix DIR] --remove [--dry-run]

  --prefix          where (default: /opt/opsexec for root, else ~/.local/share/opsexec)
  --python          the Python to make it with: 3.11 or newer, with venv (default: the first found)
  --without-egress  leave out what a bottle's egress gate runs on (mitmproxy, in an environment of its own)
  --remove          take away what this made; configuration, state and audit are elsewhere and stay
  --dry-run         print what would be done

examples:
  sudo deploy/programs.sh --without-egress    # a host that only runs an ops-agent
  deploy/programs.sh && PATH="$HOME/.local/share/opsexec/bin:$PATH"
TEXT
}

here=$(cd "$(dirname "$0")/.." && pwd)
prefix= python= egress=yes remove= dry=

fail() { printf 'programs.sh: %s\n' "$1" >&2; exit "${2:-3}"; }
say() { printf 'programs.sh: %s\n' "$*"; }
shown() { for word; do case $word in *[!A-Za-z0-9/._=:@,+-]* | '') printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; }
run() {
    printf '+%s\n' "$(shown "$@")"
    [ -n "$dry" ] || "$@"
}

while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --python)
        [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 takes a value" 2
        case $1 in --prefix) prefix=$2 ;; --python) python=$2 ;; esac
        shift ;;
    --without-egress) egress= ;;
    --remove) remove=yes ;;
    --dry-run) dry=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" 2 ;;
    esac
    shift
done
if [ -z "$prefix" ]; then
    if [ "$(id -u)" = 0 ]; then prefix=/opt/opsexec; else prefix=${XDG_DATA_HOME:-${HOME:?}/.local/share}/opsexec; fi
fi
# It ends up in the first line of programs, where a space would end the interpreter's name.
case $prefix in *[!A-Za-z0-9/._+-]* | *//* | */../* | */.. | */ | /) fail "--prefix $prefix: letters, digits and /._+- only" 2 ;; esac
case $prefix in /*) ;; *) fail "--prefix $prefix: not absolute" 2 ;; esac

programs='opsexec ops-agent bottle'
mark=.made-by-programs.sh

if [ -n "$remove" ]; then
    for each in venv venv-egress; do
        if [ -e "$prefix/$each/$mark" ]; then run rm -rf "$prefix/$each"; fi
    done
    for each in $programs; do
        if [ "$(readlink "$prefix/bin/$each" 2>/dev/null || true)" = "../venv/bin/$each" ]; then run rm -f "$prefix/bin/$each"; fi
    done
    for each in "$prefix/bin" "$prefix"; do
        if [ -d "$each" ] && [ -z "$(ls -A "$each")" ]; then run rmdir "$each"; fi
    done
    exit 0
fi

usable() { "$1" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
if [ -n "$python" ]; then
    usable "$python" || fail "$python is no Python 3.11 or newer with venv (Debian: apt-get install python3-venv)"
else
    for each in python3 python3.13 python3.12 python3.11; do
        if usable "$each"; then python=$each; break; fi
    done
    [ -n "$python" ] || fail "no Python 3.11 or newer with venv found (Debian: apt-get install python3-venv); or name one with --python"
fi

# A directory that is no environment of ours is somebody's: nothing is put into it.
environment() {
    if [ -e "$1" ] && [ ! -e "$1/$mark" ]; then fail "$1 is there already and not from this script"; fi
    if [ -e "$1" ] && ! "$1/bin/python" -I -c 'import pip' >/dev/null 2>&1; then
        run rm -rf "$1"  # its Python is gone, as after an upgrade of the system
    fi
    if [ ! -e "$1" ]; then
        run mkdir -p "$1"
        run touch "$1/$mark"  # before all else: what is broken off here is taken up, or removed, by the next
        run "$python" -m venv "$1"
    fi
}
install() { # ENVIRONMENT, what pip is told
    at=$1
    shift
    run "$at/bin/python" -I -m pip install -q --disable-pip-version-check --no-input "$@"
}

cd "$here"
environment "$prefix/venv"
install "$prefix/venv" --require-hashes -r requirements/run.txt
install "$prefix/venv" --no-deps --no-build-isolation --force-reinstall .
if [ -n "$egress" ]; then
    environment "$prefix/venv-egress"
    install "$prefix/venv-egress" --require-hashes -r requirements/egress.txt
fi
run mkdir -p "$prefix/bin"
for each in $programs; do run ln -sfn "../venv/bin/$each" "$prefix/bin/$each"; done
run "$prefix/bin/opsexec" --version

case :$PATH: in *":$prefix/bin:"*) ;; *) say "put $prefix/bin into PATH, or call the programs by their path" ;; esac
say "an ops-agent that runs is the old one until: deploy/install.sh --system|--user --program $prefix/bin/ops-agent"
