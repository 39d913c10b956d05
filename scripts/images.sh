#!/bin/sh
# Fetches what the Dockerfiles that come with the providers are built of where no image registry is asked: a bare Debian
# root file system in the place of their FROM, and the packages of their apt-get lines as a small repository of its own.
# Prints the directory; what was fetched once is not fetched again. Needs root, and mmdebstrap.
#   --path   only print the directory; fails when it isn't there
set -eu

codename=bookworm  # what the Dockerfiles begin with
packages="ca-certificates curl git openssh-client python3 ripgrep"
here=$(cd "$(dirname "$0")/.." && pwd)
version=$( (cat "$here"/bottle/images/*.Dockerfile; echo "$codename $packages"; dpkg --print-architecture) | sha256sum | cut -c1-16)
name=images
. "$here/scripts/cached.sh"

offer "$@"
if [ "$(id -u)" -ne 0 ] || ! command -v mmdebstrap >/dev/null 2>&1; then
    say "it needs root and mmdebstrap (apt-get install mmdebstrap)"
    exit 1
fi

if in_turn; then
    say "fetching a root file system and packages of $codename, once"
    mkdir -p "$made/debs"
    # $1 is the root that mmdebstrap makes: apt in it knows where its packages come from.
    fetch="chroot \"\$1\" apt-get -qq -y -o APT::Keep-Downloaded-Packages=true --download-only --no-install-recommends install $packages"
    nice -n 10 mmdebstrap -q --variant=minbase --customize-hook="$fetch >&2" \
        --customize-hook="mv \"\$1\"/var/cache/apt/archives/*.deb $made/debs/" "$codename" "$made/base.tar" >&2
    (cd "$made/debs" && for deb in *.deb; do
        dpkg-deb -f "$deb"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)"
    done >Packages)
    keep
fi
printf '%s\n' "$wanted"
