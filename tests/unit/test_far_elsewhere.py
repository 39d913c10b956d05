"""The far side under the Pythons and users that hosts have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import opsexec.far
from opsexec.far.message import FarError
from tests.parts.as_user import PLAIN, as_user
from tests.parts.far_calls import FarCalls
from tests.parts.far_scenario import scenario
from tests.parts.pythons import MINORS, other_pythons

FAR = Path(opsexec.far.__file__).parent


@pytest.fixture(scope="module")
def pythons() -> dict[str, str]:
    return other_pythons()


@pytest.fixture
def alone(tmp_path):
    """The far modules with nothing else of opsexec beside them, as a host gets them."""
    (tmp_path / "lib/opsexec").mkdir(parents=True)
    (tmp_path / "lib/opsexec/__init__.py").write_text("")
    shutil.copytree(FAR, tmp_path / "lib/opsexec/far", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "lib"


@pytest.fixture
def expected(tmp_path):
    (tmp_path / "expected").mkdir()
    old = os.umask(0o022)
    try:
        return scenario(str((tmp_path / "expected").resolve()))
    finally:
        os.umask(old)


RUN = """
import sys
sys.path[:0] = [sys.argv.pop(1)]
import runpy
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.parametrize("version", [f"3.{minor}" for minor in MINORS])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_the_far_side_does_the_same_under_every_python(version, locale, pythons, alone, expected, tmp_path):
    if version not in pythons:
        pytest.skip(f"no python{version} on this machine")
    (tmp_path / "there").mkdir()
    here = Path(__file__).parents[1] / "parts/far_scenario.py"
    done = subprocess.run(
        [
            pythons[version],
            "-I",
            "-S",
            "-W",
            "error",
            "-c",
            RUN,
            str(alone),
            str(here),
            str(tmp_path / "there"),
        ],
        capture_output=True,
        env={"LC_ALL": locale, "PATH": os.defpath},
        timeout=50,
        check=False,
    )
    assert done.stderr == b""
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


def test_every_far_module_is_in_python_38s_words():
    import ast

    for file in FAR.glob("*.py"):
        ast.parse(file.read_text("utf-8"), str(file), feature_version=(3, 8))


def test_loading_the_operations_loads_nothing_slow(alone):
    slow = "json re subprocess ctypes tempfile shutil tarfile hashlib pwd grp typing"
    code = "import sys; sys.path.insert(0, sys.argv[1]); import opsexec.far.operations, opsexec.far.files\n"
    code += f"print(*[name for name in {slow.split()!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(alone)],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout.split() == []


@pytest.fixture
def home(tmp_path):
    """A directory of a plain user's own, that this user can reach."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    path = Path("/tmp").resolve() / f"opsexec-test-{os.getpid()}"
    path.mkdir()
    os.chown(path, PLAIN, PLAIN)
    yield path
    shutil.rmtree(path)


def test_a_plain_user_gets_the_same_answers(home, expected):
    assert as_user(lambda: scenario(str(home))) == expected


def denied(work) -> str:
    with pytest.raises(FarError) as caught:
        as_user(work)
    return caught.value.code


def test_what_a_user_may_not_do_is_named_a_permission(home):
    far = FarCalls(f"{home}/**")
    (home / "secret").write_bytes(b"secret")
    os.chmod(home / "secret", 0o600)
    (home / "dark").mkdir(0o700)
    assert denied(lambda: far.read(home / "secret")) == "permission"
    assert denied(lambda: far.read(home / "dark/x")) == "permission"
    assert denied(lambda: far.stat(home / "dark/x")) == "permission"
    assert denied(lambda: far.write(home / "dark/x", b"")) == "permission"
    assert denied(lambda: far.set_mode(home / "secret", "0644")) == "permission"
    assert denied(lambda: far.set_mode(home / "secret", owner=str(PLAIN))) == "permission"
    assert denied(lambda: far.remove(home / "dark/x")) == "permission"
    assert as_user(lambda: far.stat(home / "secret"))["sha256"] is None


def test_a_user_never_takes_over_the_file_of_another_by_writing_it(home):
    far = FarCalls(f"{home}/**")
    (home / "f").write_bytes(b"old")
    assert denied(lambda: far.write(home / "f", b"new")) == "permission"
    assert (home / "f").read_bytes() == b"old"
    assert os.listdir(home) == ["f"]
    assert as_user(lambda: far.write(home / "f", b"new", owner=str(PLAIN), group=str(PLAIN)))[0]
    assert os.stat(home / "f").st_uid == PLAIN


def test_a_file_that_may_not_be_read_counts_as_different(home):
    far = FarCalls(f"{home}/**")
    (home / "f").write_bytes(b"same")
    os.chown(home / "f", PLAIN, PLAIN)
    os.chmod(home / "f", 0o200)
    changed, old, meta = as_user(lambda: far.write(home / "f", b"same", readers=["/**"]))
    assert (changed, old, meta["old_known"]) == (True, b"", False)
    assert os.stat(home / "f").st_mode & 0o777 == 0o200


def test_links_of_a_plain_user_do_not_take_root_out_of_the_grant(home):
    far = FarCalls(f"{home}/**")
    as_user(lambda: os.symlink("/etc", home / "etc"))
    as_user(lambda: os.symlink("/proc/self/root/etc", home / "magic"))
    for name in ("etc/passwd", "magic/passwd", "etc/opsexec-test"):
        with pytest.raises(FarError) as caught:
            far.write(home / name, b"x")
        assert caught.value.code == "denied"


def test_a_directory_without_read_permission_takes_a_new_file(home):
    far = FarCalls(f"{home}/**")
    (home / "drop").mkdir()
    os.chown(home / "drop", PLAIN, PLAIN)
    os.chmod(home / "drop", 0o300)
    assert as_user(lambda: far.write(home / "drop/f", b"x"))[0]
    assert (home / "drop/f").read_bytes() == b"x"


def test_the_group_of_a_set_group_id_directory_is_inherited(home):
    os.chown(home, PLAIN, 1)
    os.chmod(home, 0o2775)
    assert FarCalls(f"{home}/**").write(home / "f", b"x")[0]
    assert os.stat(home / "f").st_gid == 1
