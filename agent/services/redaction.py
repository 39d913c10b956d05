"""What leaves a host in an evidence bundle: structure and names stay, secrets go, and every place is counted.

Three ways, one after the other: by structure (credentials of JSON documents, values of environments), by shape and
telling name (`secret_shapes`), and by value: what was a secret in one source is taken out of all of them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from agent.services.command_line import split_exec
from agent.services.secret_shapes import MASK, SECRET_NAME, mask_counted, telling_values

CREDENTIALS = frozenset({
    "auth", "identitytoken", "registrytoken", "password", "secret", "httpheaders", "token", "accesstoken",
    "refreshtoken",
})  # fmt: skip
"""Keys of JSON objects whose values are credentials, in small letters; containers-auth.json(5)."""

OPEN_NAMES = frozenset({
    "PATH", "HOME", "HOSTNAME", "TERM", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "PWD", "container",
    "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "PODMAN_SYSTEMD_UNIT", "NOTIFY_SOCKET",
})  # fmt: skip
"""Variables whose values explain a service and are no secrets."""

LEAST_KNOWN = 6
"""Shorter values aren't looked for everywhere: they would be found everywhere."""

_UNIT_ENVIRONMENT = re.compile(r"(?m)^([ \t]{0,64}Environment[ \t]{0,8}=)((?:.*\\\n)*.*)$")
_CREDENTIAL = re.compile(r"(?m)^([ \t]{0,64}SetCredential(?:Encrypted)?[ \t]{0,8}=[^:\n]{0,255}:)((?:.*\\\n)*.+)$")
_EXPORT = re.compile(r"(?m)^([ \t]{0,64}export[ \t]{1,8})([A-Za-z_][A-Za-z0-9_]*)=(?!\*\*\*$)(.+)$")
_ENV_LINE = re.compile(r"(?m)^([ \t]{0,64}(?:export[ \t]{1,8})?)([A-Za-z_][A-Za-z0-9_]*)=(.*)$")


def _assignments(value: str) -> list[str]:
    """Return the words of an Environment= line, as systemd takes them apart: quotes may stand around a whole one."""
    return split_exec(value.replace("\\\n", " "))[1]


class Apart(NamedTuple):
    """A document taken apart. `masked`: places where structure told a secret; `variables`: their names and values."""

    value: Any
    masked: int = 0
    variables: Sequence[tuple[str, str]] = ()
    secrets: Sequence[str] = ()


class Redactor:
    """Learns from every source first, then takes secrets out of each."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def learn(self, text: str) -> None:
        """Remember what is a secret in a text, by its shape or name."""
        for value in telling_values(text):
            self._know(value)
        for line in _UNIT_ENVIRONMENT.finditer(text):
            for word in _assignments(line[2]):
                name, _, value = word.partition("=")
                self._know_variable(name, value)
        for credential in _CREDENTIAL.finditer(text):
            self._know(credential[2])
        for line in _ENV_LINE.finditer(text):
            self._know_variable(line[2], line[3])

    def learn_apart(self, apart: Apart) -> None:
        """Remember what a document's own structure tells, and what stands in the rest of it."""
        for name, value in apart.variables:
            self._know_variable(name, value)
        for value in apart.secrets:
            self._know(value)
        if isinstance(apart.value, str):
            self.learn(apart.value)
        else:
            self.learn_json(apart.value)

    def learn_json(self, value: Any, key: str = "") -> None:
        """Remember the credentials of a JSON document."""
        if isinstance(value, dict):
            for name, each in value.items():
                self.learn_json(each, str(name) if key.lower() not in CREDENTIALS else key)
        elif isinstance(value, list):
            for each in value:
                self.learn_json(each, key)
        elif isinstance(value, str):
            if key.lower() in CREDENTIALS:
                self._know(value)
                self._know_decoded(value)
            elif key == "Env":
                name, _, content = value.partition("=")
                self._know_variable(name, content)
            elif SECRET_NAME.search(key):
                self._know(value)
            else:
                self.learn(value)

    def _know(self, value: str) -> None:
        value = value.strip().strip("\"'")
        if len(value) >= LEAST_KNOWN and value != MASK and not value.startswith("/"):
            self._known.add(value)

    def _know_variable(self, name: str, value: str) -> None:
        value = value.strip().strip("\"'")
        mixed = len(value) >= 16 and re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
        if name not in OPEN_NAMES and (SECRET_NAME.search(name) or (mixed and not re.search(r"[\s/:=]", value))):
            self._know(value)

    def _know_decoded(self, value: str) -> None:
        try:
            text = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError):
            return
        self._know(text)
        if ":" in text:
            self._know(text.partition(":")[2])

    def text(self, text: str) -> tuple[str, Counter[str]]:
        """Return a log, script or definition without secrets, and the counts by how they were found."""
        counts: Counter[str] = Counter()
        text = self._values(text, counts)

        def environment(match: re.Match[str]) -> str:
            kept = []
            for word in _assignments(match[2]):
                name, equals, value = word.partition("=")
                known = equals and (name in OPEN_NAMES or value in ("", MASK))
                counts["structure"] += not known
                kept.append(shlex.join([word]) if known else f"{name}={MASK}" if equals else MASK)
            return match[1] + " ".join(kept)

        def exported(match: re.Match[str]) -> str:
            if match[2] in OPEN_NAMES:
                return match[0]
            counts["structure"] += 1
            return f"{match[1]}{match[2]}={MASK}"

        text = _UNIT_ENVIRONMENT.sub(environment, text)
        text = _EXPORT.sub(exported, text)
        text, found = _CREDENTIAL.subn(rf"\1{MASK}", text)
        counts["structure"] += found
        text, found = mask_counted(text)
        counts["shape"] += found
        return text, +counts

    def environment(self, text: str) -> tuple[str, Counter[str]]:
        """Return an environment file with its names, and no value but the harmless."""
        counts: Counter[str] = Counter()

        def one(match: re.Match[str]) -> str:
            if match[2] in OPEN_NAMES:
                return match[0]
            counts["structure"] += 1
            return f"{match[1]}{match[2]}={MASK}"

        text = _ENV_LINE.sub(one, text)
        text, more = self.text(text)
        return text, counts + more

    def json(self, value: Any) -> tuple[Any, Counter[str]]:
        """Return a JSON document without credentials: registries, helpers and names stay."""
        counts: Counter[str] = Counter()
        return self._json(value, "", counts), +counts

    def _json(self, value: Any, key: str, counts: Counter[str]) -> Any:
        if key.lower() in CREDENTIALS and value not in (None, "", [], {}, False):
            if isinstance(value, dict):
                counts["structure"] += len(value)
                return {str(name): MASK for name in value}
            counts["structure"] += 1
            return MASK
        if isinstance(value, dict):
            return {self._leaf(str(name), counts): self._json(each, str(name), counts) for name, each in value.items()}
        if isinstance(value, list):
            return [self._json(each, key, counts) for each in value]
        if isinstance(value, str):
            if key == "Env":
                name, equals, content = value.partition("=")
                if equals and content and name not in OPEN_NAMES:
                    counts["structure"] += 1
                    return f"{name}={MASK}"
            if value and SECRET_NAME.search(key) and not value.startswith("/"):
                counts["structure"] += 1
                return MASK
            return self._leaf(value, counts)
        return value

    def _leaf(self, value: str, counts: Counter[str]) -> str:
        text, more = self.text(value)
        counts.update(more)
        return text

    def _values(self, text: str, counts: Counter[str]) -> str:
        forms = {form for value in self._known for form in _forms(value)}
        for form in sorted(forms, key=len, reverse=True):
            found = text.count(form)
            if found:
                counts["value"] += found
                text = text.replace(form, MASK)
        return text


def _forms(value: str) -> set[str]:
    """Return a value as it may stand somewhere: as it is, quoted for a URL or JSON, in base64 at any offset."""
    raw = value.encode()
    found = {value, quote(value, safe=""), json.dumps(value)[1:-1], raw.hex()}
    if len(raw) >= 9:
        for pad in range(3):
            # Only whole groups of three bytes stay the same whatever stands before and after.
            start = (3 - pad) % 3
            body = raw[start : start + (len(raw) - start) // 3 * 3]
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                found.add(encode(body).decode())
    return {each for each in found if len(each) >= LEAST_KNOWN}
