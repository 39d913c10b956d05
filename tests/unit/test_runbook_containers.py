"""Containers, images and networks in a runbook: what the YAML becomes, what is refused where, what a check foresees."""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from opsexec.capability import CapabilitySet
from opsexec.errors import BadRunbook, OpsError
from opsexec.runbook import Runbook, RunbookStep, Template, least_capabilities
from opsexec.runbook.container_fields import KEYS, OWN_FIELDS, REQUIRED
from opsexec.runbook.foreseen import Foreseen
from opsexec.runbook.preflight import literal_secrets
from opsexec.runbook.rendering import render_step
from opsexec.runbook.template import SecretMisplaced
from opsexec.runbook.variables import Scope
from opsexec.schema import schema
from opsexec.secret import Secret
from opsexec.secret_source import SecretSource
from opsexec.steps import (
    Attachment,
    ContainerCopyIn,
    ContainerCreate,
    ContainerExec,
    ContainerInspect,
    ContainerList,
    ContainerRemove,
    ContainerRun,
    ContainerStart,
    Exec,
    GivenFile,
    ImageBuild,
    NetworkCreate,
    NetworkRemove,
    Step,
)

HEAD = "name: t\nhosts: all\nvars: { n: web, size: 4096, token: { from_env: T } }\nsteps:\n"
OURS = {"a.b": "c"}
LABELS = "labels: { a.b: c }"


def book(text: str) -> Runbook:
    return Runbook.parse(HEAD + "  - " + text.strip().replace("\n", "\n    ") + "\n", "r.yaml")


def rendered(text: str, **host: Any) -> Step:
    """The step that a runbook's only step becomes on a host."""
    made = book(text)
    jsonschema.Draft202012Validator(schema("runbook")).validate(
        YAML(typ="safe", pure=True).load(HEAD + "  - " + text.strip().replace("\n", "\n    ") + "\n")
    )
    secrets = {value: Secret("tok") for value in made.vars.values() if isinstance(value, SecretSource)}
    scope = Scope(runbook=made.vars, host=host, overrides={}, builtins={"host": "h1"}, secrets=secrets)
    action = made.steps[0].action
    assert isinstance(action, (Step, Template))
    return render_step(action, scope)


def test_a_whole_container_is_written_in_yaml():
    step = rendered(f"""
container.run:
  name: "${{n}}-1"
  image: "shop:${{host}}"
  {LABELS}
  argv: [/bin/app, "--host=${{host}}"]
  env: {{ MODE: fast, TOKEN: "x${{token}}" }}
  stdin: "${{token}}"
  user: "33"
  read_only: {{ /etc/app: "/srv/${{n}}/" }}
  tmpfs: {{ /tmp: "${{size}}", /run: 8192 }}
  volumes: [/data]
  networks: ["${{n}}", {{ network: db, ipv4: 10.0.0.5, aliases: ["${{n}}"] }}]
  dns: [10.0.0.2]
  extra_hosts: {{ db: 10.0.0.3 }}
  cpus: 0.5
  pids: 8
  read_only_root: false
timeout: 30
""")
    assert step == ContainerRun(
        name="web-1",
        image="shop:h1",
        labels=OURS,
        argv=["/bin/app", "--host=h1"],
        env={"MODE": "fast", "TOKEN": Secret("xtok")},
        stdin=Secret("tok"),
        user="33",
        read_only={"/etc/app": "/srv/web/"},
        tmpfs={"/tmp": 4096, "/run": 8192},
        volumes=("/data",),
        networks=(Attachment("web"), Attachment("db", "10.0.0.5", ("web",))),
        dns=("10.0.0.2",),
        extra_hosts={"db": "10.0.0.3"},
        cpus=0.5,
        pids=8,
        read_only_root=False,
        timeout_s=30,
    )


def test_an_image_and_its_files_are_written_in_yaml_and_the_dockerfile_stands_as_it_is():
    step = rendered(f"""
image.build:
  name: shop
  {LABELS}
  build_args: {{ BASE: "debian:${{n}}" }}
  dockerfile: |
    ARG BASE
    FROM ${{BASE}}
  files: {{ etc/host: "${{host}}", bin/go: {{ content: "#!/bin/sh", mode: "0755" }} }}
""")
    assert isinstance(step, ImageBuild)
    assert step.bases() == ("debian:web",)
    assert step.dockerfile == "ARG BASE\nFROM ${BASE}\n"
    assert step.files == (GivenFile("etc/host", "h1"), GivenFile("bin/go", "#!/bin/sh", "0755"))


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("container.inspect: '${n}'", ContainerInspect(name="web")),
        (f"container.start: {{ name: web, {LABELS} }}", ContainerStart(name="web", labels=OURS)),
        (f"container.remove: {{ name: web, {LABELS} }}", ContainerRemove(name="web", labels=OURS)),
        (
            f"container.exec: {{ name: web, {LABELS}, argv: [id, '${{host}}'] }}",
            ContainerExec(name="web", labels=OURS, argv=["id", "h1"]),
        ),
        (
            f"container.copy: {{ name: web, {LABELS}, dest: /data, files: {{ key: '${{token}}' }} }}",
            ContainerCopyIn(name="web", labels=OURS, dest="/data", files=(GivenFile("key", Secret("tok")),)),
        ),
        (
            f"container.list: {{ {LABELS}, kind: networks, names: 'w*' }}",
            ContainerList(labels=OURS, kind="networks", names="w*"),
        ),
        (
            f"network.create: {{ name: web, {LABELS}, subnet: 10.9.0.0/24 }}",
            NetworkCreate(name="web", labels=OURS, subnet="10.9.0.0/24"),
        ),
    ],
)
def test_each_key_is_its_step(text, step):
    assert rendered(text) == step


@pytest.mark.parametrize("key", KEYS)
def test_every_field_of_a_key_is_one_of_its_step_and_the_required_ones_are_said(key):
    kind = KEYS[key].step
    assert set(OWN_FIELDS[kind]) <= set(kind.__struct_fields__)
    assert set(REQUIRED[kind]) <= set(OWN_FIELDS[kind])
    with pytest.raises(BadRunbook, match=r"r\.yaml:5: '.*' is missing"):
        book(f"{key}: {{}}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("container.rum: { name: x }", "r.yaml:5: unknown key 'container.rum'"),
        ("container.remove: { name: x }", "r.yaml:5: 'labels' is missing"),
        ("container.remove: { name: web, labels: {} }", "r.yaml:5: there is no label"),
        (f"container.remove: {{ name: '', {LABELS} }}", "r.yaml:5: container name '' is malformed"),
        (f"container.exec: {{ name: web, {LABELS}, argv: id }}", "r.yaml:5: a list is needed"),
        (f"container.start: {{ name: web, {LABELS} }}\nrun_as: root", "asked by the login itself"),
        (f"container.run: {{ name: web, {LABELS}, image: i }}\nenv: {{ A: b }}", "r.yaml:6: 'env' means nothing"),
        (f"container.run: {{ name: web, {LABELS}, image: i, privileged: true }}", "unknown key 'privileged'"),
        (f"container.run: {{ name: web, {LABELS}, image: i, tmpfs: {{ /tmp: 1G }} }}", "r.yaml:5: a number is needed"),
        (
            f"container.run: {{ name: web, {LABELS}, image: i, networks: [{{ net: x }}] }}",
            "r.yaml:5: unknown key 'net'",
        ),
        (f"container.run: {{ name: web, {LABELS}, image: i, networks: [host] }}", "'host' is no container network"),
        (f"container.list: {{ {LABELS}, kind: pods }}", "r.yaml:5: kind 'pods' can't be listed"),
        (f"network.create: {{ name: n1, {LABELS}, subnet: 8.0.0.0/8 }}", "r.yaml:5: subnet 8.0.0.0/8 is not private"),
        (f"image.build: {{ name: i, {LABELS}, dockerfile: 'FROM ${{B}}' }}", "r.yaml:5: the Dockerfile's FROM needs B"),
        (
            f"image.build: {{ name: i, {LABELS}, dockerfile: FROM b, files: {{ a: {{ mode: '7' }} }} }}",
            "'content' is missing",
        ),
    ],
)
def test_what_makes_no_step_is_refused_with_its_line(text, said):
    with pytest.raises(BadRunbook) as caught:
        book(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"container.run: {{ name: web, {LABELS}, image: i, argv: ['${{token}}'] }}",
        f"container.run: {{ name: web, {LABELS}, image: i, read_only: {{ /a: '/${{token}}' }} }}",
        f"container.run: {{ name: web, {LABELS}, image: i, networks: [{{ network: n, aliases: ['${{token}}'] }}] }}",
        "container.remove: { name: web, labels: { a.b: '${token}' } }",
        f"image.build: {{ name: i, {LABELS}, dockerfile: FROM b, build_args: {{ T: '${{token}}' }} }}",
    ],
)
def test_a_secret_is_refused_wherever_the_engine_would_show_it(text):
    with pytest.raises(SecretMisplaced):
        book(text)


@pytest.mark.parametrize(
    "text",
    [
        f"container.create: {{ name: web, {LABELS}, image: i, env: {{ T: '${{token}}' }} }}",
        f"image.build: {{ name: i, {LABELS}, dockerfile: FROM b, files: {{ a: '${{token}}' }} }}",
        f"container.copy: {{ name: web, {LABELS}, dest: /d, files: {{ a: {{ content: x, mode: '${{token}}' }} }} }}",
    ],
)
def test_a_secret_that_would_stay_on_the_engine_makes_no_step(text):
    with pytest.raises(OpsError, match=r"Secret|secret"):
        rendered(text)


def test_secrets_that_stand_in_a_step_made_in_python_are_found_to_be_masked():
    copied = Template(ContainerCopyIn, name="web", labels=OURS, dest="/d", files={"a": {"content": Secret("one")}})
    made = ContainerCopyIn(name="web", labels=OURS, dest="/d", files=(GivenFile("a", Secret("two")),))
    runbook = Runbook(name="t", hosts="all", steps=[RunbookStep(copied), RunbookStep(made)])
    assert list(literal_secrets(runbook)) == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        (
            f"container.create: {{ name: 'a-${{host}}', image: '${{i}}', {LABELS}, networks: ['${{x}}', '${{y}}'] }}",
            ["container.run:a-*", "image.read:*", "network.join:*"],
        ),
        (
            f"container.run: {{ name: web, image: 'i:${{n}}', {LABELS}, user: '${{u}}',"
            " writable: { /d: '/d/${h}/' }, read_only: { /c: '/c/${h}' } }",
            ["container.run:web", "fs.read:/c/*", "fs.read:/d/*/**", "fs.write:/d/*/**", "image.read:i:web"],
        ),
        (f"container.signal: {{ name: web, {LABELS}, signal: '${{s}}' }}", ["container.remove:web"]),
        (f"container.copy: {{ name: web, {LABELS}, dest: '${{d}}', files: {{ a: b }} }}", ["container.copy:web"]),
        (f"container.list: {{ {LABELS} }}", ["container.read:*"]),
        (
            f"container.list: {{ {LABELS}, kind: '${{k}}' }}",
            ["container.read:*", "image.read:*", "network.manage:*"],
        ),
        (
            f"image.build: {{ name: 'i:${{v}}', {LABELS}, build_args: {{ B: '${{b}}' }}, context: '/srv/${{h}}/',"
            ' dockerfile: "ARG B\\nFROM ${B}", network: "${n}" }',
            ["fs.read:/srv/*/**", "image.build:i:*", "image.read:*", "network.join:web"],
        ),
        (f"network.remove: {{ name: 'n-${{host}}', {LABELS} }}", ["network.manage:n-*"]),
    ],
)
def test_the_least_that_a_step_needs(text, needs):
    assert least_capabilities(book(text)) == needs


def create(**more: Any) -> ContainerCreate:
    return ContainerCreate(name="web", image="shop", labels=OURS, **more)


def test_a_check_foresees_what_stands_on_what_it_did_not_make():
    foreseen = Foreseen()
    later = [
        create(networks=(Attachment("net"),)),
        ContainerStart(name="web", labels=OURS),
        ContainerExec(name="web", labels=OURS, argv=["id"]),
        ContainerList(labels=OURS),
        ContainerInspect(name="web"),
    ]
    assert [foreseen.waits_for(step) for step in later] == [None] * 5
    foreseen.took(NetworkCreate(name="net", labels=OURS))
    assert [foreseen.waits_for(step) for step in later] == ["network net", None, None, None, None]
    foreseen.took(later[0])
    assert [foreseen.waits_for(step) for step in later] == ["container web"] * 5
    assert foreseen.waits_for(ContainerInspect(name="other")) is None
    assert foreseen.waits_for(Exec(["/bin/id"])) is None


def test_an_image_without_a_tag_is_the_latest():
    foreseen = Foreseen()
    foreseen.took(ImageBuild(name="shop:latest", dockerfile="FROM b", labels=OURS))
    assert foreseen.waits_for(create()) == "image shop:latest"
    assert foreseen.waits_for(ImageBuild(name="x", dockerfile="FROM shop", labels=OURS)) == "image shop:latest"
    assert foreseen.waits_for(ContainerRun(name="r1", image="shop:1", labels=OURS)) is None


def test_what_is_foreseen_to_be_gone_is_not_removed_twice():
    foreseen = Foreseen()
    gone = NetworkRemove(name="net", labels=OURS)
    assert not foreseen.finds_nothing(gone)
    foreseen.took(gone)
    assert foreseen.finds_nothing(gone)
    foreseen.took(NetworkCreate(name="net", labels=OURS))
    assert not foreseen.finds_nothing(gone)


FIELDS = sorted({name for fields in OWN_FIELDS.values() for name in fields} | {"network", "aliases", "content", "mode"})
TEXTS = ["web", "${n}", "${x.y}", "${token}", "/a", "a.b", "10.0.0.5", "FROM b", "${", "networks", "SIGHUP", "$${"]
trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, *TEXTS]), inner, max_size=4),
    max_leaves=10,
)


@st.composite
def actions(draw: st.DrawFn) -> dict[str, Any]:
    """A step with all that it must have, and whatever else: some of it makes sense."""
    key = draw(st.sampled_from(sorted(KEYS)))
    kind = KEYS[key].step
    usual: dict[str, Any] = {"labels": {"a.b": "c"}, "argv": ["x"], "files": {"a": "b"}}
    fields = {name: usual.get(name, "web") for name in REQUIRED[kind]}
    fields |= draw(st.dictionaries(st.sampled_from(sorted(OWN_FIELDS[kind])), trees, max_size=3))
    return {key: draw(st.just(fields) | trees)}


@given(st.lists(actions(), min_size=1, max_size=3))
def test_any_tree_is_a_runbook_whose_needs_can_be_told_or_a_bad_runbook(steps):
    said = "r.yaml:"
    head = {"name": "t", "hosts": "all", "vars": {"n": "web", "token": {"from_env": "T"}}}
    try:
        least_capabilities(Runbook.parse(json.dumps({**head, "steps": steps}), "r.yaml"))
    except BadRunbook as error:
        said = error.message
    assert said.startswith("r.yaml:")


texts = st.sampled_from(["web", "${n}", "a-${h}", "${h}${h}", "x.${n}", "lib/${h}"])
paths = st.sampled_from(["/a", "/srv/${n}/", "/${h}", "${p}", "/srv/${h}/x", "${p}/", "/a b"])


@given(texts, texts, st.lists(texts, max_size=3), paths, paths, texts)
def test_what_is_listed_for_a_template_admits_what_a_host_makes_of_it(name, image, networks, read, written, base):
    shape = {"name": name, "image": image, "labels": OURS, "networks": networks}
    templates = [
        Template(ContainerRun, **shape, read_only={"/r": read}, writable={"/w": written}),
        Template(ContainerExec, name=name, labels=OURS, argv=[image]),
        Template(ContainerList, labels=OURS, names=name, kind="${kind}"),
        Template(ImageBuild, name=image, labels=OURS, dockerfile="ARG A\nFROM ${A}", build_args={"A": base}),
        Template(ImageBuild, name=image, labels=OURS, dockerfile="FROM b", context=read, network=name),
        Template(NetworkCreate, name=name, labels=OURS),
    ]
    known = {"h": "h1", "p": "/srv/p", "kind": "networks"}
    scope = Scope(runbook={"n": "web"}, host=known, overrides={}, builtins={}, secrets={})
    for template in templates:
        runbook = Runbook(name="t", hosts="all", vars={"n": "web"}, steps=[RunbookStep(template)])
        held = CapabilitySet.of(*least_capabilities(runbook))
        try:
            needs = render_step(template, scope).requires()
        except OpsError:
            continue  # no such step can be
        assert [str(need) for need in needs if not held.admits(need)] == []
