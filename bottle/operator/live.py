"""A bottle's policy as it is now: what a change does to it, and how the two differ. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bottle.egress import EffectiveRoute
from bottle.manifest.kinds import EnvValue
from bottle.operator.candidate import BadProposal, Candidate
from bottle.plan import BottlePlan


@dataclass(frozen=True)
class LivePolicy:
    """`routes`: egress. `trees`: directories of the host. `env`: literal variables of the guest, sorted."""

    routes: tuple[EffectiveRoute, ...]
    trees: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    def rendered(self) -> dict[str, Any]:
        """Return it as JSON data. No secret is in it, only that one is injected."""
        return {
            "routes": [dataclasses.asdict(route) for route in self.routes],
            "trees": list(self.trees),
            "env": [list(pair) for pair in self.env],
        }

    @property
    def digest(self) -> str:
        """sha256 over that, in hex: what an approval is bound to."""
        text = json.dumps(self.rendered(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def lines(self) -> list[str]:
        """Return it as lines to be compared: one a host and path, network, directory or variable."""
        found = []
        for route in self.routes:
            paths = (
                ["every path"] if route.path_allowlist is None else [f"path {each}" for each in route.path_allowlist]
            )
            found += [f"egress {route.host}: {path}" for path in paths]
            if route.methods is not None:
                found.append(f"egress {route.host}: only {' '.join(route.methods)}")
            if route.query is not None:
                found.append(f"egress {route.host}: only these query parameters: {' '.join(route.query) or 'none'}")
            if route.scheme:
                found.append(f"egress {route.host}: a {route.scheme} credential is injected")
            found += [f"egress {route.host}: may lead to {network}" for network in route.private]
            if route.tls_passthrough:
                found.append(f"pipelock {route.host}: TLS passes unread")
        found += [f"host directory {tree}: read-only, its bin in PATH" for tree in self.trees]
        return found + [f"env {name}={value}" for name, value in self.env]


def live_policy(plan: BottlePlan) -> LivePolicy:
    """Return what a plan stands for."""
    env = tuple(sorted((name, value.text) for name, value in plan.env.items() if not value.secret))
    return LivePolicy(plan.egress.routes, plan.host_trees, env)


def read_policy(data: Mapping[str, Any]) -> LivePolicy:
    """Return a rendered policy; raises ValueError for another shape."""
    try:
        routes = [EffectiveRoute(**_fields(row)) for row in data["routes"]]
        return LivePolicy(tuple(routes), tuple(data["trees"]), tuple((str(n), str(v)) for n, v in data["env"]))
    except (KeyError, TypeError) as error:
        raise ValueError("no policy") from error


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(each) if isinstance(each, list) else each for key, each in row.items()}


def changed(policy: LivePolicy, candidate: Candidate) -> LivePolicy:
    """Return the policy with the change made; raises BadProposal where it doesn't fit or changes nothing."""
    if candidate.kind == "route":
        found = _with_route(policy, candidate)
    elif candidate.kind == "pipelock":
        found = _with_inspection(policy, candidate)
    else:
        found = _with_capability(policy, candidate)
    if found == policy:
        raise BadProposal("that is so already")
    return found


def with_policy(plan: BottlePlan, policy: LivePolicy) -> BottlePlan:
    """Return the plan that this policy stands for."""
    secret = {name: value for name, value in plan.env.items() if value.secret}
    env = {name: EnvValue(kind="literal", text=text) for name, text in policy.env}
    egress = dataclasses.replace(plan.egress, routes=policy.routes)
    return dataclasses.replace(plan, egress=egress, host_trees=policy.trees, env={**env, **secret})


def resumed(plan: BottlePlan, policy: LivePolicy) -> BottlePlan:
    """Return the plan by which a bottle goes on under another policy: the same home, the agent's words for resuming."""
    workspace = dataclasses.replace(plan.workspace, source=None)
    plan = dataclasses.replace(plan, command=plan.again, workspace=workspace)
    return with_policy(plan, policy)


def difference(before: LivePolicy, after: LivePolicy) -> list[str]:
    """Return what goes and what comes, a line each: `- ...` and `+ ...`. Every line of it is meant to be read."""
    old, new = before.lines(), after.lines()
    return [f"- {line}" for line in old if line not in new] + [f"+ {line}" for line in new if line not in old]


def _with_route(policy: LivePolicy, candidate: Candidate) -> LivePolicy:
    host, paths = candidate.body["host"], candidate.body["path_allowlist"]
    route = _route(policy, host)
    if route is None:
        new = EffectiveRoute(host, None if paths is None else tuple(paths), None, None, False, (), "manifest")
        return dataclasses.replace(policy, routes=(*policy.routes, new))
    if route.owner == "provider":
        raise BadProposal("this host belongs to the provider: its route is not for changing")
    if route.path_allowlist is None:
        return policy
    merged = None if paths is None else (*route.path_allowlist, *(p for p in paths if p not in route.path_allowlist))
    return _replaced(policy, dataclasses.replace(route, path_allowlist=merged))


def _with_inspection(policy: LivePolicy, candidate: Candidate) -> LivePolicy:
    route = _route(policy, candidate.body["host"])
    if route is None:
        raise BadProposal("this host has no route: propose that first")
    if route.owner == "provider":
        raise BadProposal("this host belongs to the provider: its route is not for changing")
    if "tls_passthrough" in candidate.body:
        return _replaced(policy, dataclasses.replace(route, tls_passthrough=candidate.body["tls_passthrough"]))
    more = tuple(each for each in candidate.body["ssrf_ip_allowlist"] if each not in route.private)
    return _replaced(policy, dataclasses.replace(route, private=(*route.private, *more)))


def _with_capability(policy: LivePolicy, candidate: Candidate) -> LivePolicy:
    if "read_only" in candidate.body:
        tree = candidate.body["read_only"]
        return policy if tree in policy.trees else dataclasses.replace(policy, trees=(*policy.trees, tree))
    named = {**dict(policy.env), candidate.body["env"]["name"]: candidate.body["env"]["value"]}
    return dataclasses.replace(policy, env=tuple(sorted(named.items())))


def _route(policy: LivePolicy, host: str) -> EffectiveRoute | None:
    return next((route for route in policy.routes if route.host == host), None)


def _replaced(policy: LivePolicy, route: EffectiveRoute) -> LivePolicy:
    routes = tuple(route if each.host == route.host else each for each in policy.routes)
    return dataclasses.replace(policy, routes=routes)
