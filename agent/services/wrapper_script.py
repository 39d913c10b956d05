"""The wrapper of a service: the one program its definition starts, which keeps ambient credentials out of a runtime."""

from __future__ import annotations

from shlex import join, quote

from agent.services.artifact import Artifact, Places, auth_places, plain_path
from agent.services.checks.container import OWNER_LABEL
from agent.services.declaration import Declaration
from agent.services.receipt import MARKER

READY_S = 10
"""Seconds a runtime has to say that it is there."""

_HEAD = """#!/bin/sh
{marker}
# Made from the service's declaration by ops-agent: change that, and install again.
set -eu
umask 027
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin{more_path}
"""
_CONTAINER = """{environment}mine() {{
    label='{{{{index .Config.Labels "{label}"}}}}'
    owner=$(podman{link} container inspect --format "$label" {name} 2>/dev/null) || owner=
    test "$owner" = {service}
}}
case "${{1-}}" in
ready)
    # A runtime that is down means skipped, not failed and started again.
    {bound}podman{link} info >/dev/null 2>&1 || {{ echo "podman doesn't answer: not started" >&2; exit 1; }}
    {bound}podman{link} image exists {image} || {{ echo "its image isn't here: not started" >&2; exit 1; }}
    ;;
run)
    if mine; then podman{link} rm --force --time=0 {name} >/dev/null; fi
    exec podman{link} {run}
    ;;
stop)
    if mine; then podman{link} stop --time={stop_s} {name} >/dev/null; fi
    ;;
clean)
    if mine; then podman{link} rm --force --time=0 {name} >/dev/null; fi
    ;;
*)
    echo "usage: $0 ready|run|stop|clean" >&2
    exit 64
    ;;
esac
"""
_PROGRAM = """case "${{1-}}" in
ready)
    # A program that isn't there means skipped, not failed and started again.
    test -x {program} || {{ echo {program} "isn't there: not started" >&2; exit 1; }}
    ;;
run)
    {ready}exec {command}
    ;;
*)
    echo "usage: $0 ready|run" >&2
    exit 64
    ;;
esac
"""


def container_name(declared: Declaration) -> str:
    """Return the name its container goes by."""
    return declared.container_name or declared.name


def run_words(declared: Declaration, places: Places) -> list[str]:
    """Return `run` and its words: never pulled unless that is declared, under the declared authfile."""
    authfile, _ = auth_places(declared, places)
    pull = "always" if declared.podman.pull == "always" else "never"  # explicit: by a person, beforehand
    words = ["run", "--rm", f"--name={container_name(declared)}", f"--label={OWNER_LABEL}={declared.name}"]
    words += [f"--pull={pull}", f"--authfile={authfile}", "--log-driver=none"]
    words += [f"--stop-timeout={declared.lifecycle.shutdown_timeout_seconds}"]
    return [*words, str(declared.image), *declared.command]


def make_wrapper(declared: Declaration, places: Places, *, darwin: bool = False) -> Artifact:
    """Return the wrapper; POSIX sh, and on macOS nothing that only GNU has."""
    more = ":/opt/homebrew/bin:/opt/podman/bin" if darwin else ""
    text = _HEAD.format(marker=MARKER + declared.name, more_path=more)
    if declared.runtime == "podman":
        text += _container(declared, places, darwin)
    else:
        program = quote(plain_path(declared.command[0], "the program"))
        # launchd has no condition before a start: there the wrapper ends well instead.
        ready = f'test -x {program} || {{ echo "not there" >&2; exit 0; }}\n    ' if darwin else ""
        text += _PROGRAM.format(program=program, command=join(declared.command), ready=ready)
    return Artifact("wrapper", places.wrapper(declared.name), text.encode(), "0755")


def _container(declared: Declaration, places: Places, darwin: bool) -> str:
    authfile, directory = auth_places(declared, places)
    environment = f"export REGISTRY_AUTH_FILE={quote(authfile)}\n"
    if not declared.auth.allow_ambient_docker_config:
        environment = f"export DOCKER_CONFIG={quote(directory)}\n{environment}"
    link = f" --connection={declared.podman.connection}" if declared.podman.connection else ""
    text = _CONTAINER.format(
        environment=environment,
        link=link,
        label=OWNER_LABEL,
        name=container_name(declared),
        service=quote(declared.name),
        bound="" if darwin else f"timeout {READY_S} ",
        image=quote(str(declared.image)),
        run=join(run_words(declared, places)),
        stop_s=max(1, declared.lifecycle.shutdown_timeout_seconds - 2),
    )
    return text.replace("run)\n", 'run)\n    "$0" ready || exit 0\n', 1) if darwin else text
