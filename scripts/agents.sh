#!/bin/sh
# Installs the coding agents that bottles can run (Claude Code, Codex) as a tree of tools, and prints its directory.
# What is installed is pinned in scripts/agents/package.json, hashed in its package-lock.json, and runs no install script.
#   --path     only print the directory; fails when they aren't installed
#   DIRECTORY  install there instead of in the cache; $BOTTLE_TOOLS may name it, and ~/.bot-bottle/tools is looked at anyway
set -eu

here=$(cd "$(dirname "$0")/agents" && pwd)
version=$(cat "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c1-16)
name=agents
. "$here/../cached.sh"

case "${1:-}" in
--path | '') ;;
-*) say "usage: $0 [--path | DIRECTORY]"; exit 2 ;;
*) mkdir -p "$(dirname "$1")"; wanted=$(cd "$(dirname "$1")" && pwd)/$(basename "$1") ;;
esac

offer "$@"
if ! command -v npm >/dev/null 2>&1; then
    say "no npm on PATH, so the agents can't be fetched: install Node.js with npm"
    exit 1
fi

if in_turn; then
    if [ -e "$wanted" ] && [ ! -e "$wanted/complete" ] && [ -n "$(ls -A "$wanted")" ] && [ "${wanted#"$cache"/}" = "$wanted" ]; then
        say "$wanted holds something else already"
        exit 1
    fi
    say "installing $(sed -n 's/^ *"\(@[^"]*\)": "\([0-9.]*\)",\{0,1\}$/\1 \2/p' "$here/package.json" | tr '\n' ' ')once"
    umask 022
    mkdir -p "$wanted/bin"
    cp "$here/package.json" "$here/package-lock.json" "$wanted/"
    # --ignore-scripts: the programs themselves are in packages of their own, one for each kind of machine.
    (cd "$wanted" && nice -n 10 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
    for name in claude codex; do
        case $name in
        claude) set -- "$wanted"/node_modules/@anthropic-ai/claude-code-*/claude ;;
        codex) set -- "$wanted"/node_modules/@openai/codex-*/vendor/*/bin/codex ;;
        esac
        if [ $# -ne 1 ] || [ ! -x "$1" ]; then
            say "the package of $name has no program for this machine ($(uname -sm))"
            exit 1
        fi
        ln -sfn "..${1#"$wanted"}" "$wanted/bin/$name"
    done
    printf '%s\n' "$version" >"$wanted/complete"
fi
printf '%s\n' "$wanted"
