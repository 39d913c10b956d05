"""Lint of launchd property lists over a corpus: good, bad, malformed, with doubled keys, binary."""

from __future__ import annotations

import plistlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.services.plist_lint import lint_plist

PATH = "/Library/LaunchDaemons/com.example.web.plist"
GOOD = {
    "Label": "com.example.web",
    "ProgramArguments": ["/usr/local/bin/web", "--serve"],
    "RunAtLoad": True,
    "KeepAlive": {"SuccessfulExit": False},
    "ThrottleInterval": 30,
    "StandardOutPath": "/var/log/web/out.log",
}


def lint(**changes) -> list[str]:
    job = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return [each.summary for each in lint_plist(plistlib.dumps(job), PATH)]


def test_a_good_job_has_nothing_wrong():
    assert lint() == []
    assert lint_plist(plistlib.dumps(GOOD, fmt=plistlib.FMT_BINARY), PATH) == []


BAD = [
    ({"KeepAlive": True}, "without end"),
    ({"KeepAlive": {"SuccessfulExit": True}}, "without end"),
    ({"ThrottleInterval": 1}, "under 10 s"),
    ({"KeepAlve": True}, "meant is KeepAlive"),
    ({"Label": "web"}, "reverse-DNS"),
    ({"Label": "com.example.other"}, "not the file's name"),
    ({"Label": 5}, "Label"),
    ({"ProgramArguments": None}, "neither Program nor"),
    ({"ProgramArguments": ["web"]}, "absolute"),
    ({"ProgramArguments": ["/opt/homebrew/bin/podman", "run", "x"]}, "by itself"),
    ({"ProgramArguments": ["/bin/sh", "-c", "podman run x"]}, "by itself"),
    ({"ProgramArguments": ["/nix/store/abc/bin/web"]}, "store path"),
    ({"StandardOutPath": "/private/tmp/web.log"}, "anyone may write"),
    ({"StandardErrorPath": "~/web.log"}, "doesn't expand"),
    ({"WorkingDirectory": "$HOME/web"}, "doesn't expand"),
    ({"RunAtLoad": "yes"}, "RunAtLoad is a str"),
    ({"Nice": True}, "Nice is a bool"),
    ({"Umask": 22}, "decimal"),
    ({"OnDemand": True}, "deprecated"),
    ({"Disabled": False}, "overruled"),
    ({"StartInterval": 60}, "contradict"),
    ({"StartCalendarInterval": {"Hour": 24}}, "out of range"),
    ({"StartCalendarInterval": [{"Weekday": 8}]}, "out of range"),
    ({"EnvironmentVariables": {"API_TOKEN": "hush-canary"}}, "looks like a secret"),
    ({"AbandonProcessGroup": True}, "leaves processes behind"),
]


@pytest.mark.parametrize(("changes", "said"), BAD)
def test_a_bad_job_is_told_what_is_wrong(changes, said):
    found = lint(**changes)
    assert any(said in each for each in found), found
    assert "hush-canary" not in repr(found)


def test_a_key_that_stands_twice_is_found_although_plistlib_hides_it():
    text = b"""<?xml version="1.0"?><plist version="1.0"><dict><key>Label</key><string>com.example.web</string>
    <key>Program</key><string>/bin/a</string><key>KeepAlive</key>
    <true/>
    <key>KeepAlive</key><false/></dict></plist>"""
    found = lint_plist(text, PATH)
    assert [each.summary for each in found] == ["the key KeepAlive stands twice"]
    assert found[0].evidence[0].line == 4


def test_keep_alive_across_two_lines_is_seen():
    text = b"""<plist version="1.0"><dict><key>Label</key><string>com.example.web</string><key>Program</key>
    <string>/bin/a</string><key>KeepAlive</key>
    <true/></dict></plist>"""
    assert any("without end" in each.summary for each in lint_plist(text, PATH))


@pytest.mark.parametrize(
    "data",
    [b"", b"<plist>", b"bplist00garbage", b"\0" * 100, b"<plist version='1.0'><array/></plist>", b"{ a = b; }",
     b'<!DOCTYPE x [<!ENTITY a "b">]><plist version="1.0"><dict/></plist>', b"<plist>" + b"<dict>" * 5000],
)  # fmt: skip
def test_what_is_no_property_list_fails(data):
    assert [each.verdict for each in lint_plist(data, PATH)][:1] == ["fail"]


@given(st.binary(max_size=400))
def test_any_bytes_are_linted_without_an_error(data):
    lint_plist(data, PATH)
