"""The launcher's codex login: what may leave it (the access token, for egress) and what the guest gets instead."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bottle.errors import CredentialMissing

HINT = "run `codex login --device-auth` on this machine"
PLACEHOLDER = "bottle-placeholder"
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_PLANS = frozenset({"free", "plus", "pro", "team", "business", "enterprise", "edu", "go"})


class CodexAuth(NamedTuple):
    """`token` goes to egress only; `dummy` is the guest's auth.json."""

    token: str
    dummy: str


def read_codex_auth(text: str, now: float) -> CodexAuth:
    """Take the text of auth.json; `now`: seconds since the epoch. Raises CredentialMissing, which repeats no value."""
    try:
        auth = json.loads(text)
    except ValueError:
        raise CredentialMissing("codex's auth.json is not JSON", hint=HINT) from None
    if not isinstance(auth, dict):
        raise CredentialMissing("codex's auth.json is not a map", hint=HINT)
    tokens = auth.get("tokens")
    if auth.get("auth_mode") in ("apikey", "api_key") or (auth.get("OPENAI_API_KEY") and not tokens):
        raise CredentialMissing("codex is logged in with an API key, which is never forwarded", hint=HINT)
    token = tokens.get("access_token") if isinstance(tokens, dict) else None
    if not isinstance(token, str) or not token:
        raise CredentialMissing("codex's auth.json has no access token", hint=HINT)
    if not _JWT.match(token):
        raise CredentialMissing("codex's access token is no JWT", hint=HINT)
    expires = _expiry(token)
    if expires <= now:
        raise CredentialMissing("codex's access token has expired", hint=HINT)
    return CodexAuth(token, json.dumps(_dummy(auth, expires, now), indent=2) + "\n")


def _expiry(token: str) -> int:
    """Return a JWT's `exp`, in seconds since the epoch; its signature is the upstream's to check."""
    parts = token.split(".")
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, binascii.Error):
        raise CredentialMissing("codex's access token is no JWT", hint=HINT) from None
    expires = payload.get("exp") if isinstance(payload, dict) else None
    if len(parts) != 3 or isinstance(expires, bool) or not isinstance(expires, int):
        raise CredentialMissing("codex's access token is no JWT with an expiry", hint=HINT)
    return expires


def _dummy(auth: dict[str, Any], expires: int, now: float) -> dict[str, Any]:
    """Return an auth.json of the same shape: known harmless fields kept, every other one a placeholder."""
    found: dict[str, Any] = {}
    for name, value in auth.items():
        if name == "auth_mode":
            found[name] = "chatgpt"
        elif name == "last_refresh":
            found[name] = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        elif name == "tokens" and isinstance(value, dict):
            found[name] = _dummy_tokens(value, expires)
        else:
            found[name] = _shape(value)
    found.setdefault("tokens", {})
    return found


def _dummy_tokens(tokens: dict[str, Any], expires: int) -> dict[str, Any]:
    account = tokens.get("account_id")
    kept = account if isinstance(account, str) and _ACCOUNT.match(account) else PLACEHOLDER
    plan = _plan(tokens.get("id_token"))
    found: dict[str, Any] = {}
    for name, value in tokens.items():
        if name == "account_id":
            found[name] = kept
        elif name in ("access_token", "id_token"):
            found[name] = _dummy_jwt(expires, kept, plan)
        else:
            found[name] = _shape(value)
    return found


def _plan(token: Any) -> str:
    """Return the plan type an id token names, when it is one that is known."""
    try:
        part = str(token).split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        plan = claims["https://api.openai.com/auth"]["chatgpt_plan_type"]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return "plus"
    return plan if plan in _PLANS else "plus"


def _dummy_jwt(expires: int, account: str, plan: str) -> str:
    claims = {
        "exp": expires,
        "https://api.openai.com/auth": {"chatgpt_account_id": account, "chatgpt_plan_type": plan},
    }
    parts = [json.dumps(each, separators=(",", ":")).encode() for each in ({"alg": "none", "typ": "JWT"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), PLACEHOLDER])


def _shape(value: Any) -> Any:
    """Return a value of the same kind that says nothing."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict):
        return {}
    if isinstance(value, list):
        return []
    return PLACEHOLDER
