#!/bin/sh
# Builds the programs of the tests' own tailnets (headscale, tailscale, tailscaled, and sharing, a control server that
# shares nodes between tailnets) and prints the directory they are in. What is built is pinned in
# scripts/tailnet/go.mod and hashed in its go.sum; what was built once is not built again.
#   --path   only print the directory; fails when they aren't built
set -eu

here=$(cd "$(dirname "$0")/tailnet" && pwd)
version=$(cat "$here/go.mod" "$here/go.sum" "$here/sharing/main.go" | sha256sum | cut -c1-16)
name=tailnet
. "$here/../cached.sh"

offer "$@"
if ! command -v go >/dev/null 2>&1; then
    say "no go on PATH, so there is no tailnet for the tests: install Go $(sed -n 's/^go //p' "$here/go.mod") or newer"
    exit 1
fi

if in_turn; then
    say "building headscale, tailscale, tailscaled and sharing with $(go env GOVERSION); this takes some minutes, once"
    mkdir -p "$made"
    # No cgo and no toolchain but the one that is here; -mod=readonly refuses whatever go.sum doesn't hold.
    (cd "$here" && CGO_ENABLED=0 GOTOOLCHAIN=local nice -n 10 go build -mod=readonly -buildvcs=false -trimpath \
        -ldflags '-s -w' -o "$made/" \
        github.com/juanfont/headscale/cmd/headscale tailscale.com/cmd/tailscale tailscale.com/cmd/tailscaled ./sharing) >&2
    keep
fi
printf '%s\n' "$wanted"
