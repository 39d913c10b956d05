# Sourced by the scripts that fetch or build something once: where it stands in the cache, and whose turn it is to make it.
# They set `name`, which is also that of a directory in the cache, and `version`; and may set `wanted` to another place after.
#   offer "$@"   prints where it stands and ends the script; where it doesn't stand yet, ends it with 1 for --path
#   in_turn      waits until nobody else makes it; true where it is still to be made
#   keep         puts what was made in $made into its place, whole
# shellcheck shell=sh disable=SC2154 # name and version are the script's

cache=${XDG_CACHE_HOME:-$HOME/.cache}/opsexec/$name
wanted=$cache/$version
made=$cache/.making-$version

say() { printf '%s: %s\n' "$name" "$*" >&2; }

there() {
    case $wanted in
    "$cache"/*) [ -e "$wanted/complete" ] ;;
    *) [ "$(cat "$wanted/complete" 2>/dev/null)" = "$version" ] ;; # a place of one's own keeps its name
    esac
}

offer() {
    if there; then
        printf '%s\n' "$wanted"
        exit 0
    fi
    if [ "${1:-}" = --path ]; then
        exit 1
    fi
}

in_turn() {
    mkdir -p "$cache"
    exec 9>"$cache/lock" # held to the end of the script
    flock 9
    if there; then
        return 1
    fi
    rm -rf "$made" # of one that was broken off
}

keep() {
    printf '%s\n' "$version" >"$made/complete"
    rm -rf "$wanted"
    mv "$made" "$wanted"
}
