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
cache=${XDG_CACHE_HOME:-$HOME/.cache}/opsexec/images
wanted=$cache/$version

say() { printf 'images: %s\n' "$*" >&2; }

if [ -e "$wanted/complete" ]; then
    printf '%s\n' "$wanted"
    exit 0
fi
[ "${1:-}" = --path ] && exit 1
if [ "$(id -u)" -ne 0 ] || ! command -v mmdebstrap >/dev/null 2>&1; then
    say "it needs root and mmdebstrap (apt-get install mmdebstrap)"
    exit 1
fi

mkdir -p "$cache"
# One at a time; a second one waits, then finds it done.
exec 9>"$cache/lock"
flock 9
if [ ! -e "$wanted/complete" ]; then
    say "fetching a root file system and packages of $codename, once"
    rm -rf "$wanted"
    mkdir -p "$wanted/debs"
    # $1 is the root that mmdebstrap makes: apt in it knows where its packages come from.
    fetch="chroot \"\$1\" apt-get -qq -y -o APT::Keep-Downloaded-Packages=true --download-only --no-install-recommends install $packages"
    nice -n 10 mmdebstrap -q --variant=minbase --customize-hook="$fetch >&2" \
        --customize-hook="mv \"\$1\"/var/cache/apt/archives/*.deb $wanted/debs/" "$codename" "$wanted/base.tar" >&2
    (cd "$wanted/debs" && for deb in *.deb; do
        dpkg-deb -f "$deb"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)"
    done >Packages)
    : >"$wanted/complete"
fi
printf '%s\n' "$wanted"
