"""The plan is pure, the preflight hides nothing, and no value of a secret is in either."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bottle import credentials, launch
from bottle.authority import Authority
from bottle.backends import bwrap, docker
from bottle.backends.base import Place, all_steps
from bottle.egress import effective_egress
from bottle.errors import BadManifest, CredentialMissing
from bottle.manifest import load_object, model
from bottle.manifest.kinds import Route
from bottle.plan import BottlePlan, Intent, make_plan
from bottle.preflight import preflight, shown, summary
from bottle.providers.base import HostFacts, ProviderRoute, TokenSource
from bottle.providers.codex_auth import read_codex_auth
from bottle.runtime import Runtime
from opsexec.secret import Secret
from opsexec.steps import SandboxRun, redact
from opsexec.testing import MemoryAudit

NOW = 1_800_000_000.0
PLACE = Place("/state/a-00000000", Runtime("/opt/e/bin/python", ("/opt/e",), "/opt/bottle"), {})
AUTHORITY = Authority("CERT", "AA:BB", Secret("KEY"))


def plan_of(bottle: dict[str, Any], agent: dict[str, Any] | None = None, **intent: Any) -> BottlePlan:
    data = {"bottles": {"dev": bottle}, "agents": {"a": {"bottle": "dev", "prompt": "P", **(agent or {})}}}
    asked = {"arguments": ("true",), **intent} if "agent_provider" not in bottle else intent
    return make_plan(load_object(data).load("a"), Intent("a-00000000", **asked))


def jwt(claims: dict[str, Any]) -> str:
    parts = [json.dumps(each).encode() for each in ({"alg": "none"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "sig"])


class TestEffectiveEgress:
    def test_the_provider_owns_its_hosts_and_what_is_lost_is_said(self) -> None:
        """MF8."""
        found = effective_egress(
            [ProviderRoute(Route(host="api.p"), "Bearer", TokenSource("variable", "P"))],
            [
                model.plain(model.Route.model_validate({"host": "API.p", "path_allowlist": ["/v1"]})),
                Route(host="other.x"),
            ],
        )
        assert [(route.host, route.owner) for route in found.routes] == [("api.p", "provider"), ("other.x", "manifest")]
        assert found.warnings == ("api.p belongs to the provider: the manifest's path_allowlist for it won't apply",)

    def test_one_token_is_one_slot_in_one_pass(self) -> None:
        plan = plan_of(
            {
                "egress": {
                    "routes": [
                        {"host": "a.x", "auth": {"scheme": "Bearer", "token_ref": "ONE"}},
                        {"host": "b.x"},
                        {"host": "c.x", "auth": {"scheme": "token", "token_ref": "TWO"}},
                        {"host": "d.x", "auth": {"scheme": "token", "token_ref": "ONE"}},
                    ]
                }
            }
        )
        assert [route.slot for route in plan.egress.routes] == [
            "EGRESS_TOKEN_0",
            None,
            "EGRESS_TOKEN_1",
            "EGRESS_TOKEN_0",
        ]

    def test_the_rendered_table_names_no_variable_of_the_launcher(self) -> None:
        plan = plan_of({"egress": {"routes": [{"host": "a.x", "auth": {"scheme": "Bearer", "token_ref": "MY_VAR"}}]}})
        assert "MY_VAR" not in json.dumps(plan.egress.table())


class TestPlan:
    def test_no_step_carries_a_secret_in_the_open(self) -> None:
        """CR1: of what a launch does, the audit and the dry run show neither token, nor env value, nor key."""
        plan = plan_of(
            {
                "env": {"HELD": "${HOST}"},
                "egress": {"routes": [{"host": "a.x", "auth": {"scheme": "Bearer", "token_ref": "T"}}]},
            }
        )
        held = credentials.Credentials({"EGRESS_TOKEN_0": Secret("tok-12345678")}, {"HELD": Secret("held-12345678")})
        steps = all_steps(bwrap, plan, PLACE, held, AUTHORITY)
        text = json.dumps([redact(step) for _, step in steps])
        for value in ("tok-12345678", "held-12345678", "KEY"):
            assert value not in text
        agent = next(step for name, step in steps if name == "agent")
        assert isinstance(agent, SandboxRun)
        assert "tok-12345678" not in json.dumps({name: str(value) for name, value in agent.env.items()})
        assert agent.stdin is None

    def test_the_agent_has_no_network_and_one_door(self) -> None:
        plan = plan_of({"egress": {"routes": [{"host": "a.x"}]}})
        agent = bwrap.agent_run(plan, PLACE, credentials.Credentials())
        assert not agent.network
        assert list(agent.doors.values()) == ["/run/bottle/doors/egress.sock"]
        assert bwrap.agent_run(plan_of({}), PLACE, credentials.Credentials()).doors == {}

    def test_the_agent_sees_nothing_of_its_state_but_its_own_files(self) -> None:
        agent = bwrap.agent_run(plan_of({}), PLACE, credentials.Credentials())
        bound = [*agent.read_only.values(), *agent.writable.values()]
        assert not [path for path in bound if "/bundle" in path]
        assert list(agent.writable) == ["/home/agent"]

    def test_the_ca_comes_before_everything_else_in_the_guest(self) -> None:
        names = [phase.name for phase in bwrap.provision(plan_of({}), PLACE, AUTHORITY)]
        assert names[:2] == ["CA", "prompt"]

    def test_the_least_capabilities_admit_every_step_and_nothing_else(self) -> None:
        plan = plan_of({"egress": {"routes": [{"host": "a.x"}]}}, copy_cwd="/src")
        secrets = credentials.masked(plan)
        granted = launch.ceiling(plan, PLACE, secrets, AUTHORITY)
        for _, step in all_steps(bwrap, plan, PLACE, secrets, AUTHORITY):
            for need in step.requires():
                assert granted.admits(need), need
        other = bwrap.agent_run(plan, Place("/state/b-00000000", PLACE.runtime, {}), secrets)
        assert not all(granted.admits(need) for need in other.requires())

    def test_the_digest_tells_a_changed_manifest(self) -> None:
        """MF9."""
        assert plan_of({}).digest == plan_of({}).digest
        assert plan_of({}).digest != plan_of({"egress": {"routes": [{"host": "a.x"}]}}).digest

    def test_a_variable_in_the_place_of_the_bottle_s_own_is_warned_about(self) -> None:
        routes = {"routes": [{"host": "a.x"}]}
        plan = plan_of({"env": {"HTTPS_PROXY": "", "HOME": "${ELSEWHERE}", "MODE": "fast"}, "egress": routes})
        assert [each for each in plan.warnings if each.startswith("env ")] == [
            "env HOME of the manifest replaces the bottle's",
            "env HTTPS_PROXY of the manifest replaces the bottle's",
        ]

    def test_the_command_provider_needs_a_command(self) -> None:
        with pytest.raises(BadManifest, match="has no command"):
            plan_of({}, arguments=())


def test_a_second_start_asks_an_engine_for_its_networks_first() -> None:
    """They take the longest, and nothing that may have been left over stands in their way."""
    plan = replace(plan_of({}), backend="docker")
    phases = [phase.name for phase in docker.surroundings(plan, replace(PLACE, again=True))]
    assert phases == ["inner network", "outer network", "bundle image", "left over"]


class TestPreflight:
    def test_each_thing_granted_has_a_line(self) -> None:
        plan = plan_of(
            {
                "env": {"A": "x", "B": "${Y}"},
                "agent_provider": {"template": "claude", "auth_token": "TOK"},
                "egress": {"routes": [{"host": "a.x", "auth": {"scheme": "token", "token_ref": "T"}}]},
                "git-gate": {"repos": {"app": {"url": "ssh://g@git.x:2222/a", "identity": "k"}}},
            },
            {"git-gate": {"user": {"name": "Bot"}}},
        )
        text = "\n".join(preflight(plan))
        for part in (
            "api.anthropic.com [auth:Bearer]",
            "a.x [auth:token]",
            "app -> git.x:2222",
            "claimed by the agent",
        ):
            assert part in text
        assert "CLAUDE_CODE_OAUTH_TOKEN" not in text
        assert "TOK" not in text.replace("TOKEN", "")

    def test_a_bottle_on_docker_says_what_holds_its_bounds_and_that_its_calls_are_filtered(self) -> None:
        told = dict(summary(replace(plan_of({}), backend="docker")))
        assert told["limits"] == (
            "1024 processes (the engine), 4 GiB memory (the engine), 2 cpus (the engine), home 16 GiB and 1000000 "
            "files (watched), filtered system calls (an engine whose operator wrote a filter keeps that)"
        )
        assert "filtered" not in dict(summary(plan_of({})))["limits"]  # where that is known, it is told with it

    def test_all_that_a_route_or_a_repository_grants_is_in_its_line(self) -> None:
        """MF10: what is granted and not shown is what nobody agreed to."""
        route = {
            "host": "a.x",
            "methods": ["GET"],
            "path_allowlist": ["/v1", "/files/"],
            "query_allowlist": [],
            "pipelock": {"tls_passthrough": True, "ssrf_ip_allowlist": ["10.0.0.0/8"]},
        }
        gate = {"repos": {"app": {"url": "ssh://g@git.x:2222/team/a", "identity": "k"}}}
        lines = preflight(plan_of({"egress": {"routes": [route]}, "git-gate": gate}))
        [egress] = [line for line in lines if line.startswith("egress")]
        shown_parts = egress.split(maxsplit=1)[1]
        assert shown_parts == (
            "a.x [GET] [paths: /v1 /files/] [query: none] [private: 10.0.0.0/8] [pipelock: TLS unread]"
        )
        assert any("app -> git.x:2222 [as g: /team/a]" in line for line in lines)

    def test_no_character_can_hide_another(self) -> None:
        """MF10."""
        said = shown("a\x1b[2Jb\u202ec\u200bd\ne")
        assert said == "a\\x1b[2Jb\\u202ec\\u200bd\\ne"


class TestProviders:
    def test_claude_holds_a_placeholder_and_egress_the_token(self) -> None:
        plan = plan_of({"agent_provider": {"template": "claude", "auth_token": "TOK"}})
        assert plan.guest_env()["CLAUDE_CODE_OAUTH_TOKEN"] == "egress-placeholder"
        assert plan.egress.slots == {"EGRESS_TOKEN_0": TokenSource("variable", "TOK")}
        assert plan.command[:2] == ("claude", "--dangerously-skip-permissions")
        again = plan_of({"agent_provider": {"template": "claude"}}, resume=True)
        assert again.command[-1] == "--continue"
        assert "CLAUDE_CODE_OAUTH_TOKEN" not in again.guest_env()

    def test_codex_gets_a_dummy_of_the_same_shape(self) -> None:
        """CR2."""
        real = jwt({"exp": int(NOW) + 60, "secret_claim": "s3cret"})
        auth = {
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": None,
            "tokens": {"access_token": real, "id_token": real, "refresh_token": "r3fresh", "account_id": "acc-1"},
            "last_refresh": "2020-01-01T00:00:00Z",
            "new_field": {"deep": "s3cret"},
            "list": ["s3cret"],
            "text": "s3cret",
        }
        found = read_codex_auth(json.dumps(auth), NOW)
        dummy = json.loads(found.dummy)
        assert found.token == real
        assert dummy.keys() == auth.keys()
        assert dummy["tokens"]["account_id"] == "acc-1"
        assert (dummy["new_field"], dummy["list"], dummy["text"]) == ({}, [], "bottle-placeholder")
        payload = dummy["tokens"]["access_token"].split(".")[1]
        assert json.loads(base64.urlsafe_b64decode(payload + "=="))["exp"] == int(NOW) + 60
        assert "s3cret" not in found.dummy
        assert "r3fresh" not in found.dummy
        assert real not in found.dummy

    @pytest.mark.parametrize(
        "auth",
        [
            None,
            "not json",
            json.dumps({"OPENAI_API_KEY": "sk-x"}),
            json.dumps({"auth_mode": "apikey", "tokens": {"access_token": "a.b.c"}}),
            json.dumps({"tokens": {}}),
            json.dumps({"tokens": {"access_token": "sk-plain"}}),
            json.dumps({"tokens": {"access_token": jwt({"exp": int(NOW) - 1})}}),
            json.dumps({"tokens": {"access_token": jwt({"exp": "soon"})}}),
            json.dumps({"tokens": {"access_token": jwt({"exp": int(NOW) + 60}) + "\r\nX-More: sk-y"}}),
        ],
    )
    def test_a_codex_login_that_can_t_be_forwarded_is_refused_without_a_value(self, auth: str | None) -> None:
        bottle = {"agent_provider": {"template": "codex", "forward_host_credentials": True}}
        with pytest.raises(CredentialMissing) as caught:
            plan_of(bottle, facts=HostFacts(auth, NOW))
        assert caught.value.hint == "run `codex login --device-auth` on this machine"
        assert "sk-" not in str(caught.value)

    def test_an_unknown_provider_is_named(self) -> None:
        with pytest.raises(BadManifest, match="there is no provider 'claud'"):
            plan_of({"agent_provider": {"template": "claud"}})


class TestCredentials:
    def test_a_missing_or_broken_token_is_named_by_its_variable(self) -> None:
        plan = plan_of({"egress": {"routes": [{"host": "a.x", "auth": {"scheme": "Bearer", "token_ref": "T"}}]}})
        for environ in ({}, {"T": ""}, {"T": "short"}, {"T": "tok\n"}, {"T": "to ken"}, {"T": "tök"}):
            with pytest.raises(CredentialMissing) as caught:
                credentials.gather(plan, HostFacts(), lambda _: "", environ)
            assert "tok" not in caught.value.message.replace("token", "")

    def test_a_question_is_asked_once_and_the_answer_is_a_secret(self) -> None:
        asked: list[str] = []

        def ask(question: str) -> str:
            asked.append(question)
            return "typed"

        found = credentials.gather(plan_of({"env": {"PIN": "?your pin"}}), HostFacts(), ask, {})
        assert asked == ["your pin"]
        assert found.env == {"PIN": Secret("typed")}


def test_refusals_are_told_once_each_and_not_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    """SV17, LG1."""
    from bottle.starting import MAX_TOLD, Refusals

    tell = Refusals()
    tell({"decision": "allow", "host": "x"})
    for _ in range(3):
        tell({"decision": "deny", "method": "GET", "host": "a\x1b[2J", "path": "/", "reason": "no"})
    for number in range(1000):
        tell({"decision": "deny", "host": f"h{number}"})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "bottle: egress refused GET a\\x1b[2J/: no"
    assert len(lines) == MAX_TOLD + 1
    assert "the audit has each one" in lines[-1]


@pytest.mark.anyio
async def test_what_daemons_say_is_taken_apart_and_bounded(tmp_path: Path) -> None:
    """LG2: decisions to the audit, however cut; the rest to a log that ends."""
    from bottle.bundle_output import MAX_LOG, BundleOutput

    audit, seen, path = MemoryAudit(), list[dict[str, Any]](), tmp_path / "log"
    with path.open("w") as log:
        said = BundleOutput("a-1", {"egress"}, audit, log, seen.append)
        line = b'egress | {"event":"egress","decision":"deny","host":"x","reason":"no"}\n'
        for at in range(len(line)):
            await said.write("stdout", line[at : at + 1])
        await said.write("stdout", b'other | {"event":"egress","decision":"allow"}\nother | {"event":"ready"}\n')
        assert not said.ready.is_set()
        await said.write("stdout", b'egress | {"event":"ready"}\n')
        assert said.ready.is_set()
        for _ in range(40):
            await said.write("stderr", (b"egress | " + b"x" * 1000 + b"\n") * 1000)
    assert len(audit.records) == len(seen) == 1
    assert MAX_LOG < path.stat().st_size < MAX_LOG + 2000
    assert path.read_text().endswith("the audit goes on\n")


@pytest.mark.anyio
async def test_what_an_agent_can_have_audited_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ES7: no audit, no run: the bundle's end is the agent's. What counts is what the log holds."""
    from bottle import bundle_output
    from opsexec.audit import AuditLog
    from opsexec.errors import AuditUnavailable

    monkeypatch.setattr(bundle_output, "MAX_AUDIT", 100_000)
    line = b'egress | {"event":"egress","decision":"deny","reason":"no readable HTTP request"}\n'
    path = tmp_path / "audit.jsonl"
    with (tmp_path / "log").open("w") as log, AuditLog.open(path) as audit:
        said = bundle_output.BundleOutput("a-1", {"egress"}, audit, log, lambda _: None)
        with pytest.raises(AuditUnavailable, match="over 0 MiB"):
            await said.write("stdout", line * 2000)
    assert 50_000 < path.stat().st_size <= 100_000


def test_an_egress_event_becomes_a_record_of_the_audit() -> None:
    from bottle.bundle_output import audited

    audit = MemoryAudit()
    audit.append(audited("a-1", {"decision": "yes", "reason": 3, "host": "x", "method": ["no"]}))
    assert audit.records[0]["decision"] == "deny"
    assert audit.records[0]["step"] == {"type": "egress", "host": "x"}
