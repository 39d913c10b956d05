"""`extends`: a bottle on top of another, merged key by key as the requirements have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bottle.errors import BadManifest
from bottle.manifest.kinds import Bottle, GitGate, GitUser, Repository
from bottle.manifest.names import MANIFEST_NAME

MAX_CHAIN = 16


def resolve(name: str, read: Callable[[str], tuple[Bottle, str]], known: Callable[[], list[str]]) -> Bottle:
    """Return the bottle with all it extends merged in, child over parent.

    `read` gives a bottle and where it stands, and raises KeyError for a name there is none of. Raises BadManifest,
    which prints the chain, for a cycle, a missing parent and a chain over MAX_CHAIN long.
    """
    chain: list[str] = []
    layers: list[Bottle] = []
    at: str | None = name
    where = ""
    while at is not None:
        shown = " -> ".join([*chain, at])
        if not MANIFEST_NAME.match(at):
            raise BadManifest(f"{where}: extends names {at[:60]!r}, which is no bottle's name", hint=f"chain: {shown}")
        if at in chain:
            raise BadManifest(f"{where}: a bottle extends itself: {shown}", hint="take one of them out of the chain")
        if len(chain) >= MAX_CHAIN:
            raise BadManifest(f"{where}: over {MAX_CHAIN} bottles in one chain: {shown}", hint="merge some")
        chain.append(at)
        try:
            bottle, where = read(at)
        except KeyError:
            have = ", ".join(known()) or "none"
            place = f"{where}: " if where else ""
            raise BadManifest(f"{place}there is no bottle {at!r} (chain: {shown})", hint=f"bottles: {have}") from None
        layers.append(bottle)
        at = bottle.extends
    merged = layers.pop()
    while layers:
        merged = merge(merged, layers.pop())
    return merged


def merge(parent: Bottle, child: Bottle) -> Bottle:
    """Return child over parent.

    env by key; git-gate.user by field; git-gate.repos by upstream host; egress, agent_provider and supervise whole.
    """
    return Bottle(
        env={**parent.env, **child.env},
        extends=None,
        agent_provider=child.agent_provider if child.agent_provider is not None else parent.agent_provider,
        git_gate=_merge_git(parent.git_gate, child.git_gate),
        egress=child.egress if child.egress is not None else parent.egress,
        supervise=child.supervise if child.supervise is not None else parent.supervise,
    )


def _merge_git(parent: GitGate | None, child: GitGate | None) -> GitGate | None:
    if parent is None or child is None:
        return child if child is not None else parent
    return GitGate(user=merge_user(parent.user, child.user), repos=_merge_repos(parent.repos, child.repos))


def merge_user(parent: GitUser | None, child: GitUser | None) -> GitUser | None:
    """Return a git identity, field by field, the child's winning."""
    if parent is None or child is None:
        return child if child is not None else parent
    return GitUser(
        name=child.name if child.name is not None else parent.name,
        email=child.email if child.email is not None else parent.email,
    )


def _merge_repos(
    parent: Mapping[str, Repository] | None, child: Mapping[str, Repository] | None
) -> dict[str, Repository] | None:
    """Absent inherits, {} clears, else by upstream host: every parent's entry of a host the child names gives way."""
    if child is None:
        return None if parent is None else dict(parent)
    if not child:
        return {}
    hosts = {repository.upstream.host for repository in child.values()}
    kept = {name: each for name, each in (parent or {}).items() if each.upstream.host not in hosts}
    return {**kept, **child}
