"""launchd's service targets: a domain and a label, which may be nearly any text, and how a grant names one."""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters a label has at most; nothing that is known of launchd bounds it."""

_DOMAIN = re.compile(r"system|(?:gui|user)/(?:0|[1-9][0-9]{0,9})")
_ODD = re.compile(rb"[^A-Za-z0-9_.-]")


def is_domain(text: str) -> bool:
    """Whether this is a domain that jobs belong to: system, gui/UID or user/UID."""
    return bool(_DOMAIN.fullmatch(text))


def is_label(text: str) -> bool:
    """Whether a job's label can be named: printable, on one line, and without a slash, which ends a domain."""
    return 0 < len(text) <= LONGEST and text.isprintable() and "/" not in text


def is_target(text: str) -> bool:
    """Whether this is a domain and a label."""
    domain, _, label = text.rpartition("/")
    return is_domain(domain) and is_label(label)


def resource_of(target: str) -> str:
    """Return what a grant has to admit: the target, each byte of its label that is no plain character as `%XX`.

    So `*` or a script's pin in a label stands for itself alone, and any label can be named in a grant.
    """
    domain, slash, label = target.rpartition("/")
    return domain + slash + _ODD.sub(lambda odd: b"%%%02X" % odd[0][0], label.encode()).decode()
