"""Where an agent's image comes from: a Dockerfile that is the operator's own, shown and named by what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottle.errors import BadManifest
from bottle.images import agent_image
from bottle.manifest.kinds import AgentProvider


def settings(dockerfile: str | None) -> AgentProvider:
    return AgentProvider(template="command", dockerfile=dockerfile)


@pytest.mark.attack("MF11", backend="docker")
def test_mf11_another_text_is_another_image(tmp_path: Path) -> None:
    file = tmp_path / "agent.Dockerfile"
    file.write_text("FROM a:1\n")
    first = agent_image(settings("agent.Dockerfile"), "command.Dockerfile", tmp_path)
    file.write_text("FROM a:2\n")
    second = agent_image(settings("agent.Dockerfile"), "command.Dockerfile", tmp_path)
    assert first.text == "FROM a:1\n"
    assert first.name != second.name
    assert str(file) in first.where


@pytest.mark.attack("MF11", backend="docker")
def test_mf11_a_repository_s_dockerfile_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, repository = tmp_path / "root", tmp_path / "repository"
    for each in (root, repository):
        each.mkdir()
    (repository / "agent.Dockerfile").write_text("FROM evil\n")
    monkeypatch.chdir(repository)
    with pytest.raises(BadManifest):
        agent_image(settings("agent.Dockerfile"), "command.Dockerfile", root)


@pytest.mark.attack("MF11", backend="docker")
def test_mf11_a_link_and_what_others_may_write_build_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("FROM a\n")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "open").write_text("FROM a\n")
    (tmp_path / "open").chmod(0o666)
    for name in ("link", "open"):
        with pytest.raises(BadManifest):
            agent_image(settings(name), "command.Dockerfile", tmp_path)


def test_a_provider_brings_its_own(tmp_path: Path) -> None:
    for name in ("claude", "codex", "command"):
        found = agent_image(None, f"{name}.Dockerfile", tmp_path)
        assert found.text.startswith("FROM ")
        assert "this program" in found.where
