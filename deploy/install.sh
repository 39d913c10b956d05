#!/bin/sh
# Installs or removes the unit that keeps ops-agent running: systemd's on Linux, launchd's on macOS. It prints every
# command before running it; with --dry-run it runs none of them. Safe to run again: that restarts the agent.
set -eu
umask 022

usage() {
    cat <<'TEXT'
usage: deploy/install.sh --system|--user [--program PATH] [--config FILE] [--confined] [--no-start] [--dry-run]
       deploy/install.sh --system|--user --uninstall [--purge] [--dry-run]

  --system      one agent for the machine, as root (with --confined: as the user ops-agent)
  --user        one agent for you, with your rights; needs no root
  --program     the ops-agent to run (default: the one in PATH, else /usr/local/bin/ops-agent)
  --config      put this file in place where there is no configuration yet (default: one that grants nothing)
  --confined    systemd, --system: a plain user without capabilities, on a system it can't write to
  --no-start    install, and start nothing
  --uninstall   stop the agent and remove its unit; configuration, audit and detached runs stay
  --purge       with --uninstall: those too, and whatever still runs of the agent's
  --root DIR    write below DIR and talk to no service manager: to build a package
  --manager M   systemd or launchd (default: by the machine)
  --dry-run     print what would be done

examples:
  sudo deploy/install.sh --system --program /opt/opsexec/bin/ops-agent
  deploy/install.sh --user --dry-run
  sudo deploy/install.sh --system --uninstall
TEXT
}

here=$(cd "$(dirname "$0")" && pwd)
scope= program= config= confined= start=yes uninstall= purge= root= dry= manager=

fail() { printf 'install.sh: %s\n' "$1" >&2; exit "${2:-3}"; }
say() { printf 'install.sh: %s\n' "$*"; }

shown() { for word; do case $word in *[!A-Za-z0-9/._=:@,+-]* | '') printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; }
run() {
    printf '+%s\n' "$(shown "$@")"
    [ -n "$dry" ] || "$@"
}
# For what may fail without harm: a unit that isn't loaded, a manager that isn't there.
try() { run "$@" || say "  (it said no; going on)"; }

while [ $# -gt 0 ]; do
    case $1 in
    --system | --user) [ -z "$scope" ] || fail "--system or --user, not both" 2; scope=${1#--} ;;
    --program | --config | --root | --manager)
        [ $# -ge 2 ] || fail "$1 takes a value" 2
        case $1 in --program) program=$2 ;; --config) config=$2 ;; --root) root=$2 ;; --manager) manager=$2 ;; esac
        shift ;;
    --confined) confined=yes ;;
    --no-start) start= ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    --dry-run) dry=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" 2 ;;
    esac
    shift
done
[ -n "$scope" ] || { usage >&2; fail "say --system or --user" 2; }
[ -z "$purge" ] || [ -n "$uninstall" ] || fail "--purge goes with --uninstall" 2
if [ -z "$manager" ]; then
    case $(uname -s) in Linux) manager=systemd ;; Darwin) manager=launchd ;; *) fail "no unit for $(uname -s)" ;; esac
fi
case $manager in systemd | launchd) ;; *) fail "--manager is systemd or launchd" 2 ;; esac
[ -z "$confined" ] || [ "$manager-$scope" = systemd-system ] || fail "--confined goes with --system under systemd" 2
[ "$scope" = user ] || [ -n "$root$dry" ] || [ "$(id -u)" = 0 ] || fail "--system needs root: use sudo, or --user"
[ -z "$root" ] || start=

# These end up in a unit, in TOML and in XML; nothing in them may mean anything there.
plain() { case $2 in *[!A-Za-z0-9/._+-]* | *//* | */../*) fail "$1 $2: letters, digits and /._+- only" ;; /*) ;; *) fail "$1 $2: not absolute" ;; esac; }

home=${HOME:-/nonexistent}
case $manager-$scope in
systemd-system)
    source=systemd/ops-agent.service unit=/etc/systemd/system/ops-agent.service
    etc=/etc/ops-agent state=/var/lib/ops-agent socket=/run/ops-agent/agent.sock ;;
systemd-user)
    plain HOME "$home"
    etc=${XDG_CONFIG_HOME:-$home/.config}/ops-agent state=${XDG_STATE_HOME:-$home/.local/state}/ops-agent
    source=systemd/ops-agent.user.service unit=${etc%/*}/systemd/user/ops-agent.service
    socket=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/ops-agent/agent.sock ;;
launchd-system)
    source=launchd/opsexec.ops-agent.daemon.plist unit=/Library/LaunchDaemons/opsexec.ops-agent.plist
    etc=/etc/ops-agent state=/private/var/db/ops-agent socket=/private/var/run/ops-agent/agent.sock ;;
launchd-user)
    plain HOME "$home"
    source=launchd/opsexec.ops-agent.agent.plist unit=$home/Library/LaunchAgents/opsexec.ops-agent.plist
    etc=$home/.config/ops-agent state=$home/.local/state/ops-agent socket=$home/.local/state/ops-agent/run/agent.sock ;;
esac
for path in "$etc" "$state" "$socket"; do plain path "$path"; done

manage() { # start | stop | kill | forget
    [ -n "$root" ] && return 0
    case $manager-$scope-$1 in
    systemd-system-start)
        run systemctl daemon-reload
        run systemctl enable ops-agent.service
        run systemctl restart ops-agent.service ;;
    systemd-user-start)
        run systemctl --user daemon-reload
        run systemctl --user enable ops-agent.service
        run systemctl --user restart ops-agent.service ;;
    systemd-system-stop) try systemctl disable --now ops-agent.service ;;
    systemd-user-stop) try systemctl --user disable --now ops-agent.service ;;
    systemd-system-kill) try systemctl kill --kill-who=all --signal=KILL ops-agent.service ;;
    systemd-user-kill) try systemctl --user kill --kill-who=all --signal=KILL ops-agent.service ;;
    systemd-system-forget) try systemctl daemon-reload; try systemctl reset-failed ops-agent.service ;;
    systemd-user-forget) try systemctl --user daemon-reload; try systemctl --user reset-failed ops-agent.service ;;
    launchd-system-start) try launchctl bootout system/opsexec.ops-agent; run launchctl bootstrap system "$unit" ;;
    launchd-user-start)
        try launchctl bootout "gui/$(id -u)/opsexec.ops-agent"
        run launchctl bootstrap "gui/$(id -u)" "$unit" ;;
    launchd-system-stop) try launchctl bootout system/opsexec.ops-agent ;;
    launchd-user-stop) try launchctl bootout "gui/$(id -u)/opsexec.ops-agent" ;;
    launchd-*) ;;
    esac
}

# Detached runs outlive the agent, and its unit: each has a process that ends its whole tree when it is told to.
end_runs() {
    for file in "$root$state"/runs/*/runner; do
        pid= began=
        [ ! -r "$file" ] || read -r pid began <"$file" || :
        [ -n "$began" ] && [ "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f20)" = "$began" ] || continue
        try kill "$pid"
        waited=0
        while [ -z "$dry" ] && [ "$waited" -lt 100 ] && [ ! -e "${file%runner}status" ]; do sleep 0.1; waited=$((waited + 1)); done
    done
}

if [ -n "$uninstall" ]; then
    if [ -e "$root$unit" ] || [ -n "$dry" ]; then
        manage stop
        [ -z "$purge" ] || manage kill
        run rm -f "$root$unit"
    else
        say "$root$unit is not there"
    fi
    if [ "$manager" = systemd ] && [ -d "$root$unit.d" ]; then
        run rm -f "$root$unit.d/10-confined.conf"
        try rmdir "$root$unit.d"
    fi
    manage forget
    if [ -n "$purge" ]; then
        end_runs
        run rm -rf "$root$etc" "$root$state"
        if [ "$manager-$scope" = systemd-system ] && [ -z "$root" ]; then
            if getent passwd ops-agent >/dev/null; then run userdel ops-agent; fi
            if getent group ops-agent >/dev/null; then run groupdel ops-agent; fi
        fi
    else
        say "kept: $root$etc (configuration), $root$state (audit, detached runs); --purge removes them"
    fi
    exit 0
fi

program=${program:-$(command -v ops-agent || echo /usr/local/bin/ops-agent)}
plain --program "$program"
[ -n "$root$dry" ] || [ -x "$program" ] || fail "$program is not there, or can't be executed; name it with --program"
# What root is to run belongs to root, with every directory above it: as it is named, what that leads to, and the
# interpreter that its first line names. A directory's sticky bit keeps others from its entries, but not its owner.
roots() {
    path=$1
    while :; do
        for follow in -H -P; do # what it leads to; then the link itself, whose mode says nothing
            [ -z "$(find "$follow" "$path" -prune \( ! -user 0 -o ! -type l \( -perm -0020 -o -perm -0002 \) \
                ! \( -type d -perm -1000 \) \))" ] ||
                fail "$path belongs to, or can be written by, others than root: it must not be what root runs"
        done
        [ "$path" = / ] && break
        path=$(dirname "$path")
    done
}
if [ "$scope" = system ] && [ -z "$root" ] && [ -e "$program" ]; then
    roots "$program"
    roots "$(readlink -f "$program")"
    interpreter=$(LC_ALL=C sed -n '1s/^#![[:space:]]*\(\/[^[:space:]]*\).*/\1/p' "$program")
    if [ -n "$interpreter" ] && [ -e "$interpreter" ]; then
        roots "$interpreter"
        roots "$(readlink -f "$interpreter")"
    fi
fi

group_line='/^socket_group/d'
if [ "$manager-$scope" = systemd-system ]; then
    group_line=
    if [ -z "$root" ]; then
        getent group ops-agent >/dev/null || run groupadd --system ops-agent
        if [ -n "$confined" ] && ! getent passwd ops-agent >/dev/null; then
            run useradd --system --gid ops-agent --home-dir "$state" --no-create-home --shell /usr/sbin/nologin ops-agent
        fi
    fi
fi

write() { # FILE MODE SED-SCRIPT SOURCE: a file that is there whole or not at all
    printf '+ write %s (mode %s) from %s\n' "$root$1" "$2" "$4"
    [ -n "$dry" ] && return 0
    mkdir -p "$root$(dirname "$1")"
    (umask 077; sed "$3" "$4" >"$root$1.new")
    chmod "$2" "$root$1.new"
    mv -f "$root$1.new" "$root$1"
}

if [ -e "$root$etc/config.toml" ]; then
    say "kept: $root$etc/config.toml"
elif [ -n "$config" ]; then
    write "$etc/config.toml" 0644 '' "$config"
else
    write "$etc/config.toml" 0644 "s|/run/ops-agent/agent.sock|$socket|; s|/var/lib/ops-agent|$state|; $group_line" \
        "$here/config.toml"
fi
[ -n "$root$dry" ] || run "$program" check-config "$etc/config.toml"

write "$unit" 0644 "s|/usr/local/bin/ops-agent|$program|; s|@HOME@|$home|; s|%E/ops-agent|$etc|" "$here/$source"
if [ -n "$confined" ]; then
    write "$unit.d/10-confined.conf" 0644 '' "$here/systemd/10-confined.conf"
elif [ "$manager-$scope" = systemd-system ] && [ -e "$root$unit.d/10-confined.conf" ]; then
    run rm -f "$root$unit.d/10-confined.conf"
fi
if [ -n "$start" ]; then
    manage start
    say "it listens on $socket; \`ops-agent whoami agent+unix://$socket\` asks it who you are"
fi
