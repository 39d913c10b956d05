"""What the doctor decides from text alone: command lines, restart limits, unit files, declarations, secrets."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.services.checks.lint_files import gnu_only
from agent.services.checks.podman import classify, shown_uri
from agent.services.command_line import (
    container_runs,
    in_temporary,
    is_remote_image,
    redirections,
    script_commands,
    split_exec,
)
from agent.services.declaration import BadDeclaration, parse_declaration
from agent.services.definition import MAX_SCRIPT_BYTES
from agent.services.persistence import compare, homes
from agent.services.restart_limits import Limits, why_unbounded
from agent.services.secret_shapes import mask, secret_names
from agent.services.timespan import seconds
from agent.services.unit_file import Unit, parse_unit

RAW = [
    "/usr/bin/podman run --rm docker.io/x",
    "podman --log-level debug run x",
    "-/usr/bin/docker run -d --name a x",
    "/usr/bin/podman container run x",
    "/usr/bin/nerdctl create x",
    "/usr/bin/podman start web",
    "/bin/sh -c 'podman run x'",
    '/bin/bash -lc "sleep 1; exec podman run x"',
    "/bin/sh -c 'cd / && FOO=1 podman run x || true'",
    "/bin/sh -c \"sh -c 'docker run x'\"",
    "/usr/bin/env FOO=1 podman run x",
    "/usr/bin/env -i PATH=/bin sh -c 'podman run x'",
    "/usr/bin/sudo -u web podman run x",
    "/usr/bin/timeout 60 podman run x",
    "/usr/bin/nohup /usr/bin/podman run x",
    "/bin/sh -c 'while true; do podman run x; done'",
    "/bin/sh -c 'x=$(podman run x)'",
    "/bin/busybox sh -c 'podman run x'",
]
NOT_RAW = [
    "/usr/bin/podman ps",
    "/usr/bin/podman stop web",
    "/usr/bin/web --runtime podman run",
    "/bin/sh -c 'echo hello'",
    "/usr/bin/podman-web run",
    "/usr/bin/podman rm -f run",
    "",
]


@pytest.mark.parametrize("line", RAW)
def test_a_container_started_by_hand_is_found_wherever_it_hides(line):
    assert container_runs(split_exec(line)[1])


@pytest.mark.parametrize("line", NOT_RAW)
def test_what_starts_no_container_is_left_alone(line):
    assert not container_runs(split_exec(line)[1])


def test_the_image_the_pull_policy_and_the_authfile_are_told_apart_from_the_rest():
    line = (
        "/usr/bin/podman run -d --name web -p 80:80 --pull=never --authfile /e -v /a:/b localhost/web:1 x --pull always"
    )
    (run,) = container_runs(split_exec(line)[1])
    assert (run.image, run.pull, run.authfile) == ("localhost/web:1", "never", "/e")


@pytest.mark.parametrize(
    ("reference", "remote"),
    [
        ("localhost/web:1", False), ("docker.io/library/x", True), ("x", True), ("library/x", True),
        ("registry.example:5000/x@sha256:" + "a" * 64, True), ("localhost:5000/x", True), ("a" * 64, False),
        ("sha256:" + "a" * 64, False), ("localhost", True), ("localhost.evil.example/x", True),
    ],
)  # fmt: skip
def test_only_localhost_and_ids_are_local_images(reference, remote):
    assert is_remote_image(reference) is remote


@pytest.mark.parametrize(
    ("restart", "between", "interval", "burst", "bounded"),
    [
        ("no", 0.1, 0, 0, True), ("on-failure", 0.1, 10, 5, True), ("on-failure", 5, 3600, 3, True),
        ("always", 0.1, 0, 5, False), ("on-failure", 0.1, 10, 0, False), ("on-failure", 6, 10, 3, False),
        ("on-failure", 2, 10, 5, False), ("on-abnormal", 1.9, 10, 5, True), ("always", 60, math.inf, 5, True),
    ],
)  # fmt: skip
def test_every_combination_that_never_stops_is_named(restart, between, interval, burst, bounded):
    why = why_unbounded(Limits(restart=restart, restart_s=between, interval_s=interval, burst=burst))
    assert (why is None) is bounded


@given(st.floats(0.01, 100), st.floats(0.01, 1000), st.integers(1, 100))
def test_a_bounded_service_reaches_its_limit_within_the_interval(between, interval, burst):
    limits = Limits(restart="on-failure", restart_s=between, interval_s=interval, burst=burst)
    starts = [at * between for at in range(burst + 1)]  # one that fails at once
    assert (why_unbounded(limits) is None) == (starts[-1] < interval)


@pytest.mark.parametrize(
    ("text", "value"),
    [("100ms", 0.1), ("6", 6), ("1min 30s", 90), ("1h", 3600), ("infinity", math.inf), ("", None), ("soon", None),
     ("1d 2h", 93600), ("-1", None), ("9" * 200, None)],
)  # fmt: skip
def test_time_spans_are_read_as_systemd_writes_them(text, value):
    assert seconds(text) == (value if value is None else pytest.approx(value))


def test_an_empty_value_empties_a_list_and_later_files_win():
    main = parse_unit(b"[Service]\nExecStart=/a\nExecStart=/b \\\n  c\n# x\nRestart=always\n", "/u")
    drop = parse_unit(b"[Service]\nExecStart=\nExecStart=/c\nRestart=no\n", "/d")
    unit = Unit([main, drop])
    assert [each.value for each in unit.all("Service", "ExecStart")] == ["/c"]
    assert unit.value("Service", "Restart") == "no"
    assert [each.value for each in Unit([main]).commands()] == ["/a", "/b    c"]
    assert main.settings[1].line == 3


@given(st.binary(max_size=2000))
def test_any_bytes_are_parsed_as_a_unit_without_an_error(data):
    unit = Unit([parse_unit(data, "/u")])
    for setting in unit.commands():
        container_runs(split_exec(setting.value)[1])


@given(st.text(max_size=500))
def test_any_text_is_split_as_a_script_without_an_error(text):
    for command in script_commands(text):
        container_runs(command)
    redirections(text)
    split_exec(text)


@pytest.mark.parametrize(
    "path", ["/tmp", "/tmp/x", "//tmp/x", "/./tmp/x", "/var/tmp/a/b", "/private/tmp/x", "/dev/shm/x"]
)
def test_a_temporary_directory_is_one_however_it_is_written(path):
    assert in_temporary(path)


@pytest.mark.parametrize("path", ["/var/log/x", "/tmpx", "/srv/tmp/x"])
def test_other_directories_are_not_temporary(path):
    assert not in_temporary(path)


def test_redirections_are_found():
    assert redirections("a > /tmp/x 2>>/var/log/y; b &> '/tmp/z'") == ["/tmp/x", "/var/log/y", "/tmp/z"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("API_TOKEN=abc", ["API_TOKEN"]), ('"DB_PASSWORD=a b" X=1', ["DB_PASSWORD"]), ("TOKEN_FILE=/etc/token", []),
        ("URL=https://me:secret@host/", ["URL"]), ("KEY=-----BEGIN RSA", ["KEY"]), ("PATH=/bin LANG=C", []),
        ("PASSWORD=", []), ("SECRET=/run/secret", []),
    ],
)  # fmt: skip
def test_secrets_in_an_environment_are_told_by_name_alone(line, names):
    assert secret_names(line) == names


def test_what_macos_lacks_is_found_and_comments_are_not():
    script = "#!/bin/sh\n# date -d x\ndate -d yesterday\nsed -i '' s/a/b/ f\nstat -c %s f | xargs -r rm\n"
    assert gnu_only(script) == ["date -d", "stat -c", "xargs -r"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('nam = "web"\n', "web.toml:1: unknown key 'nam'", 'did you mean "name"?'),
        ('name = "web"\n\n[lifecycle]\nmax_restart_per_hour = 3\n', "web.toml:4: unknown key", "max_restarts_per_hour"),
        ('name = "web"\n[auth]\nmode = "ambient"\n', "web.toml:3: auth.mode:", None),
        ('name = "web"\nenable = "yes"\n', "web.toml:2: enable:", None),
        ('name = "../web"\n', "web.toml:1: name:", None),
        ("name = \n", "web.toml:1:", "TOML"),
        ("", "web.toml:1: name is missing", "docs/doctor.md"),
        ('name = "web"\n[lifecycle]\nmax_restarts_per_hour = -1\n', "web.toml:3: lifecycle.max_", None),
    ],
)  # fmt: skip
def test_a_declaration_that_is_wrong_says_where_and_what_is_near(text, message, hint):
    with pytest.raises(BadDeclaration) as error:
        parse_declaration(text.encode(), "web.toml")
    assert message in error.value.message
    if hint:
        assert hint in (error.value.hint or "")


def test_a_declaration_has_safe_defaults():
    declared = parse_declaration(b'name = "web"\n', "web.toml")
    assert not declared.enable
    assert declared.auth.mode == "empty-authfile"
    assert declared.podman.pull == "never"
    assert declared.lifecycle.max_restarts_per_hour == 3


@given(st.binary(max_size=500))
def test_any_bytes_that_are_no_declaration_are_refused_with_the_files_name(data):
    with pytest.raises(BadDeclaration, match=r"^x\.toml:"):
        parse_declaration(b"\n" + data + b"\n= x", "x.toml")


def test_homes_are_read_once_and_those_of_daemons_are_not():
    passwd = (
        "root:x:0:0::/root:/bin/sh\nbin:x:1:1::/bin:/x\na:x:1000:1000::/home/a:/bin/sh\nb:x:1:1::/home/a:/x\nbroken\n"
    )
    assert homes(passwd) == ["/root", "/home/a"]


def test_a_sweep_names_what_is_new_changed_and_gone():
    before, now = {"/a": "1", "/b": "1", "/c": "1"}, {"/a": "1", "/b": "2", "/d": "1"}
    assert compare(before, now) == {
        "new": ["/d"], "changed": ["/b"], "gone": ["/c"],
    }  # fmt: skip


def test_a_refused_podman_is_told_in_a_few_words_and_without_a_password():
    assert (
        classify("Error: failed to connect: dial tcp 127.0.0.1:1: connect: connection refused")
        == "nothing listens there"
    )
    assert classify("\x00whatever") == "it doesn't answer"
    assert shown_uri("ssh://core:hush@127.0.0.1:1/x") == "ssh://core:***@127.0.0.1:1/x"


PEM = "-----BEGIN RSA PRIVATE KEY-----\nhush-canary\n-----END RSA PRIVATE KEY-----"
HIDDEN = [
    "ExecStart=/bin/web --password=hush-canary", "--password hush-canary x", "API_TOKEN=hush-canary",
    'token: "hush-canary"', "https://me:hush-canary@host/x", "Authorization: Bearer hush-canary",
    "DB_PASSWD='hush-canary'", PEM, PEM[:50], "eyJhbGciOiJIUzI1NiJ9.hush-canary.x", "ghp_hushcanaryhushcanary0123",
    '{"identitytoken":"hush-canary"}',
]  # fmt: skip


@pytest.mark.parametrize("text", HIDDEN)
def test_a_secret_in_evidence_is_masked(text):
    assert "hush-canary" not in mask(text)
    assert "hushcanary" not in mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "the token expired",
        "systemctl --no-ask-password is-active",
        "ExecStart=/bin/web --serve",
        "TOKEN_FILE=/etc/token",
        "a: b",
    ],
)
def test_what_is_no_secret_stays_readable(text):
    assert mask(text) == text


@pytest.mark.parametrize(
    "text", ["\\", ";", "podman x; y && z\n", "'\"`$(", "> x", "a ", "date ", "a=b ", "token"], ids=repr
)
def test_a_script_of_the_largest_size_is_judged_in_time(text):
    script = text * (MAX_SCRIPT_BYTES // len(text))
    begun = time.process_time()
    for command in script_commands(script):
        container_runs(command)
    container_runs(split_exec(script)[1])
    redirections(script)
    secret_names(script)
    gnu_only(script)
    assert time.process_time() - begun < 5
