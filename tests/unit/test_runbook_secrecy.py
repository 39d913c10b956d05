"""Which variables are secret, however they take a secret in, and each place where none may stand."""

from __future__ import annotations

from typing import Any

import pytest

from opsexec import Runbook
from opsexec.runbook.secrecy import refuse_misplaced_secrets, secret_names
from opsexec.runbook.template import SecretMisplaced
from opsexec.secret_source import SecretSource

SECRET = SecretSource(from_env="PW")


@pytest.mark.parametrize(
    ("variables", "secret"),
    [
        ({}, ""),
        ({"a": "x", "b": "${a}", "n": 5}, ""),
        ({"a": SECRET}, "a"),
        ({"a": SECRET, "b": "x${a}y", "c": "$${a}"}, "a b"),
        ({"d": "${c}", "c": "${b}", "b": "${a}", "a": SECRET, "e": "e"}, "a b c d"),
        ({"a": SECRET, "b": "${c}", "c": "${b}"}, "a"),
        ({"a": SECRET, "b": "${c} ${a}", "c": "${b}"}, "a b c"),
        ({"a": SECRET, "b": SecretSource(prompt="?"), "n": 5, "l": ["x"]}, "a b"),
    ],
)
def test_what_takes_a_secret_in_is_one(variables: dict[str, Any], secret: str) -> None:
    assert secret_names(variables) == set(secret.split())


def refused(step: str, **variables: Any) -> str:
    """Why a step is refused where these are its variables; "" for one that isn't."""
    book = Runbook.parse(f"name: t\nhosts: all\nsteps:\n  - {step}\n", "r.yaml")
    (found,) = [each for _, each in book.all_steps()]
    try:
        refuse_misplaced_secrets(found, variables)
    except SecretMisplaced as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ('{ exec: [echo, "${b}"] }', "would put a secret into argv"),
        ('{ exec: [echo, "x"], cwd: "/${b}" }', "would put a secret into cwd"),
        ('{ exec: [echo], when: "${b} == 1" }', "the condition '${b} == 1' reads the secret 'b'"),
        ('{ exec: [echo], changed_when: "${open} == 1 or ${b} == 1" }', "reads the secret 'b'"),
        ('{ assert: "${b} == 1" }', "the condition '${b} == 1' reads the secret 'b'"),
        ('{ assert: { that: "${open} == 1", message: "it is ${b}" } }', "would put a secret into a message"),
        ('{ write: { path: "/${b}", content: x } }', "would put a secret into path"),
        ('{ exec: [echo, "${open}"], when: "${open} == x" }', ""),
        ('{ exec: [echo, x], env: { PW: "${b}" } }', ""),
        ('{ exec: [cat], stdin: "${b}" }', ""),
        ('{ write: { path: "/${open}", content: "${b}" } }', ""),
        ('{ assert: { that: "${open} == x", message: "it is ${open}" } }', ""),
        ("{ exec: [echo, x] }", ""),
        ('{ assert: "${open} == x" }', ""),
    ],
)
def test_a_secret_stands_in_env_stdin_and_content_alone(step: str, says: str) -> None:
    said = refused(step, a=SECRET, b="<${a}>", open="x")
    assert says in said
    assert bool(says) == bool(said)
    assert refused(step, b="y", open="x") == ""
