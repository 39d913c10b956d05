"""Users for whom there is nothing here, and bottles: however many of them there are, others are served."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.bottle_turns import PER_MINUTE
from tests.integration.conftest import require_root
from tests.parts.agent_bytes import answer, connected, get
from tests.parts.limits_table import record
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(60)
BOTTLES = {"principal": "bottle:*", "capabilities": ["script.run:*"]}
FIRST_UID = 71_000
"""Of uids that nobody has here, as a user's range of subordinate ones (subuid(5))."""


def connected_as(uid: int, path: Path) -> socket.socket:
    """A connection of another user's."""
    os.seteuid(uid)
    try:
        return connected(path)
    finally:
        os.seteuid(0)


def still_open(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        return link.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def test_all_who_hold_no_grant_have_one_users_share_of_the_connections() -> None:
    require_root()
    granted = {"principal": f"unix:{current_user()}", "capabilities": EVERYTHING}
    with (
        OpsAgent([granted], mode="0666", max_connections=40, max_connections_per_principal=10) as agent,
        ExitStack() as held,
    ):
        links = [held.enter_context(connected_as(FIRST_UID + number % 12, agent.socket)) for number in range(60)]
        eventually_now(lambda: sum(map(still_open, links)) <= 10, within_s=10, what="those over the bound are closed")
        assert sum(map(still_open, links)) == 10
        assert answer(agent.socket, get("/v1/whoami")).startswith(b"HTTP/1.1 200")
    record(
        "strangers",
        "60 connections of 12 users without a grant, 10 allowed a user, 40 in all",
        "50 closed at once; who has a grant is served meanwhile",
    )


def test_who_is_asked_for_consent_is_no_stranger() -> None:
    require_root()
    uid = FIRST_UID + 40
    granted = {"principal": f"unix:{current_user()}", "capabilities": EVERYTHING, "consent": "ask"}
    consent = f'[consent]\nusers = ["unix:{uid}"]'
    with (
        OpsAgent([granted], mode="0666", tables=consent, max_connections_per_principal=3) as agent,
        ExitStack() as held,
    ):
        for number in range(3):
            held.enter_context(connected_as(FIRST_UID + number, agent.socket))
        os.seteuid(uid)
        try:
            said = answer(agent.socket, get("/v1/consent"))
        finally:
            os.seteuid(0)
        assert said.startswith(b"HTTP/1.1 200")


def test_bottles_take_half_of_the_connections_at_most() -> None:
    granted = {"principal": f"unix:{current_user()}", "capabilities": EVERYTHING}
    names = [f"b{number}" for number in range(5)]
    with (
        OpsAgent([granted, BOTTLES], bottles=names, max_connections=40, max_connections_per_principal=10) as agent,
        ExitStack() as held,
    ):
        links = [held.enter_context(connected(agent.bottles[name])) for name in names for _ in range(10)]
        eventually_now(lambda: sum(map(still_open, links)) <= 20, within_s=10, what="those over the bound are closed")
        assert sum(map(still_open, links)) == 20
        assert answer(agent.socket, get("/v1/whoami")).startswith(b"HTTP/1.1 200")


def test_a_bottle_cannot_fill_the_audit_whose_oldest_lines_would_make_room() -> None:
    """Each answer has a line of its own; it is answered a bounded number of times, and the rest is counted."""
    me = {"principal": f"unix:{current_user()}", "capabilities": EVERYTHING}
    with OpsAgent([me, BOTTLES], bottles=["web", "other"]) as agent:
        answers = [answer(agent.bottles["web"], get("/v1/whoami")) for _ in range(PER_MINUTE + 400)]
        allowed = [each.startswith(b"HTTP/1.1 200") for each in answers]
        assert PER_MINUTE <= sum(allowed) <= 2 * PER_MINUTE  # a minute may have passed meanwhile
        assert answers[PER_MINUTE].startswith(b"HTTP/1.1 429")
        lines = [each for each in agent.records() if each["principal"] == "bottle:web"]
        assert len(lines) < sum(allowed) + 60
        assert answer(agent.bottles["other"], get("/v1/whoami")).startswith(b"HTTP/1.1 200")
        assert answer(agent.socket, get("/v1/whoami")).startswith(b"HTTP/1.1 200")
    record(
        "bottle-audit",
        f"{len(answers)} questions of a bottle with a grant, one after another",
        f"{PER_MINUTE} answered a minute, with a line each; 429 for the rest, which lines count",
    )
