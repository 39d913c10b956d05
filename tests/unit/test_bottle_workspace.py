"""What a workspace's changes look like as a patch, and which names are held back, beside what git makes of them."""

from __future__ import annotations

import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bottle.workspace.apply import conflict, steps
from bottle.workspace.changes import Change, compare
from bottle.workspace.ignore import rules_of
from bottle.workspace.lines import Effort, unified
from bottle.workspace.patch import patch_of
from bottle.workspace.protected import held_back, leads_astray, never, repositories, warned
from bottle.workspace.tree import Entry, Tree, dump, read_tree
from opsexec.errors import ProtocolError

LINES = some.lists(some.sampled_from([b"a", b"b", b"c", b"", b"a longer line", b"\r", b"\xff\xfe"]), max_size=30)
TEXT = some.builds(lambda lines, end: b"\n".join(lines) + end, LINES, some.sampled_from([b"", b"\n"]))
CONTENT = some.one_of(TEXT, some.binary(max_size=300))
FILES = some.dictionaries(
    some.sampled_from(["x", "sp ace/f", "caf\u00e9", 'q"uote', "back\\slash"]),
    some.tuples(some.none() | CONTENT, some.none() | CONTENT, some.booleans(), some.booleans()),
)


def file(path: str, data: bytes | None = b"", executable: bool = False, **more) -> Entry:
    digest = None if data is None else f"{hash(data)}"
    return Entry(path, "file", 0o755 if executable else 0o644, len(data or b""), sha256=digest, **more)


def tree(*entries: Entry | str) -> Tree:
    made = [Entry(each, "directory", 0o755, 0) if isinstance(each, str) else each for each in entries]
    return Tree({each.path: each for each in made})


def nothing_ignored(path: str, directory: bool) -> bool:
    return False


@settings(max_examples=60)
@given(FILES)
def test_git_applies_a_patch_to_what_it_should_give(files) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        subprocess.run(["git", "init", "-q", name], check=True)
        told = b""
        for path, (old, new, was, now) in files.items():
            if old is not None:
                (place / path).parent.mkdir(exist_ok=True)
                (place / path).write_bytes(old)
                (place / path).chmod(0o755 if was else 0o644)
            if old is not None or new is not None:
                before = None if old is None else file(path, old, was)
                after = None if new is None else file(path, new, now)
                told += patch_of(Change(path, before, after), old or b"", new or b"")
        if not told:
            return
        done = subprocess.run(
            ["git", "-C", name, "apply", "--whitespace=nowarn"], input=told, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        for path, (old, new, _, now) in files.items():
            if new is not None:
                assert (place / path).read_bytes() == new
                assert bool((place / path).stat().st_mode & stat.S_IXUSR) == now
            elif old is not None:
                assert not (place / path).exists()


def test_a_file_that_differs_everywhere_is_shown_within_a_bound() -> None:
    old = b"".join(b"old %d\n" % each for each in range(20_000))
    new = b"".join(b"new %d\n" % each for each in range(20_000))
    hunks = unified(old, new)
    assert (len(hunks), hunks[0]) == (40_001, b"@@ -1,20000 +1,20000 @@\n")


def test_all_searches_of_a_review_have_a_bound_together() -> None:
    old, new = (b"".join(b"%s %d\nsame\n" % (word, each) for each in range(100)) for word in (b"old", b"new"))
    effort = Effort(30_000)
    finer = unified(old, new, effort)
    assert finer.count(b" same\n") > 90
    assert 0 < effort.left < 20_000
    assert unified(old, new, effort).count(b" same\n") < 5
    assert effort.left < 0
    assert unified(old, new) == finer


@pytest.mark.parametrize(
    "path",
    [".git/config", "a/.git/hooks/x", ".GIT/config", ".g\u200cit/x", ".git./x", ".git /x", "GIT~1/x", ".git::$INDEX/x",
     "a\\.git\\x", "\uff0egit/x", ".git", "git~4", "a/Git~1/hooks/x", "GI7EBA~1/x", "HG~1/x", "svn~1/x", "JJ~2/x",
     "x/COMMON~1", "x/COMMO~10", "git~1::$INDEX/x", "git~1./x"],
)  # fmt: skip
def test_no_spelling_of_git_s_directory_comes(path: str) -> None:
    assert never(path)


@pytest.mark.parametrize(
    "path",
    ["git/config", ".gitignore", "a/.github/x", "docs/.gitkeep", "digit~1", "GITMOD~1", "git~1.md", "commo~1", "~1"],
)
def test_other_names_aren_t_git_s_directory(path: str) -> None:
    assert never(path) is None


@pytest.mark.parametrize(
    "path",
    ["CLAUDE~1.MD", "VSCODE~1/tasks.json", "a/HUSKY~1/pre-commit", "GITMOD~1", "BASHRC~1", "MCP~1.JSO", "longdi~1/x"],
)
def test_a_second_name_that_windows_gives_to_a_file_waits_until_it_is_asked_for(path: str) -> None:
    assert held_back(path)


@pytest.mark.parametrize("path", ["x.c.~1~", "a~b", "~1", "x~", "notes~2.markdown", "a~1~2"])
def test_names_that_windows_gives_to_nothing_come(path: str) -> None:
    assert held_back(path) is None


@pytest.mark.parametrize("path", ["config", "CONFIG~1.WOR", "PACKED~1", "WORKTR~1/x"])
def test_what_git_reads_of_a_bare_repository_doesn_t_come_by_another_name(path: str) -> None:
    assert never(path, {""})
    assert never("README~1", {""}) is None


@pytest.mark.parametrize(
    "path", [".Claude/x", "a/claude.MD", "CLAUDE.local.md", ".ENVRC", "x/.vscode/a", ".bashrc", ".eslintrc.js"]
)
def test_what_is_held_back_is_held_back_in_any_case_and_anywhere(path: str) -> None:
    assert held_back(path)


HELD_BACK = [
    ".claude/settings.json", ".codex/config.toml", ".cursor/rules/x", ".gemini/x", ".aider.conf.yml",
    ".aider/x", ".opencode/x", ".openhands/x", ".lefthook/x", ".continue/x", ".windsurf/x", ".roo/x",
    ".agents/x", ".bot-bottle/x", ".vscode/tasks.json", ".idea/x", ".fleet/x", ".zed/x", ".vs/x",
    ".devcontainer/x", ".direnv/x", ".mise/x", ".husky/pre-commit", ".githooks/x", ".github/x", ".gitlab/x",
    ".gitea/x", ".forgejo/x", ".circleci/x", ".buildkite/x", ".woodpecker/x", ".ci/x", ".cargo/config.toml",
    ".yarn/x", ".mvn/x", ".ssh/config", ".gnupg/x", "CLAUDE.md", "AGENTS.override.md", "GEMINI.md",
    "copilot-instructions.md", "SKILL.md", ".cursorrules", ".windsurfrules", ".clinerules", ".mcp.json",
    "mcp.json", "opencode.jsonc", ".envrc", ".env", ".env.local", ".tool-versions", ".mise.toml",
    "mise.local.toml", ".pnpmfile.cjs", ".npmrc", ".eslintrc.js", ".bash_profile", ".bash_aliases", ".zshenv",
    ".zlogin", ".profile", ".vimrc_local", ".gdbinit", ".lldbinit", ".gitmodules", ".gitattributes", ".gitconfig",
    ".pre-commit-config.yaml", "lefthook.yml", ".lefthook-local.yaml", ".gitlab-ci.yml", ".travis.yml",
    ".drone.yml", ".woodpecker.yaml", "azure-pipelines.yml", "bitbucket-pipelines.yml", "appveyor.yml",
    "cloudbuild.yaml", "buildspec.yml", "Jenkinsfile", "CODEOWNERS", "x.code-workspace", ".editorconfig",
    ".vimrc.local", ".exrc", ".nvim.lua", ".dir-locals.el", ".dir-locals-2.el", "sitecustomize.py",
    "usercustomize.py", "x.pth", "pyvenv.cfg", ".authorized_keys", "authorized_keys", "autorun.inf",
    "desktop.ini", "x.desktop", "x.lnk", "x.url", ".claude-plugin/x", ".claude.json", ".codexignore", ".amazonq/x",
    ".augment/x", ".augment-guidelines", ".clinerules/x", ".crush.json", ".goosehints", ".junie/x", ".kilocode/x",
    ".kilocodemodes", ".kiro/x", ".qwen/x", ".trae/x", "QWEN.md", "CRUSH.md", "WARP.md", ".rules",
    ".azure-pipelines/x", ".builds/x", ".dagger/x", ".harness/x", ".semaphore/x", ".teamcity/x", ".tekton/x",
    ".appveyor.yml", ".build.yml", ".cirrus.star", "codefresh.yml", "wercker.yml",
    ".devcontainer.json", ".gitpod.yml", ".gitpod.Dockerfile", ".codesandbox/tasks.json", ".idx/dev.nix",
    ".helix/languages.toml", ".run/x.run.xml", ".settings/x", ".vim/x", ".nvim/x", ".nvimrc", "_vimrc", "_exrc",
    ".lazy.lua", ".project", "x.sublime-project", ".replit", "devfile.yaml", ".devfile.yaml", ".cursorignore",
    ".geminiignore", ".agent/rules/x", ".antigravity/x", ".copilot/x", ".devin/x", ".factory/x", ".cline/x",
    "githooks/x", ".git-hooks/x", "git-hooks/x", ".hooks/x", "lefthook.toml", ".lefthook.json", ".overcommit.yml",
    ".simple-git-hooks.cjs", "captainhook.json", "hk.pkl", "prek.toml", "pre-commit", "scripts/post-checkout",
    "tools/hooks/post-merge", "reference-transaction", "fsmonitor-watchman", "__pycache__/x", "x.pyc", "x.pyo",
    ".python-version", ".pnpmfile.mjs", ".pnp.cjs", ".pnp.loader.mjs", "bunfig.toml", "rust-toolchain",
    "rust-toolchain.toml", ".flaskenv", ".Renviron", ".Rprofile", "latexmkrc", "matplotlibrc", ".gdbearlyinit",
    ".lldbinit-lldb",
]  # fmt: skip
WARNED_OF = [
    "Makefile", "GNUmakefile", "rules.mk", "justfile", ".justfile", "Taskfile.yml", "Rakefile", "Gemfile.lock",
    "x.gemspec", "package.json", "package-lock.json", "pnpm-lock.yaml", "yarn.lock", "vite.config.js",
    "vite.config.mjs", "vite.config.cjs", "vite.config.ts", "gulpfile.js", "Gruntfile.js", "conftest.py",
    "setup.py", "setup.cfg", "pyproject.toml", "tox.ini", "noxfile.py", "tasks.py", "requirements-dev.txt",
    "CMakeLists.txt", "x.cmake", "meson.build", "build.rs", "Cargo.toml", "build.gradle.kts", "settings.gradle",
    "gradle.properties", "gradlew.bat", "mvnw", "pom.xml", "build.sbt", "configure.ac", "Dockerfile.dev",
    "x.dockerfile", "docker-compose.yml", "Vagrantfile", "flake.nix", "shell.nix", "default.nix", "BUILD.bazel",
    "WORKSPACE.bazel", "x.bzl", "composer.json", "composer.lock", "deno.jsonc", "Pipfile.lock", "ansible.cfg",
    "Directory.Build.props", "Package.swift", "mix.exs", "fabfile.py", "Tiltfile", "Procfile.dev",
    "Makefile.inc", "npm-shrinkwrap.json", "pnpm-workspace.yaml", "bun.lockb", "vite.config.mts", "turbo.json",
    "nx.json", "pytest.ini", ".mypy.ini", ".flake8", "pylintrc", "uv.lock", "uv.toml", "poetry.lock", "poetry.toml",
    "pdm.lock", "pdm.toml", "pixi.toml", "pixi.lock", "Cargo.lock", "go.mod", "go.sum", "go.work.sum", ".rspec",
    ".rubocop.yml", "Containerfile", "docker-bake.hcl", "devbox.json", "devenv.nix", "devenv.yaml", "main.tf",
    "terragrunt.hcl", "renovate.json5", ".goreleaser.yaml", "BUILD", "MODULE.bazel", "Directory.Packages.props",
    "Directory.Build.targets", "x.csproj", "NuGet.Config", "SConstruct", "wscript", "build.zig.zon", "build.xml",
    "project.clj", "rebar.config", "Setup.hs", "Podfile.lock", "Guardfile", "gradle-wrapper.jar", "x.so", "x.dylib",
    "x.dll", "x.pyd", "x.node",
]  # fmt: skip


@pytest.mark.parametrize("path", HELD_BACK)
def test_each_name_that_a_tool_acts_on_by_itself_is_held_back(path: str) -> None:
    assert held_back(path)
    assert held_back(f"a/{path.upper()}")
    assert held_back(f"a/{path}".replace("/", "\\"))


@pytest.mark.parametrize("path", WARNED_OF)
def test_each_name_that_a_tool_runs_when_asked_is_warned_of(path: str) -> None:
    assert held_back(path) is None
    assert warned(f"a/{path}")
    assert warned(f"{path}/a") is None


@pytest.mark.parametrize("path", ["-rf", "a/--checkpoint-action=exec=sh x.sh", "-d/x", "\u200b-x"])
def test_a_name_that_is_an_option_where_a_shell_names_all_is_warned_of(path: str) -> None:
    assert held_back(path) is None
    assert "option" in (warned(path) or "")
    assert warned("a-b/c--d") is None


@pytest.mark.parametrize("path", [".hg/hgrc", "a/.svn/x", ".jj/repo", ".sl/config", ".pijul/config"])
def test_other_histories_do_not_come_either(path: str) -> None:
    assert never(path)


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "src/main.py",
        "docs/agent.md",
        "a.rc",
        "environment.py",
        ".gitignore",
        "pre_commit.py",
        "uv.py",
        "app-version",
        "src/build/x.js",
        "poetry.rs",
        "runs/x",
        "hooks/useState.ts",
        "cursor/x",
    ],
)
def test_ordinary_files_come(path: str) -> None:
    assert held_back(path) is None
    assert warned(path) is None


@pytest.mark.parametrize(
    ("path", "target", "astray"),
    [("a", "b", False), ("a/b", "../c", False), ("a", "../c", True), ("a", "/etc", True), ("a/b", "../../c", True),
     ("a", ".git/hooks", True), ("a", "b/../../c", True), ("a", "./b", False), ("a", ".claude/x", True),
     ("a/b", "..", False), ("a", "..", True), ("a", "..b", False), ("a", "b\\..\\..\\c", True), ("a", "b/../c", True),
     ("d/a", "./../c", False), ("d/a", "../x/../c", True), ("d/a", "../CLAUDE.md", True), ("a", "b/.", False)],
)  # fmt: skip
def test_a_link_comes_when_it_stays_inside_and_leads_to_nothing_held(path: str, target: str, astray: bool) -> None:
    assert bool(leads_astray(Entry(path, "link", 0o777, 0, target=target))) == astray


def test_a_link_through_another_one_doesn_t_come() -> None:
    base = tree(Entry("out", "link", 0o777, 0, target="/etc"))
    now = tree(*base.entries.values(), Entry("x", "link", 0o777, 0, target="out/passwd"))
    assert [(each.path, each.why) for each in compare(base, now, nothing_ignored).held] == [
        ("x", "a link through another one")
    ]


def test_a_repository_by_another_name_is_one() -> None:
    found = repositories(["x/HEAD", "x/objects", "x/refs", "x/config", "y/HEAD", "y/refs"])
    assert found == {"x"}
    assert never("x/config", found)
    assert never("y/HEAD", found) is None
    assert never("config", repositories(["HEAD", "objects", "refs"]))


INSIDE = ["HEAD", "objects/x", "refs/x", "config", "config.worktree", "hooks/x", "info/x", "packed-refs", "index",
          "logs/x", "worktrees/x"]  # fmt: skip


@pytest.mark.parametrize("part", INSIDE)
def test_no_part_of_a_repository_at_the_top_comes_and_what_is_beside_it_does(part: str) -> None:
    top = repositories(["HEAD", "objects", "refs"])
    assert top == {""}
    assert never(part, top)
    assert never(part.upper(), top)
    assert never(f"src/{part}", top) is None
    assert never("src/main.py", top) is None


def test_all_that_is_below_a_repository_stays_there_and_what_is_beside_it_comes() -> None:
    found = repositories(["a/x/head", "a/x/Objects", "a/x/refs", "b/HEAD", "b/objects"])
    assert found == {"a/x"}
    assert never("a/x", found)
    assert never("a/x/y/z", found)
    assert never("a/xy", found) is None
    assert never("a/config", found) is None
    assert never("config", found) is None


def test_a_link_to_itself_or_beside_a_link_is_no_link_through_one() -> None:
    links = {"a", "d/l"}
    assert leads_astray(Entry("a", "link", 0o777, 0, target="a"), links) is None
    assert leads_astray(Entry("a", "link", 0o777, 0, target="d/m"), links) is None
    assert leads_astray(Entry("a", "link", 0o777, 0, target="d/l"), links) == "a link through another one"
    assert leads_astray(Entry("a", "link", 0o777, 0, target="d/l/x/y"), links) == "a link through another one"


@pytest.mark.parametrize(
    "line",
    [b"[]", b"{}", b'{"path":"../x","kind":"file","mode":"0644","size":1,"links":1}',
     b'{"path":"a/b","kind":"file","mode":"0644","size":1,"links":1}',
     b'{"path":"/a","kind":"file","mode":"0644","size":1,"links":1}',
     b'{"path":"a","kind":"file","mode":"0644","size":-1,"links":1}',
     b'{"path":"a","kind":"link","mode":"0644","size":1,"links":1}',
     b'{"path":"a","kind":"file","mode":"0644","size":1,"links":1}\n' * 2],
)  # fmt: skip
def test_a_listing_that_no_directory_could_give_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_tree(line, {}, "a host")


def test_a_state_is_read_as_it_was_written() -> None:
    odd = b"\xff".decode("utf-8", "surrogateescape")
    whole = tree("a", file("a/b"), Entry("a/c", "link", 0o777, 1, target="b"), file(odd))
    assert read_tree(dump(whole), {}, "x") == whole


def test_rules_are_those_of_the_start_and_the_agent_can_t_hide_by_its_own() -> None:
    base = tree(file(".gitignore", b"*.o\nbuild/\n!keep.o\n"))
    ignored = rules_of(base, lambda path: b"*.o\nbuild/\n!keep.o\n")
    assert [ignored("a.o", False), ignored("keep.o", False), ignored("build", True), ignored("x/build", True)] == [
        True, False, True, True,
    ]  # fmt: skip
    now = tree(file(".gitignore", b"*\n"), file("hidden"), file("a.o"))
    found = compare(base, now, ignored)
    assert [change.path for change in found.changes] == [".gitignore", "hidden"]
    assert found.ignored == 1


def test_a_file_that_was_there_shows_though_it_is_ignored() -> None:
    found = compare(tree(file("a.o", b"1")), tree(file("a.o", b"2")), lambda path, directory: True)
    assert [change.path for change in found.changes] == ["a.o"]


@pytest.mark.parametrize("path", ["x/commondir", "CommonDir", "x/CommonDir/y"])
def test_a_repository_whose_parts_are_elsewhere_does_not_come_back(path: str) -> None:
    """A directory with HEAD and `commondir` is one to git, wherever that leads (gitrepository-layout(5))."""
    assert never(path)


@pytest.mark.parametrize("path", [".opencode/plugin/p.ts", "a/lefthook-local.yml", "mise.local.toml", ".pnpmfile.cjs"])
def test_what_tools_of_today_run_is_held_back_too(path: str) -> None:
    assert held_back(path)


def test_two_unread_files_are_never_the_same() -> None:
    found = compare(tree(file("a", None)), tree(file("a", None)), nothing_ignored)
    assert [each.path for each in found.held] == ["a"]


def test_a_change_doesn_t_go_through_a_link_of_the_host_s() -> None:
    here = tree(Entry("a", "link", 0o777, 1, target=".git"))
    assert conflict(Change("a/b", None, file("a/b")), here) == "a is a link here"


def test_directories_that_are_empty_then_go_and_make_way() -> None:
    here = tree("d", "d/e", file("d/e/f"), file("d/mine"), "g", file("g/h"))
    gone = [
        Change("d/e/f", file("d/e/f"), None),
        Change("g", None, file("g", b"new")),
        Change("g/h", file("g/h"), None),
    ]
    told = [str(getattr(step, "path", "")) for step in steps("/p", gone, {"g": b"new"}, here)]
    assert told[-1] == "/p/g"
    assert sorted(told[:-1]) == ["/p/d/e", "/p/d/e/f", "/p/g", "/p/g/h"]
    assert told.index("/p/d/e/f") < told.index("/p/d/e")
