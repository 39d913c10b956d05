"""Which of the agent's ways a request takes, and what of HTTP none of them takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from multidict import CIMultiDict

from agent import http_server as web
from agent.door import OVERSEERS, ROUTES, _require_plain, _route
from agent.runs import follow_run, signal_run
from agent.tty.answering import answer_question, list_questions
from agent.tty.watching import send_recording, watch_terminal
from opsexec.errors import ProtocolError, UsageError


def fake_request(method: str = "GET", path: str = "/", **headers: str) -> web.BaseRequest:
    """What the door looks at of a request."""
    said = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return cast("web.BaseRequest", SimpleNamespace(method=method, path=path, headers=said))


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_each_way_is_taken_by_its_method_and_path_alone(method: str, path: str) -> None:
    at = path.replace("*", "0123456789abcdef")
    assert _route(fake_request(method, at)) is ROUTES[method, path]
    for other in ("GET", "POST", "PUT", "HEAD", "get", ""):
        if (other, path) not in ROUTES:
            with pytest.raises(UsageError, match="is not for"):
                _route(fake_request(other, at))


@pytest.mark.parametrize(
    ("method", "path", "handler"),
    [
        ("GET", "/v1/runs/*", follow_run),
        ("GET", "/v1/runs/signal", follow_run),
        ("POST", "/v1/runs/*/signal", signal_run),
        ("GET", "/v1/tty/a/recording", send_recording),
        ("GET", "/v1/tty/recording", watch_terminal),
    ],
)
def test_a_star_stands_for_one_segment_and_a_star_is_one(method: str, path: str, handler: object) -> None:
    assert _route(fake_request(method, path)) is handler


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1",
        "/v1/",
        "/v1/steps/x",
        "/v1/runs/a/b",
        "/v1/*",
        "//v1/steps",
        "*",
        "/v1/step",
        "/V1/steps",
        "/v2/steps",
        "v1/steps",
        "/v1/steps/",
        "/v1/steps?a=b",
        "/v1/tty/a/b",
    ],
)
def test_there_is_no_other_way(path: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(UsageError, match="there is no"):
            _route(fake_request(method, path))


def test_who_is_asked_for_consent_needs_no_grant_for_these_and_no_others() -> None:
    assert {list_questions, answer_question, watch_terminal, signal_run} == OVERSEERS


@pytest.mark.parametrize("coding", ["gzip", "chunked, gzip", "gzip, chunked", "identity", ""])
def test_no_coding_but_chunked_is_taken(coding: str) -> None:
    with pytest.raises(ProtocolError, match="transfer coding"):
        _require_plain(fake_request(Transfer_Encoding=coding))


@pytest.mark.parametrize("name", ["Content_Encoding", "content_encoding", "Upgrade"])
def test_neither_coded_bodies_nor_upgrades_are_taken(name: str) -> None:
    with pytest.raises(ProtocolError, match="neither"):
        _require_plain(fake_request(**{name: "identity"}))


def test_a_plain_request_is_taken() -> None:
    _require_plain(fake_request())
    _require_plain(fake_request(Transfer_Encoding="Chunked", Content_Type="text/plain"))
