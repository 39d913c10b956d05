"""What is not brought back unasked: paths by which an agent would run code, or steer another agent, on the host."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from bottle.workspace.names import folded_path, is_short, may_be_short_for
from bottle.workspace.tree import Entry

NEVER = {
    ".git": "git would run what it says",
    ".hg": "hg would run what it says",
    ".svn": "svn would run what it says",
    ".jj": "jj would run what it says",
    "commondir": "git would take a configuration from where it says",
}
"""A name anywhere on the path that no option brings back."""

DIRECTORIES = {
    ".claude*": "it configures a coding agent",
    ".codex*": "it configures a coding agent",
    ".cursor": "it configures a coding agent",
    ".gemini": "it configures a coding agent",
    ".aider*": "it configures a coding agent",
    ".opencode": "it configures a coding agent",
    ".openhands": "it configures a coding agent",
    ".lefthook": "git's hooks run what it says",
    ".continue": "it configures a coding agent",
    ".windsurf": "it configures a coding agent",
    ".roo": "it configures a coding agent",
    ".agents": "it configures a coding agent",
    ".amazonq": "it configures a coding agent",
    ".augment*": "it configures a coding agent",
    ".clinerules": "it configures a coding agent",
    ".crush*": "it configures a coding agent",
    ".goose*": "it configures a coding agent",
    ".junie": "it configures a coding agent",
    ".kilocode*": "it configures a coding agent",
    ".kiro": "it configures a coding agent",
    ".qwen": "it configures a coding agent",
    ".trae": "it configures a coding agent",
    ".bot-bottle": "it says who runs in a bottle",
    ".vscode": "an editor runs what it says",
    ".idea": "an editor runs what it says",
    ".fleet": "an editor runs what it says",
    ".zed": "an editor runs what it says",
    ".vs": "an editor runs what it says",
    ".devcontainer": "an editor runs what it says",
    ".direnv": "a shell runs what it says",
    ".mise": "a shell runs what it says",
    ".husky": "it holds git's hooks",
    ".githooks": "it holds git's hooks",
    ".github": "it configures CI",
    ".gitlab": "it configures CI",
    ".gitea": "it configures CI",
    ".forgejo": "it configures CI",
    ".circleci": "it configures CI",
    ".buildkite": "it configures CI",
    ".woodpecker": "it configures CI",
    ".ci": "it configures CI",
    ".azure*": "it configures CI",
    ".builds": "it configures CI",
    ".dagger": "it configures CI",
    ".harness": "it configures CI",
    ".semaphore": "it configures CI",
    ".teamcity": "it configures CI",
    ".tekton": "it configures CI",
    ".cargo": "cargo runs what it says",
    ".yarn": "yarn runs what it says",
    ".mvn": "maven runs what it says",
    ".ssh": "ssh runs what it says",
    ".gnupg": "gpg runs what it says",
}
"""A name anywhere on the path; all below it is held back until it is asked for."""

FILES = {
    "claude*.md": "it instructs a coding agent",
    "agents*.md": "it instructs a coding agent",
    "gemini.md": "it instructs a coding agent",
    "copilot-instructions.md": "it instructs a coding agent",
    "qwen.md": "it instructs a coding agent",
    "crush.md": "it instructs a coding agent",
    "warp.md": "it instructs a coding agent",
    "skill.md": "it instructs a coding agent",
    ".rules": "it instructs a coding agent",
    ".cursorrules": "it instructs a coding agent",
    ".windsurfrules": "it instructs a coding agent",
    ".mcp.json": "it configures a coding agent",
    "mcp.json": "it configures a coding agent",
    "opencode.json*": "it configures a coding agent",
    ".envrc": "a shell runs it",
    ".env": "it holds secrets and settings",
    ".env.*": "it holds secrets and settings",
    ".tool-versions": "a shell runs what it says",
    ".mise.toml": "a shell runs what it says",
    "mise*.toml": "a shell runs what it says",
    ".pnpmfile.cjs": "a package manager runs it",
    ".*rc": "a program reads it wherever it is started",
    ".*rc.*": "a program reads it wherever it is started",
    ".*profile": "a shell runs it",
    ".bash_*": "a shell runs it",
    ".zshenv": "a shell runs it",
    ".zlog*": "a shell runs it",
    ".gdbinit": "a debugger runs it",
    ".lldbinit": "a debugger runs it",
    ".gitmodules": "git fetches what it says",
    ".gitattributes": "git filters files as it says",
    ".gitconfig": "git would run what it says",
    ".pre-commit-config.y*ml": "git's hooks run what it says",
    "lefthook*.y*ml": "git's hooks run what it says",
    ".lefthook*.y*ml": "git's hooks run what it says",
    ".gitlab-ci.y*ml": "it configures CI",
    ".travis.y*ml": "it configures CI",
    ".drone.y*ml": "it configures CI",
    ".woodpecker.y*ml": "it configures CI",
    "azure-pipelines*.y*ml": "it configures CI",
    "bitbucket-pipelines.y*ml": "it configures CI",
    "appveyor.y*ml": "it configures CI",
    ".appveyor.y*ml": "it configures CI",
    ".build.y*ml": "it configures CI",
    ".cirrus.*": "it configures CI",
    "codefresh.y*ml": "it configures CI",
    "wercker.y*ml": "it configures CI",
    "cloudbuild.y*ml": "it configures CI",
    "buildspec.y*ml": "it configures CI",
    "jenkinsfile*": "it configures CI",
    "codeowners": "it says who reviews",
    "*.code-workspace": "an editor runs what it says",
    ".editorconfig": "an editor does what it says",
    ".vimrc*": "an editor runs it",
    ".exrc": "an editor runs it",
    ".nvim.lua": "an editor runs it",
    ".dir-locals*.el": "an editor runs it",
    "sitecustomize.py": "every Python here runs it",
    "usercustomize.py": "every Python here runs it",
    "*.pth": "every Python here runs it",
    "pyvenv.cfg": "every Python here reads it",
    ".authorized_keys": "it lets somebody in",
    "authorized_keys": "it lets somebody in",
    "autorun.inf": "Windows runs what it says",
    "desktop.ini": "Windows does what it says",
    "*.desktop": "a desktop runs what it says",
    "*.lnk": "a desktop runs what it says",
    "*.url": "a desktop runs what it says",
}
"""A file of this name, wherever it is."""

WARNED = {
    "makefile": "make runs it",
    "gnumakefile": "make runs it",
    "*.mk": "make runs it",
    "justfile": "just runs it",
    ".justfile": "just runs it",
    "taskfile*.y*ml": "task runs it",
    "rakefile": "rake runs it",
    "gemfile*": "bundler runs it",
    "*.gemspec": "bundler runs it",
    "package.json": "npm runs its scripts",
    "package-lock.json": "npm fetches what it says",
    "pnpm-lock.yaml": "pnpm fetches what it says",
    "yarn.lock": "yarn fetches what it says",
    "*.config.js": "a build tool runs it",
    "*.config.[cm]js": "a build tool runs it",
    "*.config.ts": "a build tool runs it",
    "gulpfile*": "a build tool runs it",
    "gruntfile*": "a build tool runs it",
    "conftest.py": "pytest runs it",
    "setup.py": "pip runs it",
    "setup.cfg": "pip does what it says",
    "pyproject.toml": "pip does what it says",
    "tox.ini": "tox runs what it says",
    "noxfile.py": "nox runs it",
    "tasks.py": "invoke runs it",
    "requirements*.txt": "pip fetches what it says",
    "cmakelists.txt": "cmake runs it",
    "*.cmake": "cmake runs it",
    "meson.build": "meson runs it",
    "build.rs": "cargo runs it",
    "cargo.toml": "cargo builds what it says",
    "build.gradle*": "gradle runs it",
    "settings.gradle*": "gradle runs it",
    "gradle*.properties": "gradle does what it says",
    "gradlew*": "people run it",
    "mvnw*": "people run it",
    "pom.xml": "maven does what it says",
    "build.sbt": "sbt runs it",
    "configure*": "people run it",
    "dockerfile*": "docker runs it",
    "*.dockerfile": "docker runs it",
    "*compose*.y*ml": "docker runs what it says",
    "vagrantfile": "vagrant runs it",
    "flake.nix": "nix runs it",
    "shell.nix": "nix runs it",
    "default.nix": "nix runs it",
    "build.bazel": "bazel runs it",
    "workspace*": "bazel runs it",
    "*.bzl": "bazel runs it",
    "composer.json": "composer runs its scripts",
    "composer.lock": "composer fetches what it says",
    "deno.json*": "deno runs its tasks",
    "pipfile*": "pip fetches what it says",
    "ansible.cfg": "ansible does what it says",
    "directory.build.*": "dotnet builds what it says",
    "package.swift": "swift runs it",
    "mix.exs": "mix runs it",
    "fabfile.py": "fabric runs it",
    "tiltfile": "tilt runs it",
    "procfile*": "a process manager runs what it says",
}
"""A file of this name is brought back with a warning: people change these every day, and their tools run them."""

REPOSITORY = frozenset({"head", "objects", "refs"})
"""What makes a directory a git repository of its own, whatever its name: git reads the config beside them."""

INSIDE = REPOSITORY | {"config", "config.worktree", "hooks", "info", "packed-refs", "index", "logs", "worktrees"}
"""What git reads of such a directory."""


def never(path: str, repositories: Collection[str] = ()) -> str | None:
    """Return why no option brings this path back; None where one would. `repositories`: bare ones of the workspace."""
    names = folded_path(path)
    for name in names:
        if name in NEVER or is_short(name):
            reason = next((NEVER[each] for each in NEVER if name == each or may_be_short_for(name, each)), None)
            if reason is not None:
                return reason
    if not repositories:
        return None
    why = "a part of what git would take for a repository, and run what it says"
    if "" in repositories and any(names[0] == each or may_be_short_for(names[0], each) for each in INSIDE):
        return why
    at = path
    while at:
        if at in repositories:
            return why
        at = at.rpartition("/")[0]
    return None


def held_back(path: str) -> str | None:
    """Return why a path waits until it is asked for; None for one that doesn't."""
    names = folded_path(path)
    for name in names:
        reason = _listed(name, DIRECTORIES)
        if reason is not None:
            return reason
        if is_short(name):
            return "Windows may take it for another file's name"
    return _listed(names[-1], FILES)


def warned(path: str) -> str | None:
    """Return what to know of a path before it is brought back; None for nothing."""
    return _listed(folded_path(path)[-1], WARNED)


def _listed(name: str, patterns: dict[str, str]) -> str | None:
    if name in patterns:
        return patterns[name]
    return next((why for pattern, why in patterns.items() if "*" in pattern and fnmatchcase(name, pattern)), None)


def leads_astray(entry: Entry, links: Collection[str] = ()) -> str | None:
    """Return why a link isn't brought back: where it leads is outside, or held back itself. None for a harmless one.

    `links`: paths that are links: what leads through another one comes out elsewhere than its text says.
    """
    target = entry.target or ""
    if target.startswith("/") or "\\" in target:
        return "a link out of the directory"
    place = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), target))
    if place == ".." or place.startswith("../"):
        return "a link out of the directory"
    if any(each in links and each != entry.path for each in _upwards(place)):
        return "a link through another one"
    if ".." in target.split("/")[_leading_ups(target) :]:
        return "a link that goes down and up again"
    reason = never(place) or held_back(place)
    return f"a link to {place}: {reason}" if reason else None


def _upwards(path: str) -> Iterator[str]:
    """Yield a path and each directory above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _leading_ups(target: str) -> int:
    parts = target.split("/")
    return next((at for at, part in enumerate(parts) if part not in ("..", ".")), len(parts))


def repositories(paths: Collection[str]) -> set[str]:
    """Return the directories that git would take for a repository, though none is called .git."""
    found: dict[str, set[str]] = {}
    for path in paths:
        parent, _, name = path.rpartition("/")
        lower = folded_path(name)[0]
        if lower in REPOSITORY:
            found.setdefault(parent, set()).add(lower)
    return {parent for parent, names in found.items() if names == REPOSITORY}
