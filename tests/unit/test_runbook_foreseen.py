"""A check goes on over files that an earlier step would only make, and says what the run then does."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from opsexec import Inventory, Runbook
from opsexec.inventory import InventoryHost
from opsexec.runbook import Report
from opsexec.runbook.progress import Event, SilentProgress, StepFinished

pytestmark = pytest.mark.anyio


class Diffs(SilentProgress):
    """Keeps what the steps of a run would change in files."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.diff is not None:
            self.texts.append(event.diff)


class Scene:
    """Runbooks on this machine itself, in a directory of the test's own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.diffs = Diffs()

    async def run(self, steps: str, *, check: bool) -> Report:
        head = f"name: t\nhosts: all\nvars: {{ at: {self.place}/at }}\nsteps:\n"
        text = head + textwrap.indent(textwrap.dedent(steps), "  ")
        book = Runbook.parse(text, str(self.place / "book.yaml"))
        hosts = Inventory([InventoryHost(name="a", url="local:")])
        return await book.run(hosts, check=check, diff=True, progress=self.diffs)

    async def agrees(self, steps: str) -> list[str]:
        """The statuses that a check foresees, which are those of the run that follows."""
        before = sorted(self.place.rglob("*"))
        foreseen = await self.run(steps, check=True)
        assert sorted(self.place.rglob("*")) == before
        made = await self.run(steps, check=False)
        assert _told(foreseen) == _told(made)
        return _told(foreseen)


def _told(report: Report) -> list[str]:
    assert report.hosts["a"].status in ("changed", "ok"), [step.error for step in report.hosts["a"].steps]
    return [step.status for step in report.hosts["a"].steps]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place = tmp_path / "place"
    place.mkdir()
    return Scene(place)


async def test_a_file_is_foreseen_in_a_directory_that_an_earlier_step_makes(scene: Scene) -> None:
    statuses = await scene.agrees(
        """\
        - mkdir: "${at}/conf"
        - write: { path: "${at}/conf/motd", content: "hello\\n" }
        - write: { path: "${at}/beside", content: "x" }
        - link: { path: "${at}/current", target: conf }
        - write: { path: "${at}/current/other", content: "y" }
        - mode: { path: "${at}/conf/motd", mode: "0600" }
        """
    )
    assert statuses == ["changed"] * 6
    assert any("+hello" in diff for diff in scene.diffs.texts[:2])


async def test_a_copy_into_a_directory_of_an_earlier_step_leaves_those_above_it_foreseen(scene: Scene) -> None:
    (scene.place / "site").mkdir()
    (scene.place / "site" / "index.html").write_text("hi")
    steps = f"""\
        - mkdir: "${{at}}/site"
        - push: {{ src: "{scene.place}/site/", dest: "${{at}}/site/" }}
        - write: {{ path: "${{at}}/app.conf", content: "x" }}
        """
    assert await scene.agrees(steps) == ["changed"] * 3


async def test_a_directory_that_is_there_is_still_asked(scene: Scene) -> None:
    (scene.place / "at").mkdir(mode=0o700)
    (scene.place / "at" / "motd").write_text("hello\n")
    steps = """\
        - mkdir: { path: "${at}", mode: "0711" }
        - write: { path: "${at}/motd", content: "hello\\n" }
        - read: "${at}/motd"
          register: motd
        - assert: "${motd.stdout} == hello"
        """
    assert await scene.agrees(steps) == ["changed", "ok", "ok", "ok"]


async def test_what_an_earlier_step_removes_is_made_again(scene: Scene) -> None:
    (scene.place / "at").mkdir()
    (scene.place / "at" / "f").write_text("same")
    steps = """\
        - remove: { path: "${at}", recursive: true }
        - remove: "${at}/f"
          when: "false"
        - mkdir: "${at}"
        - write: { path: "${at}/f", content: same }
        - remove: "${at}/f"
        """
    assert await scene.agrees(steps) == ["changed", "skipped", "changed", "changed", "changed"]


async def test_what_reads_a_file_that_is_not_there_yet_is_not_guessed(scene: Scene) -> None:
    """An assertion over what a check can't know neither fails nor passes."""
    report = await scene.run(
        """\
        - write: { path: "${at}/f", content: hello, parents: true }
        - stat: "${at}/f"
          register: st
        - read: "${at}/f"
          register: rd
        - assert: "${st.value.exists} and ${rd.stdout} == hello"
        """,
        check=True,
    )
    assert _told(report) == ["changed", "skipped", "skipped", "skipped"]


async def test_other_failures_of_a_check_stay_failures(scene: Scene) -> None:
    report = await scene.run(
        """\
        - mkdir: "${at}/conf"
        - write: { path: "${at}/elsewhere/f", content: x }
        """,
        check=True,
    )
    assert [step.status for step in report.hosts["a"].steps] == ["changed", "failed"]
    assert "No such file" in str(report.hosts["a"].steps[1].error)
    report = await scene.run('- mkdir: "${at}"\n- push: { src: ./nothing/, dest: "${at}/x/" }\n', check=True)
    assert [step.status for step in report.hosts["a"].steps] == ["changed", "failed"]
    assert "on this machine" in str(report.hosts["a"].steps[1].error)


async def test_a_program_that_is_said_to_change_nothing_changes_nothing_in_a_check(scene: Scene) -> None:
    """What asks for a change first isn't run for nothing; what reads the program's answer isn't guessed."""
    steps = """\
        - exec: ["true"]
          changed_when: "false"
          register: health
        - assert: "${health.exit_code} == 0"
        - shell: { action: t.reload, script: "exit 1" }
          when: changed
        - exec: ["true"]
          changed_when: "${result.exit_code} == 0"
        """
    foreseen = await scene.run(steps, check=True)
    assert _told(foreseen) == ["skipped", "skipped", "skipped", "changed"]
    assert _told(await scene.run(steps, check=False)) == ["ok", "ok", "skipped", "changed"]


async def test_what_follows_the_change_of_one_step_is_foreseen(scene: Scene) -> None:
    """`when: ${x.changed}` and `when: changed` say the same of a step that is assumed to change something."""
    steps = """\
        - mkdir: "${at}"
        - write: { path: "${at}/conf", content: x }
          register: conf
        - exec: ["true"]
          register: reload
          when: ${conf.changed}
        - exec: ["true"]
          when: ${reload.changed} and ${conf.changed} == true
        """
    assert await scene.agrees(steps) == ["changed"] * 4
