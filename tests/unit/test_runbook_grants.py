from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError
from opsexec.inventory import InventoryHost
from opsexec.runbook import Assert, Runbook, RunbookStep, Template, grants, least_capabilities
from opsexec.runbook.fields import REQUIRED
from opsexec.runbook.grants import users
from opsexec.runbook.rendering import render_step
from opsexec.runbook.variables import Scope
from opsexec.steps import (
    Attachment,
    ContainerCopyIn,
    ContainerCreate,
    ContainerExec,
    ContainerInspect,
    ContainerList,
    ContainerLogs,
    ContainerRemove,
    ContainerRun,
    ContainerSignal,
    ContainerStart,
    ContainerStop,
    Exec,
    Facts,
    GivenFile,
    ImageBuild,
    ImageInspect,
    ImageRemove,
    Link,
    MakeDir,
    NetworkCreate,
    NetworkRemove,
    Pull,
    Push,
    ReadFile,
    RemoveFile,
    ServiceControl,
    ServiceStatus,
    SetMode,
    Shell,
    Stat,
    Step,
    WriteFile,
)

HEAD = "name: t\nhosts: all\nvars: { root: /srv/app, version: '1.2' }\nsteps:\n"


def least(*steps: str) -> list[str]:
    return least_capabilities(Runbook.parse(HEAD + "".join(f"  - {{ {step} }}\n" for step in steps)))


@pytest.mark.parametrize(
    ("step", "needs"),
    [
        ("exec: [/usr/bin/uptime, -p]", ["exec:/usr/bin/uptime -p"]),
        ("exec: [/bin/sh, -c, 'a b']", ["exec:/bin/sh -c 'a b'"]),
        ("exec: [/bin/x, '${version}', '${host}']", ["exec:/bin/x 1.2 *"]),
        ("exec: ['${tool}', a]", ["exec:**"]),
        ("exec: ['${root}/bin/x']", ["exec:/srv/app/bin/x"]),
        ("exec: ['${home}/bin/x']", ["exec:/**/bin/x"]),
        ("write: { path: '${root}/x', content: a }", ["fs.write:/srv/app/x"]),
        ("write: { path: '/srv/${host}/x', content: '${anything}', mode: '${m}' }", ["fs.write:/srv/*/x"]),
        ("write: { path: '/srv/${a}${b}.conf', content: x }", ["fs.write:/srv/*.conf"]),
        ("remove: '${base}'", ["fs.remove:/**"]),
        ("remove: { path: /x/a, recursive: true }", ["fs.remove:/x/a/**"]),
        ("mode: { path: '/x/${a}', mode: '${m}' }", ["fs.write:/x/*"]),
        ("link: { path: '${root}/current', target: '${x}' }", ["fs.write:/srv/app/current"]),
        ("mode: { path: /x, owner: '${x}' }", ["fs.write:/x"]),
        ("push: { src: ./site, dest: '/srv/${host}' }", ["sync.push:/srv/*/**"]),
        ("service: { name: 'app@${host}', action: restart }", ["service.control:app@*"]),
        ("service: { name: web, action: status }", ["service.read:web"]),
        ("facts: [os]", ["facts:os"]),
        ("facts: ['${which}']", ["facts:*"]),
        ("assert: '${host} == a'", []),
        (
            "exec: [/bin/x], env: { LD_PRELOAD: '${a}' }, creates: /y",
            ["env:LD_PRELOAD", "exec:/bin/x", "fs.read:/y"],
        ),
        ("exec: [/bin/x], creates: '${home}/y'", ["exec:/bin/x", "fs.read:/**/y"]),
        ("exec: ['${home}/b', '${b}${c}', 'x${b}*']", ["exec:/**/b * x*"]),
        ("pull: { src: '${home}/y', dest: ./y }", ["sync.pull:/**/y/**"]),
        ("push: { src: x, dest: /srv/ }", ["sync.push:/srv/**"]),
        ("remove: { path: /x/a, recursive: false }", ["fs.remove:/x/a"]),
        ("read: { path: '/a/${root}' }", ["fs.read:/a/srv/app"]),
        (
            "container.run: { name: 'w-${host}', image: 'i:${version}', labels: { a: b }, env: { A: '${host}' }, "
            "read_only: { /etc: '${home}/e' }, writable: { /d: '${root}/d' }, networks: ['${host}', { network: db }] }",
            [
                *("container.run:w-*", "fs.read:/**/e", "fs.read:/srv/app/d", "fs.write:/srv/app/d"),
                *("image.read:i:1.2", "network.join:*", "network.join:db"),
            ],
        ),
        ("container.signal: { name: web, labels: { a: b }, signal: SIGHUP }", ["container.remove:web"]),
    ],
)
def test_the_least_that_a_step_needs(step, needs):
    assert least(step) == needs


def test_a_script_is_pinned():
    (text,) = least("shell: { action: a.b, script: 'echo $x' }")
    assert text == f"shell:a.b@sha256:{hashlib.sha256(b'echo $x').hexdigest()}"
    (text,) = least("shell: { action: 'a.${host}', script: 'echo ${x}' }")
    assert text == f"shell:a.*@sha256:{hashlib.sha256(b'echo ${x}').hexdigest()}"


NETWORKS = (Attachment("net"),)
OURS = {"a": "b"}
WHOLE: list[Step] = [
    Exec(["/bin/x"]), Shell("a.b", "x"), ReadFile("/a"), Stat("/a"), WriteFile("/a", content=""), MakeDir("/a"),
    Link("/a", "/b"), SetMode("/a", mode="0755"), RemoveFile("/a"), Push("x", "/a"), Pull("/a", "x"),
    ServiceControl(name="web", action="restart"), ServiceStatus(name="web"), Facts(("os",)),
    ContainerRun(name="web", image="i", labels=OURS, read_only={"/a": "/b"}, writable={"/c": "/d"}, networks=NETWORKS),
    ContainerCreate(name="web", image="i", labels=OURS, read_only={"/a": "/b"}, writable={"/c": "/d"}),
    ContainerStart(name="web", labels=OURS), ContainerStop(name="web", labels=OURS),
    ContainerRemove(name="web", labels=OURS), ContainerSignal("SIGHUP", name="web", labels=OURS),
    ContainerExec(["/bin/x"], name="web", labels=OURS),
    ContainerCopyIn("/a", (GivenFile("x", "y"),), name="web", labels=OURS), ContainerInspect(name="web"),
    ContainerLogs(name="web"), ContainerList(OURS), ContainerList(OURS, kind="images"),
    ContainerList(OURS, kind="networks"), ImageBuild("FROM x", OURS, name="shop", network="net"),
    ImageInspect(name="i"), ImageRemove(name="i", labels=OURS), NetworkCreate(name="net", labels=OURS),
    NetworkRemove(name="net", labels=OURS),
]  # fmt: skip


def test_where_no_step_can_be_guessed_every_verb_of_its_kind_is_asked_for() -> None:
    """As where a variable names the `facts`: what stands for its value is no step of that kind."""
    assert {type(step) for step in WHOLE} == set(REQUIRED)
    for step in WHOLE:
        guessed = Template(type(step), **dict.fromkeys(REQUIRED[type(step)], "x"))
        asked = {need.verb for need in grants._widest(guessed)}
        assert {need.verb for need in step.requires()} <= asked, step
    with_more = Template(Exec, argv=["x"], env={"LANG": "C", "PATH": "/b"}, creates="/a")
    assert [*map(str, grants._widest(with_more))] == ["exec:**", "fs.read:/**", "env:PATH"]


def test_a_bare_program_stands_for_each_place_it_is_looked_for():
    assert "exec:/usr/bin/id -u" in least("exec: [id, -u]")
    assert len(least("exec: [id, -u]")) == 6


def test_users_are_listed_beside():
    book = Runbook.parse(HEAD + "  - { exec: [id], run_as: web }\n  - { exec: [id, '${host}'], run_as: '${who}' }\n")
    assert users(book) == ["*", "web"]
    book = Runbook(name="t", hosts="all", steps=[RunbookStep(Exec(["id"], run_as="db")), RunbookStep(Exec(["id"]))])
    assert users(book) == ["db"]
    assert users(Runbook.parse(HEAD + "  - { exec: [id, '${host}'] }\n")) == []


words = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
paths = st.lists(words, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def made(kind, *args, **fields) -> Step | None:
    try:
        step: Step = kind(*args, **fields)
        step.requires()
    except OpsError:
        return None
    return step


steps = st.one_of(
    st.lists(words, max_size=4).map(lambda rest: made(Exec, ["/usr/bin/x", *rest])),
    words.map(lambda name: made(Exec, [name])),
    paths.map(lambda path: made(ReadFile, path=path)),
    paths.map(lambda path: made(RemoveFile, path=path)),
    paths.map(lambda path: made(Push, "x", path)),
    words.map(lambda name: made(ServiceStatus, name=name)),
    words.map(lambda text: made(Shell, "a", text)),
).filter(lambda step: step is not None)


@given(st.lists(steps, min_size=1, max_size=4))
def test_what_is_listed_is_valid_and_admits_every_step(given_steps):
    book = Runbook(name="t", hosts="all", steps=[RunbookStep(step) for step in given_steps])
    held = CapabilitySet.of(*least_capabilities(book))
    for step in given_steps:
        for need in step.requires():
            assert held.admits(need), need


@given(words.filter(lambda w: "/" not in w and w not in ("", ".", "..")), words)
def test_what_is_listed_for_a_template_admits_what_a_host_makes_of_it(name, word):
    actions = [
        Template(WriteFile, path="/srv/${name}/x", content="${word}"),
        Template(Exec, argv=["/usr/bin/x", "--n=${name}", "${word}"]),
        Template(MakeDir, path="/srv/a-${name}"),
    ]
    book = Runbook(name="t", hosts="all", steps=[RunbookStep(action) for action in actions])
    held = CapabilitySet.of(*least_capabilities(book))
    scope = Scope(runbook={}, host={"name": name, "word": word}, overrides={}, builtins={}, secrets={})
    for action in actions:
        for need in render_step(action, scope).requires():
            assert held.admits(need), need


def test_a_variable_with_a_hosts_value_in_it_is_widened_only_there():
    """`${root}` would otherwise be any path at all: a runbook that writes below it asked for all of a host."""
    head = "name: t\nhosts: all\nvars: { root: '/srv/${host}', rel: '${root}/${v}', a: '${b}', b: '${a}' }\nsteps:\n"
    steps = "  - mkdir: '${root}'\n  - write: { path: '${rel}/x', content: a }\n  - exec: [/bin/ls, '${rel}']\n"
    book = Runbook.parse(head + steps)
    assert least_capabilities(book) == ["exec:/bin/ls /srv/*/*", "fs.write:/srv/*", "fs.write:/srv/*/*/x"]
    circle = Runbook.parse(head + "  - write: { path: '${a}/x', content: a }\n")
    assert least_capabilities(circle) == ["fs.write:/**/x"]


def test_a_host_that_grants_the_list_runs_the_runbook():
    book = Runbook.parse(HEAD + "  - exec: [/usr/bin/id]\n  - write: { path: '${root}/a', content: x }\n")
    host = InventoryHost(name="a", url="local:", capabilities=tuple(least_capabilities(book)))
    for _, step in book.all_steps():
        scope = Scope(runbook=book.vars, host={}, overrides={}, builtins={}, secrets={})
        assert not isinstance(step.action, Assert)
        for need in render_step(step.action, scope).requires():
            assert host.capability_set().admits(need)
