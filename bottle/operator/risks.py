"""What a person should see about a change before saying yes, in plain words. Nothing here decides."""

from __future__ import annotations

import ipaddress
import unicodedata

from bottle.operator.candidate import Candidate
from bottle.operator.live import LivePolicy
from bottle.sidecars.egress.addresses import is_private

SHARED_SUFFIXES = frozenset(
    {
        "github.io", "gitlab.io", "pages.dev", "workers.dev", "vercel.app", "netlify.app", "herokuapp.com",
        "ngrok.io", "ngrok-free.app", "trycloudflare.com", "amazonaws.com", "blob.core.windows.net",
        "cloudfront.net", "appspot.com", "web.app", "firebaseapp.com", "azurewebsites.net", "r2.dev",
        "run.app", "fly.dev", "onrender.com", "glitch.me", "repl.co", "replit.dev", "lhr.life", "loca.lt",
    }
)  # fmt: skip
"""Domains below which anybody may have a name."""

DROPS = frozenset(
    {
        "pastebin.com", "webhook.site", "requestbin.com", "transfer.sh", "file.io", "0x0.st", "hooks.slack.com",
        "discord.com", "api.telegram.org", "gist.github.com", "pipedream.net", "interact.sh", "oast.fun",
    }
)  # fmt: skip
"""Hosts whose use is to hand things to whoever asks."""

_PLAIN = str.maketrans({"0": "o", "1": "l", "i": "l", "3": "e", "5": "s", "8": "b", "2": "z", "6": "g", "9": "g"})


def risks(policy: LivePolicy, candidate: Candidate) -> list[str]:
    """Return every reason to look twice, a sentence each; none for an ordinary change."""
    if candidate.kind == "capability":
        return _of_capability(candidate)
    host = candidate.body["host"]
    known = [route.host for route in policy.routes if route.host != host]
    found = [*_of_spelling(host), *(_of_likeness(host, known))]
    if candidate.kind == "route":
        found += _of_breadth(policy, candidate)
    elif candidate.body.get("tls_passthrough"):
        found.append("what is sent there passes the second hop unread")
    for network in candidate.body.get("ssrf_ip_allowlist", ()):
        found += _of_network(network)
    return found


def _of_spelling(host: str) -> list[str]:
    found = []
    for label in host.split("."):
        if label.startswith("xn--"):
            try:
                shown = label.encode().decode("idna")
            except UnicodeError:
                found.append(f"the label {label} is an internationalised name that can't be read")
                continue
            scripts = {unicodedata.name(each, "?").split()[0] for each in shown if not each.isascii()}
            shown = shown.encode("unicode_escape").decode()
            found.append(
                f"the label {label} is an internationalised name: {shown} ({', '.join(sorted(scripts)).lower()})"
            )
    if len(host.split(".")) > 5 or any(len(label) > 40 for label in host.split(".")):
        found.append("the name is long enough to carry data")
    return found


def _of_likeness(host: str, known: list[str]) -> list[str]:
    found = []
    for other in known:
        if host.endswith("." + other) or other.endswith("." + host):
            found.append(f"it is another name in one tree with {other}, which has a route")
        elif f".{other}." in f".{host}." or f"{other.replace('.', '-')}" in host:
            found.append(f"it holds the name {other}, which has a route, but is not below it")
        elif skeleton(host) == skeleton(other) or 0 < distance(skeleton(host), skeleton(other)) <= 2:
            found.append(f"it looks like {other}, which has a route, and is another host")
    return found


def _of_breadth(policy: LivePolicy, candidate: Candidate) -> list[str]:
    host, paths = candidate.body["host"], candidate.body["path_allowlist"]
    labels = host.split(".")
    found = []
    if paths is None or "/" in paths:
        found.append("every path of the host")
    if len(labels) == 1:
        found.append("the name has no domain: where it leads is up to the local network")
    suffix = next((each for each in SHARED_SUFFIXES if host.endswith("." + each)), None)
    if suffix is not None:
        found.append(f"anybody may have a name below {suffix}")
    if any(host == each or host.endswith("." + each) for each in DROPS):
        found.append("the host takes what is given to it and hands it on")
    if any(route.host == host and route.slot is not None for route in policy.routes):
        found.append("egress puts a credential on requests to this host")
    return found


def _of_network(network: str) -> list[str]:
    found = ipaddress.ip_network(network)
    said = []
    if any(found.overlaps(each) for each in _METADATA if each.version == found.version):
        said.append(f"{network} holds a cloud's metadata service")
    if any(found.overlaps(each) for each in _OWN_HOST if each.version == found.version):
        said.append(f"{network} is the launcher's host itself")
    if is_private(found):
        said.append(f"{network} is private")
    if found.num_addresses > 256:
        said.append(f"{network} is {found.num_addresses} addresses")
    return said


_OWN_HOST = tuple(ipaddress.ip_network(each) for each in ("127.0.0.0/8", "0.0.0.0/8", "::/127"))
"""Linux takes the unspecified address for its own, too."""

_METADATA = tuple(
    ipaddress.ip_network(each)
    for each in ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128", "fe80::/10")
)


def _of_capability(candidate: Candidate) -> list[str]:
    if "read_only" in candidate.body:
        return ["the agent reads every file of that directory, and runs its programs"]
    name = candidate.body["env"]["name"]
    if name.startswith(("LD_", "PYTHON", "NODE_", "GIT_")) or name == "PATH" or "PROXY" in name.upper():
        return [f"{name} changes how programs in the bottle start, or where they connect"]
    return []


def skeleton(host: str) -> str:
    """Return a host with its look-alike characters folded: what a hasty reader sees (UTS #39's idea, ASCII's part)."""
    plain = []
    for label in host.split("."):
        if label.startswith("xn--"):
            try:
                label = label.encode().decode("idna")
            except UnicodeError:
                pass  # it stays as it is written
        text = unicodedata.normalize("NFKD", label)
        plain.append("".join(_LIKE.get(each, each) for each in text if not unicodedata.combining(each)))
    return ".".join(plain).replace("rn", "m").replace("vv", "w").replace("-", "").translate(_PLAIN)


_LIKE = dict(zip("асеорхуіјѕһԁԛԝѵɡοανρτικ", "aceopxyijshdqwvgoavptik", strict=True))
"""Cyrillic, Latin and Greek letters that are drawn like ASCII's."""


def distance(one: str, other: str) -> int:
    """Return how many single changes of a character lie between two texts (Levenshtein)."""
    row = list(range(len(other) + 1))
    for at, left in enumerate(one, 1):
        above, row[0] = row[0], at
        for to, right in enumerate(other, 1):
            above, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, above + (left != right))
    return row[-1]
