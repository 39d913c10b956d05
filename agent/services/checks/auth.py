"""auth.*: which registry credentials a runtime could reach. Names of helpers and registries are shown, values never."""

from __future__ import annotations

import json
from typing import Any

from agent.services.check import check
from agent.services.checks.lint_exec import starts
from agent.services.checks.podman import ISOLATING, podman_version, uses_podman
from agent.services.definition import definition, scripts
from agent.services.finding import Evidence, Fix, Ruling, failed, noted, passed, skipped, warned
from agent.services.look import Look
from agent.services.probe import FileText, Unreadable


def parse_auth(file: FileText) -> dict[str, Any]:
    """Return an auth file's JSON object; raises Unreadable, without its content, for anything else."""
    try:
        found = json.loads(file.data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{file.asked} is no JSON", Evidence(path=file.asked)) from error
    if not isinstance(found, dict):
        raise Unreadable(f"{file.asked} is no JSON object", Evidence(path=file.asked))
    return found


@check(
    "auth.authfile", "service", reads="the declared authfile: kind, owner, mode, content",
    fails_when='it isn\'t a file of mode 0600 that holds {"auths":{}}', severity="high", blocks=True,
)  # fmt: skip
async def authfile(look: Look) -> Ruling:
    """Rule on the empty authfile."""
    declared = look.declared
    if declared is None or declared.runtime != "podman" or declared.auth.mode != "empty-authfile":
        return skipped("no empty authfile is declared")
    path = declared.auth.authfile
    if path is None:
        return skipped("no authfile is named: the install makes one")
    stat = await look.probe.stat(path)
    at = Evidence(path=path)
    if not stat.exists:
        return failed(f"{path} doesn't exist", at, fix=Fix(text='make it: {"auths":{}}, mode 0600'))
    if stat.kind != "file":
        return failed(f"{path} is a {stat.kind}", at)
    if int(stat.mode, 8) & 0o077:
        return failed(
            f"{path} has mode {stat.mode}", at, fix=Fix(text="close it", argv=("chmod", "600", path), safe=True)
        )
    if parse_auth(await look.probe.read(path)) != {"auths": {}}:
        return failed(f"{path} is declared empty, and isn't", at)
    return passed(f"{path} is empty", at)


async def ambient_files(look: Look) -> list[str]:
    """Return where podman looks for credentials when nothing tells it otherwise; containers-auth.json(5)."""
    home, runtime, uid = await look.home(), await look.runtime_dir(), await look.uid()
    places = [f"{runtime or f'/run/user/{uid}'}/containers/auth.json", f"{home}/.config/containers/auth.json"]
    shared = await look.probe.stat("/run/containers")
    if shared.exists and (uid in (0, shared.uid) or int(shared.mode, 8) & 0o001):  # else podman can't get there either
        places.insert(0, f"/run/containers/{uid}/auth.json")
    return [*places, f"{home}/.docker/config.json", f"{home}/.dockercfg"]


def helpers(found: dict[str, Any]) -> list[str]:
    """Return the credential helpers that an auth file names, with the registries they are for."""
    named = []
    store = found.get("credsStore")
    if isinstance(store, str) and store:
        named.append(f"{store} (for everything)")
    per = found.get("credHelpers")
    if isinstance(per, dict):
        named += [f"{helper} ({registry})" for registry, helper in per.items()]
    return [each[:120] for each in named]


async def ambient(look: Look) -> tuple[list[Evidence], list[Evidence]]:
    """Return the files that name credential helpers, and those that hold credentials."""
    naming, holding = [], []
    for path in await ambient_files(look):
        if not (await look.probe.stat(path)).exists:
            continue
        found = parse_auth(await look.probe.read(path))
        named = helpers(found)
        if named:
            naming.append(Evidence(path=path, excerpt="credential helpers: " + ", ".join(named)))
        auths = found.get("auths")
        if isinstance(auths, dict) and auths:
            holding.append(Evidence(path=path, excerpt="credentials for " + ", ".join(map(str, auths))[:300]))
    return naming, holding


@check(
    "auth.ambient", "podman", reads="containers/auth.json, ~/.docker/config.json, ~/.dockercfg",
    fails_when="a credential helper is configured that podman would call on its own", after=("podman.binary",),
)  # fmt: skip
async def ambient_credentials(look: Look) -> Ruling:
    """Rule on what lies about."""
    if not uses_podman(look):
        return skipped("it doesn't run in podman")
    naming, holding = await ambient(look)
    if naming:
        fix = Fix(
            text="run podman with DOCKER_CONFIG and REGISTRY_AUTH_FILE pointing at empty files, as our wrappers do"
        )
        return warned("a credential helper is configured on this host", *naming, *holding, fix=fix)
    if holding:
        return noted("registry credentials lie on this host", *holding)
    return passed("no ambient registry credentials")


@check(
    "auth.isolation", "service", reads="podman's version, DOCKER_CONFIG in the unit and scripts, `--pull`",
    fails_when="the authfile is declared empty, and ambient credentials reach the runtime", severity="high",
    after=("podman.version",), blocks=True,
)  # fmt: skip
async def isolation(look: Look) -> Ruling:
    """Rule on whether ambient credentials are kept out."""
    declared = look.declared
    if declared is None or declared.runtime != "podman" or declared.auth.mode != "empty-authfile":
        return skipped("no empty authfile is declared")
    if declared.auth.allow_ambient_docker_config:
        return noted("ambient docker configuration is declared allowed")
    runs = [each.run for each in await starts(look) if each.run.verb in ("run", "create")]
    if not runs:
        return skipped("it starts no container")
    naming, _ = await ambient(look)
    unit = (await definition(look)).unit
    texts = [each.value for each in unit.all("Service", "Environment")]
    texts += [script.file.text for script in await scripts(look)]
    if all(run.pull == "never" for run in runs):
        return passed("no start pulls, so none asks for credentials")
    if any("DOCKER_CONFIG=" in text for text in texts):
        return passed("DOCKER_CONFIG keeps the ambient configuration out")
    version = await podman_version(look)
    if version >= ISOLATING and all(run.authfile for run in runs):
        return passed("this podman's --authfile keeps ambient configuration out")
    text = f"podman {'.'.join(map(str, version))} asks ambient credentials in spite of --authfile"
    fix = Fix(text="set DOCKER_CONFIG to a directory with an empty config.json, and use --pull=never")
    return failed(text, *naming, fix=fix)
