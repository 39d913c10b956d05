#!/bin/sh
# Builds runsc, gVisor's container runtime, which the tests register in their own engine, and prints the directory it is in.
# What is built is pinned in scripts/runsc/go.mod and hashed in its go.sum; what was built once is not built again.
#   --path   only print the directory; fails when it isn't built
set -eu

here=$(cd "$(dirname "$0")/runsc" && pwd)
version=$(cat "$here/go.mod" "$here/go.sum" | sha256sum | cut -c1-16)
name=runsc
. "$here/../cached.sh"

offer "$@"
if ! command -v go >/dev/null 2>&1; then
    say "no go on PATH, so no bottle is tried under gVisor: install Go $(sed -n 's/^go //p' "$here/go.mod") or newer"
    exit 1
fi

if in_turn; then
    release=$(sed -n 's/^.*gvisor.dev\/gvisor \(v[^ ]*\).*$/\1/p' "$here/go.mod")
    say "building runsc $release with $(go env GOVERSION); this takes a minute or two, once"
    mkdir -p "$made"
    # No cgo and no toolchain but the one that is here; -mod=readonly refuses whatever go.sum doesn't hold.
    (cd "$here" && CGO_ENABLED=0 GOTOOLCHAIN=local nice -n 10 go build -mod=readonly -buildvcs=false -trimpath \
        -ldflags "-s -w -X gvisor.dev/gvisor/runsc/version.version=$release" -o "$made/" gvisor.dev/gvisor/runsc) >&2
    keep
fi
printf '%s\n' "$wanted"
