"""Credentials that can be told by their form: prefixes their issuers document. Precise on purpose: no guess by entropy.

gitleaks has many more rules (see `git_leaks`); these are looked for in every decoded view as well, at no start-up cost.
"""

from __future__ import annotations

import re

RULES = (
    ("github token", b"ghp_", rb"ghp_[0-9A-Za-z]{36}"),
    ("github token", b"gho_", rb"gho_[0-9A-Za-z]{36}"),
    ("github token", b"ghu_", rb"ghu_[0-9A-Za-z]{36}"),
    ("github token", b"ghs_", rb"ghs_[0-9A-Za-z]{36}"),
    ("github token", b"ghr_", rb"ghr_[0-9A-Za-z]{36}"),
    ("github token", b"github_pat_", rb"github_pat_[0-9A-Za-z_]{60,255}"),
    ("gitlab token", b"glpat-", rb"glpat-[0-9A-Za-z_-]{20}"),
    ("aws key", b"AKIA", rb"(?<![0-9A-Za-z])AKIA[A-Z2-7]{16}(?![0-9A-Za-z])"),
    ("aws key", b"ASIA", rb"(?<![0-9A-Za-z])ASIA[A-Z2-7]{16}(?![0-9A-Za-z])"),
    ("anthropic key", b"sk-ant-", rb"sk-ant-[0-9A-Za-z_-]{32,255}"),
    ("openai key", b"sk-proj-", rb"sk-proj-[0-9A-Za-z_-]{32,255}"),
    ("openai key", b"T3BlbkFJ", rb"sk-[0-9A-Za-z_-]{16,255}T3BlbkFJ[0-9A-Za-z_-]{16,255}"),
    ("slack token", b"xox", rb"xox[abeoprs]-[0-9A-Za-z-]{20,255}"),
    ("google key", b"AIza", rb"AIza[0-9A-Za-z_-]{35}"),
    ("npm token", b"npm_", rb"npm_[0-9A-Za-z]{36}"),
    ("pypi token", b"pypi-AgE", rb"pypi-AgE[0-9A-Za-z_-]{50,400}"),
    ("stripe key", b"k_live_", rb"[sr]k_live_[0-9A-Za-z]{20,255}"),
    ("sendgrid key", b"SG.", rb"SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}"),
    ("digitalocean token", b"dop_v1_", rb"dop_v1_[0-9a-f]{64}"),
    ("hugging face token", b"hf_", rb"(?<![0-9A-Za-z])hf_[0-9A-Za-z]{34}"),
    ("age key", b"AGE-SECRET-KEY-1", rb"AGE-SECRET-KEY-1[0-9A-Z]{50,400}"),
    (
        "private key",
        b"PRIVATE KEY-----",
        rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\\nr\"',+]{0,80}[0-9A-Za-z+/=:, -]{40,80}",
    ),
    ("putty key", b"PuTTY-User-Key-File", rb"PuTTY-User-Key-File-\d[\s\S]{1,400}Private-Lines"),
)
_COMPILED = tuple((name, literal, re.compile(pattern)) for name, literal, pattern in RULES)

MIN_DISTINCT = 10
"""A placeholder repeats itself (`ghp_xxxxxxxx...`); what an issuer makes doesn't."""

AROUND = 700
"""How far around its literal a credential is looked for; none is longer."""

_PLACEHOLDER = re.compile(rb"(?i)example|placeholder|your[_-]?(?:api|token|key)|abcdefghij|1234567890|(?:xxxx)+")


def find(data: bytes) -> str | None:
    """Return what kind of credential stands in `data`, None where there is none."""
    for name, literal, pattern in _COMPILED:
        begin, at = 0, data.find(literal)
        while at >= 0:
            found = pattern.search(data, max(begin, at - AROUND), at + AROUND)
            if found is not None:
                text = found.group()
                if len(set(text)) >= MIN_DISTINCT and not _PLACEHOLDER.search(text):
                    return name
                begin = found.start() + 1  # a placeholder hides neither what follows it nor what it swallowed
            at = data.find(literal, at + 1 if found is None else begin)
    return None
