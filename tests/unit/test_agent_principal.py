"""Who is at the other end of a unix socket, and which names in a grant somebody can be."""

from __future__ import annotations

import os
import pwd
import resource
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from agent import principal
from agent.errors import BadConfig
from agent.principal import alternatives, check_principal, overflow_uid, peer_principal, uid_here

ME = os.getuid()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A connection of this user's, by a name that nobody has looked up yet."""
    monkeypatch.setattr(principal, "_names", {})
    here, there = socket.socketpair()
    with here, there:
        yield here


def users(monkeypatch: pytest.MonkeyPatch, **uids: int) -> None:
    """Let the host have these users alone."""

    def by_uid(uid: int) -> SimpleNamespace:
        return SimpleNamespace(pw_name={number: name for name, number in uids.items()}[uid])

    def by_name(name: str) -> SimpleNamespace:
        return SimpleNamespace(pw_uid=uids[name])

    monkeypatch.setattr(pwd, "getpwuid", by_uid)
    monkeypatch.setattr(pwd, "getpwnam", by_name)


def test_a_connection_is_its_users(peer: socket.socket) -> None:
    assert peer_principal(peer) == f"unix:{pwd.getpwuid(ME).pw_name}"


def test_a_uid_without_a_name_is_its_number(peer: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    users(monkeypatch)
    assert peer_principal(peer) == f"unix:{ME}"


def test_a_uid_whose_number_is_another_users_name_is_nobody(
    peer: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    users(monkeypatch, **{str(ME): ME + 1})
    assert peer_principal(peer) is None


def test_a_uid_whose_name_leads_to_another_uid_is_nobody(peer: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    users(monkeypatch, deploy=ME)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=ME + 1))
    assert peer_principal(peer) is None


def test_a_user_of_another_namespace_is_nobody(peer: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    users(monkeypatch, deploy=ME)
    monkeypatch.setattr(principal, "overflow_uid", lambda: ME)
    assert peer_principal(peer) is None


def test_a_socket_that_nobody_is_connected_to_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal, "_names", {})
    with socket.socket(socket.AF_UNIX) as alone:
        assert peer_principal(alone) is None


def test_without_a_descriptor_to_look_names_up_nobody_is_known(peer: socket.socket) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        while_full = peer_principal(peer)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert while_full is None
    assert peer_principal(peer) is not None


def test_asking_for_a_name_keeps_no_descriptor(peer: socket.socket) -> None:
    before = set(os.listdir("/proc/self/fd"))
    assert peer_principal(peer) is not None
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_name_is_asked_for_again_when_it_is_old_and_not_before(
    peer: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(principal, "time", SimpleNamespace(monotonic=lambda: now))
    users(monkeypatch, old=ME)
    assert peer_principal(peer) == "unix:old"
    users(monkeypatch, new=ME)
    now += principal.NAME_TTL_S
    assert peer_principal(peer) == "unix:old"
    now += 0.5
    assert peer_principal(peer) == "unix:new"


def test_names_of_many_users_are_not_all_kept(peer: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[int, tuple[float, str | None]] = {10_000_000 + at: (0.0, "x") for at in range(5000)}
    monkeypatch.setattr(principal, "_names", names)
    assert peer_principal(peer) is not None
    assert list(names) == [ME]


def uid_of(name: str) -> int | None:
    return {"deploy": 1001, "nobody-here": overflow_uid()}.get(name)


@pytest.mark.parametrize(
    "text",
    ["unix:deploy", "unix:1001", "unix:0", "tailnet:alice@example.com", "tailnet:tag:ci", "bottle:web", "bottle:*"],
)
def test_a_principal_that_a_listener_proves_may_have_a_grant(text: str) -> None:
    check_principal(text, ["unix", "tailnet", "bottle"], uid_of)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("deploy", "is not a principal"),
        ("unix", "is not a principal"),
        ("bottle", "is not a principal"),
        ("user:deploy", "is not a principal"),
        ("", "is not a principal"),
        (":deploy", "is not a principal"),
        ("unix:mallory", "no such user here"),
        ("unix:\u0661", "no such user here"),
        ("unix:", "no such user here"),
        ("unix:nobody-here", "is no identity"),
        (f"unix:{overflow_uid()}", "is no identity"),
        ("tailnet:", "it is no login and no tag"),
        ("tailnet:tag:a,tag:b", "it is no login and no tag"),
    ],
)
def test_a_principal_that_nobody_can_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        check_principal(text, ["unix", "tailnet", "bottle"], uid_of)


@pytest.mark.parametrize("text", ["unix:deploy", "tailnet:alice@example.com", "bottle:web"])
def test_a_principal_that_no_listener_proves_is_refused(text: str) -> None:
    others = {"unix", "tailnet", "bottle"} - {text.partition(":")[0]}
    with pytest.raises(BadConfig, match="no listener proves"):
        check_principal(text, others, uid_of)


def test_users_are_those_of_this_host_unless_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    users(monkeypatch, here=5)
    assert (uid_here("here"), uid_here("deploy")) == (5, None)
    check_principal("unix:here", ["unix"])
    with pytest.raises(BadConfig, match="no such user"):
        check_principal("unix:deploy", ["unix"])
    with pytest.raises(BadConfig, match="no such user"):
        check_principal("unix:here", ["unix"], uid_of)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ()),
        ("unix:tailnet:tag:a,tag:b", ("unix:tailnet:tag:a,tag:b",)),
        ("bottle:web", ("bottle:web", "bottle:*")),
        ("unix:bottle:web", ("unix:bottle:web",)),
        ("tailnet:alice@example.com", ("tailnet:alice@example.com",)),
        ("tailnet:tag:a", ("tailnet:tag:a",)),
        ("tailnet:tag:a,tag:b", ("tailnet:tag:a", "tailnet:tag:b")),
    ],
)
def test_grants_are_found_by_each_name_a_principal_has_and_no_other(text: str | None, names: tuple[str, ...]) -> None:
    assert alternatives(text) == names
