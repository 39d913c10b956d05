from __future__ import annotations

import json
import re
import textwrap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsexec.errors import BadRunbook
from opsexec.runbook import Assert, Retry, Runbook, RunbookStep, Template, Tier
from opsexec.runbook.template import SecretMisplaced
from opsexec.secret_source import SecretSource
from opsexec.steps import Exec, MakeDir, Push, ServiceControl, ServiceStatus, Shell, WriteFile

HEAD = "name: t\nhosts: all\n"
DOCUMENTED = r"""
name: hello
hosts: web                       # pattern: name, group, glob, !not, &and
capabilities: ["exec:/usr/bin/uptime", "fs.write:/srv/hello/**", "shell:hello.*"]
vars: { greeting: hi }
tiers: [ { hosts: "&dev" }, { hosts: "&prod", serial: [1, "25%", "100%"], approve: true } ]   # optional
steps:
  - name: is it up
    exec: [/usr/bin/uptime]
  - write: { path: /srv/hello/motd, content: "${greeting}\n", mode: "0644" }
  - shell: { action: hello.restart, script: "set -e; echo \"$greeting\"" }
    when: changed
    retry: { times: 3, delay: 2 }
    timeout: 30
    register: out
  - push: { src: ./site/, dest: /srv/site/, delete: true }
  - assert: { that: "${out.exit_code} == 0", message: "..." }
always: [ { exec: [/usr/bin/id] } ]
"""


def parse(text: str) -> Runbook:
    return Runbook.parse(textwrap.dedent(text), "r.yaml")


def action(text: str) -> Any:
    return step(text).action


def step(text: str) -> RunbookStep:
    lines = "\n".join("    " + line for line in textwrap.dedent(text).strip("\n").splitlines())
    return parse(f"{HEAD}steps:\n  -\n{lines}\n").steps[0]


def refused(text: str) -> BadRunbook:
    with pytest.raises(BadRunbook) as caught:
        parse(text)
    return caught.value


def refused_step(text: str) -> BadRunbook:
    with pytest.raises(BadRunbook) as caught:
        step(text)
    return caught.value


def test_the_documented_runbook_is_read_and_is_the_one_written_in_python(tmp_path):
    (tmp_path / "r.yaml").write_text(DOCUMENTED)
    loaded = Runbook.load(tmp_path / "r.yaml")
    made = Runbook(
        name="hello",
        hosts="web",
        capabilities=["exec:/usr/bin/uptime", "fs.write:/srv/hello/**", "shell:hello.*"],
        vars={"greeting": "hi"},
        tiers=[Tier("&dev"), Tier("&prod", serial=[1, "25%", "100%"], approve=True)],
        steps=[
            RunbookStep(Exec(["/usr/bin/uptime"]), name="is it up"),
            RunbookStep(Template(WriteFile, path="/srv/hello/motd", content="${greeting}\n", mode="0644")),
            RunbookStep(
                Shell("hello.restart", 'set -e; echo "$greeting"', timeout_s=30.0),
                when="changed",
                retry=Retry(3, 2),
                register="out",
            ),
            RunbookStep(Push(f"{tmp_path}/site/", "/srv/site/", delete=True)),
            RunbookStep(Assert("${out.exit_code} == 0", message="...")),
        ],
        always=[RunbookStep(Exec(["/usr/bin/id"]))],
    )
    assert loaded == made
    assert loaded.digest == made.digest


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_key():
    error = refused(f"{HEAD}steps:\n  - exec: [id]\n    regster: x\n")
    assert error.message == "r.yaml:5: unknown key 'regster'"
    assert error.hint == "did you mean 'register'?"


def test_a_key_that_stands_twice_is_refused():
    error = refused(f"{HEAD}steps:\n  - exec: [id]\n    exec: [ls]\n")
    assert error.message == "r.yaml:5: key 'exec' stands twice (first in line 4)"


def test_exec_as_one_text_is_refused_with_a_hint():
    error = refused_step("exec: systemctl restart web")
    assert error.message == "r.yaml:5: exec is one text"
    assert "list of words" in str(error.hint)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("exec: []", "r.yaml:5: argv is empty"),
        ("exec: [./x]", "r.yaml:5: argv[0] './x' is relative"),
        ("write: { path: x, content: y }", "r.yaml:5: path 'x': not an absolute path"),
        ("write: { path: /x }", "r.yaml:5: 'content' is missing"),
        ("write: { path: /x, content: a, mode: rwx }", "r.yaml:5: mode 'rwx' is not octal"),
        ("remove: /", "r.yaml:5: refusing to remove /"),
        ("service: { name: x, action: bounce }", "r.yaml:5: unknown service action 'bounce'"),
        ("shell: { action: a b, script: x }", "r.yaml:5: action 'a b' is not a name"),
        ("shell: { action: a, script: x, interpreter: /bin/zsh }", "r.yaml:5: the interpreter"),
        ("shell: { action: a, script: x, sha256: 00 }", "r.yaml:5: the script of a has sha256"),
        ("facts: [oss]", "r.yaml:5: unknown name 'oss'"),
        ("exec: [id]\nshell: { action: a, script: b }", "r.yaml:5: a step does exec and shell at once"),
        ("name: x", "r.yaml:5: a step does nothing"),
        ("stat: /x\nenv: { A: b }", "r.yaml:6: 'env' means nothing"),
        ("assert: '${x} == 1'\ntimeout: 3", "r.yaml:6: 'timeout' means nothing"),
        ("exec: [id]\nwhen: prod", "r.yaml:5: the word 'prod' alone is no condition"),
        ("exec: [id]\nretry: { times: 0 }", "r.yaml:6: retry.times"),
        ("exec: [id]\nretry: { times: 2, dealy: 1 }", "r.yaml:6: unknown key 'dealy'"),
        ("exec: [id]\ntimeout: soon", "r.yaml:6: a number is needed"),
        ("exec: [id]\ntimeout: .inf", "r.yaml:6: a number is needed, not '.inf'"),
        (
            "exec: [id]\nretry: { times: 99999999999999999999 }",
            "r.yaml:6: a number is needed, not '99999999999999999999'",
        ),
        ("exec: [id]\ntimeout: -1", "r.yaml:5: timeout -1.0 is not"),
        ("exec: [id]\nregister: host", "r.yaml:5: the variable 'host' is set by the engine"),
        ("exec: [id, '${a']", "r.yaml:5: malformed reference"),
        ("exec: [id]\nname: 'a ${b}'", "r.yaml:5: the step name"),
        ("push: { src: a, dest: /b, delete: maybe }", "r.yaml:5: true or false is needed"),
        ("exec: [id]\ncreates: rel", "r.yaml:5: path 'rel': not an absolute path"),
        ("exec: [id]\nenv: { A-B: x }", "r.yaml:5: environment name 'A-B'"),
    ],
)
def test_what_is_wrong_in_a_step_is_said_with_its_line(text, says):
    assert refused_step(text).message.startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "r.yaml:1: the runbook is empty"),
        ("- a\n", "r.yaml:1: a map is needed, not a list"),
        ("name: x\nhosts: all\n", "r.yaml:1: 'steps' is missing"),
        (f"{HEAD}steps: []\n", "r.yaml:1: a runbook has 1 to"),
        (f"{HEAD}steps: [{{exec: [id]}}]\n---\nname: y\n", "r.yaml:4: a second document"),
        (f"{HEAD}steps: [\n", "r.yaml:4: not YAML"),
        (f"{HEAD}steps: [{{exec: [id]}}]\nvars: {{host: x}}\n", "r.yaml:4: the variable 'host'"),
        (
            f"{HEAD}steps: [{{exec: [id]}}]\nvars: {{a: {{b: {{from_env: X}}}}}}\n",
            "r.yaml:4: a secret stands inside",
        ),
        (f"{HEAD}steps: [{{exec: [id]}}]\ncapabilities: ['exce:**']\n", "r.yaml:4: unknown verb 'exce'"),
        (f"{HEAD}steps: [{{exec: [id]}}]\ntiers: [{{hosts: a, serial: '0%'}}]\n", "r.yaml:4: serial '0%'"),
        (
            f"{HEAD}steps: [{{exec: [id]}}]\ntiers: [{{hosts: a, serial: '25'}}]\n",
            "r.yaml:4: '25' is neither",
        ),
        (f"{HEAD}steps: [!!python/object/apply:os.system {{exec: [id]}}]\n", "r.yaml:3: a YAML tag"),
        (f"{HEAD}vars: {{a: 1}}\nsteps: [{{exec: [id], register: a}}]\n", "r.yaml:1: register 'a'"),
    ],
)
def test_what_is_wrong_in_a_runbook_is_said_with_its_line(text, says):
    assert refused(text).message.startswith(says)


def test_unquoted_numbers_are_taken_as_they_are_written():
    assert action("write: { path: /x, content: 1.10, mode: 0644 }") == WriteFile(path="/x", content="1.10", mode="0644")
    assert action("exec: [sleep, 010]") == Exec(["sleep", "010"])


def test_a_variable_that_only_looks_like_a_number_stays_as_it_is_written():
    text = "name: t\nhosts: all\nsteps: [{ exec: [id] }]\nvars: { v: 1.10, sha: 1234e56, l: [+5], n: 5, f: 1.5 }"
    assert Runbook.parse(text).vars == {"v": "1.10", "sha": "1234e56", "l": ["+5"], "n": 5, "f": 1.5}


def test_a_list_of_known_keys_says_when_it_is_not_all_of_them():
    assert re.search(r" and \d+ more$", str(refused_step("command: ls").hint))


def test_short_forms_stand_for_their_one_field():
    assert action("read: /etc/hostname").path == "/etc/hostname"
    assert action("mkdir: /srv/${x}") == Template(MakeDir, path="/srv/${x}")
    assert action("facts: all").names == ()
    assert action("service: { name: web, action: restart }") == ServiceControl(name="web", action="restart")
    assert action("service: { name: web, action: status }") == ServiceStatus(name="web")


def test_common_keys_reach_the_step():
    made = step("exec: [id]\nrun_as: web\ncwd: /srv\nenv: { A: b }\nstdin: x\ncreates: /y\ntimeout: 3\ntags: [a]\n")
    assert made.action == Exec(["id"], run_as="web", cwd="/srv", env={"A": "b"}, stdin="x", creates="/y", timeout_s=3.0)
    assert made.tags == ("a",)


def test_a_script_is_kept_byte_for_byte():
    script = 'echo "${not_ours}" $${x} `y`\n\ttab'
    made = Runbook.parse(
        f"{HEAD}steps:\n  - shell:\n      action: a\n      script: |-\n        "
        + script.replace("\n", "\n        ")
        + "\n"
    )
    shell: Any = made.steps[0].action
    assert shell.script == script


def test_local_paths_are_relative_to_the_file_and_keep_their_slash(tmp_path):
    (tmp_path / "r.yaml").write_text(
        f"{HEAD}steps:\n  - push: {{ src: ./site/, dest: /a }}\n  - pull: {{ src: /a, dest: ../out }}\n"
    )
    push: Any
    pull: Any
    push, pull = (s.action for s in Runbook.load(tmp_path / "r.yaml").steps)
    assert push.src == f"{tmp_path}/site/"
    assert pull.dest == f"{tmp_path.parent}/out"


def test_secret_variables_are_sources_not_values():
    made = parse(f"{HEAD}vars: {{ t: {{ from_env: TOKEN }}, p: {{ prompt: Password }} }}\nsteps: [{{exec: [id]}}]\n")
    assert made.vars == {"t": SecretSource(from_env="TOKEN"), "p": SecretSource(prompt="Password")}


@pytest.mark.parametrize(
    "text",
    [
        "exec: [id, '${t}']",
        "exec: [id, 'x=${derived}']",
        "write: { path: '/x/${t}', content: a }",
        "service: { name: '${t}', action: start }",
        "exec: [id]\ncwd: /${t}",
        "exec: [id]\nwhen: ${t} == x",
        "assert: { that: 'true', message: '${t}' }",
        "assert: '${t} == x'",
    ],
)
def test_a_secret_in_an_open_place_is_refused_when_the_runbook_is_loaded(text):
    head = f"{HEAD}vars: {{ t: {{ from_env: TOKEN }}, derived: 'b ${{t}}' }}\n"
    lines = "\n".join("    " + line for line in text.splitlines())
    with pytest.raises(SecretMisplaced) as caught:
        parse(f"{head}steps:\n  -\n{lines}\n")
    assert caught.value.message.startswith("r.yaml:6:")


@pytest.mark.parametrize(
    "text",
    ["exec: [id]\nenv: { T: '${t}' }", "exec: [id]\nstdin: 'x ${t}'", "write: { path: /x, content: '${t}' }"],
)
def test_a_secret_may_stand_in_env_stdin_and_content(text):
    lines = "\n".join("    " + line for line in text.splitlines())
    parse(f"{HEAD}vars: {{ t: {{ from_env: TOKEN }} }}\nsteps:\n  -\n{lines}\n")


def test_an_alias_bomb_is_refused_quickly():
    levels = "\n".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    error = refused(f"{HEAD}steps: [{{exec: [id]}}]\nvars:\n  a0: &a0 [x, x]\n{levels}\n")
    assert "written out" in error.message


def test_deep_nesting_and_large_files_are_refused():
    assert "nested over" in refused("a: " + "[" * 3000).message
    assert "KiB" in refused("# " + "x" * 600_000).message


def test_an_alias_may_share_plain_values():
    made = parse(f"{HEAD}steps:\n  - exec: &a [id]\n  - exec: *a\n")
    assert made.steps[0].action == made.steps[1].action


def test_a_missing_or_binary_file_is_a_bad_runbook(tmp_path):
    with pytest.raises(BadRunbook, match="can't be read"):
        Runbook.load(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"name: x\n\xff\n")
    with pytest.raises(BadRunbook, match=r"b\.yaml:2: not UTF-8"):
        Runbook.load(tmp_path / "b.yaml")


def test_the_digest_is_of_what_is_said_not_of_how():
    assert parse(f"{HEAD}steps: [{{exec: [id]}}]").digest == parse(f"# hi\n{HEAD}steps:\n - exec:\n   - id\n").digest
    assert parse(f"{HEAD}steps: [{{exec: [id]}}]").digest != parse(f"{HEAD}steps: [{{exec: [ls]}}]").digest
    env = [parse(f"{HEAD}steps: [{{exec: [id], env: {{A: {v}}}}}]").digest for v in "xy"]
    assert env[0] != env[1]


@given(st.text(max_size=120))
def test_any_text_is_a_runbook_or_a_bad_runbook(text):
    said = "r.yaml:"
    try:
        Runbook.parse(text, "r.yaml")
    except BadRunbook as error:
        said = error.message
    assert said.startswith("r.yaml:")


@given(st.text(alphabet=" \n-:[]{},&*!|>'\"%@`#?abx0$\t", max_size=120))
def test_any_markup_is_a_runbook_or_a_bad_runbook(text):
    said = "r.yaml:"
    try:
        Runbook.parse(HEAD + text, "r.yaml")
    except BadRunbook as error:
        said = error.message
    assert said.startswith("r.yaml:")


KEYS = [
    "name",
    "hosts",
    "steps",
    "vars",
    "tiers",
    "always",
    "exec",
    "shell",
    "write",
    "path",
    "content",
    "when",
    "retry",
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(KEYS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=6))
def test_any_tree_is_a_runbook_or_a_bad_runbook(tree):
    said = "r.yaml:1:"
    try:
        Runbook.parse(json.dumps(tree), "r.yaml")
    except BadRunbook as error:
        said = error.message
    assert said.startswith("r.yaml:1:")
