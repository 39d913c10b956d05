"""`fake_podman`: a stand-in inside a booted machine, where a real podman can't run containers (no nested mounts).

It keeps a directory for each container and answers what the doctor asks of podman 4.3.1; everything it is told stands
in /var/lib/fake-podman/calls.
"""

from __future__ import annotations

from tests.parts.booted_machine import BootedMachine

STATE = "/var/lib/fake-podman"
SCRIPT = """#!/bin/sh
# fake_podman: a stand-in of the tests, no container runtime
S=/var/lib/fake-podman
mkdir -p $S/containers $S/images
echo "$*" >> $S/calls
test -e $S/down && { echo "Cannot connect to Podman" >&2; exit 125; }
case "$1 $2" in
"version "*) echo '{"Client":{"Version":"4.3.1"}}' ;;
"info "*) echo ok ;;
"ps "*)
    printf '['; sep=
    for c in $S/containers/*; do
        test -d "$c" || continue
        printf '%s{"Names":["%s"],"State":"running","Pid":1,"Labels":{}}' "$sep" "${c##*/}"; sep=,
    done
    echo ']' ;;
"container exists") for last; do :; done; test -d "$S/containers/$last" ;;
"container inspect") for last; do :; done; test -d "$S/containers/$last" && cat $S/inspect.json ;;
"image exists") for last; do :; done; test -e "$S/images/$(echo "$last" | tr / _)" ;;
"image inspect") cat $S/image.json ;;
"logs "*) cat $S/logs ;;
"rm "*) for last; do :; done; rm -rf "$S/containers/$last" ;;
"stop "*) : ;;
"run "*)
    name=none; prev=
    for word; do
        case "$word" in --name=*) name=${word#--name=} ;; esac
        test "$prev" = --name && name=$word
        prev=$word
    done
    mkdir -p "$S/containers/$name"
    test -e $S/works && exec sleep 1000
    exit 3 ;;
*) echo "fake_podman doesn't know: $*" >&2; exit 125 ;;
esac
"""


def fake_podman(machine: BootedMachine, image: str = "localhost/web:1") -> None:
    """Put it where podman would be, with one image."""
    machine.write("/usr/bin/podman", SCRIPT)
    machine.run("chmod", "755", "/usr/bin/podman")
    machine.run("mkdir", "-p", f"{STATE}/images", f"{STATE}/containers")
    machine.write(f"{STATE}/images/{image.replace('/', '_')}", "")
    machine.write(f"{STATE}/inspect.json", "[]")
    machine.write(f"{STATE}/image.json", "[]")
    machine.write(f"{STATE}/logs", "")
