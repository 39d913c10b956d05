"""A path leads where its links lead, and both ends must be granted."""

from __future__ import annotations

import os

import pytest

from opsexec.far.message import FarError
from opsexec.far.walk import MAX_LINKS, Walk, located
from tests.parts.far_calls import FarCalls


@pytest.fixture
def base(tmp_path):
    real = tmp_path.resolve()
    (real / "in").mkdir()
    (real / "out").mkdir()
    (real / "out/secret").write_bytes(b"secret")
    return real


@pytest.fixture
def far(base):
    return FarCalls(f"{base}/in/**")


def code_of(call, *args, **named) -> FarError:
    with pytest.raises(FarError) as caught:
        call(*args, **named)
    return caught.value


def test_a_link_inside_its_grant_is_followed(base, far):
    (base / "in/real").mkdir()
    (base / "in/real/file").write_bytes(b"x")
    (base / "in/short").symlink_to("real")
    (base / "in/absolute").symlink_to(base / "in/short/file")
    (base / "in/roundabout").symlink_to("real/../short/./file")
    assert far.read(base / "in/short/file") == b"x"
    assert far.read(base / "in/absolute") == b"x"
    assert far.read(base / "in/roundabout") == b"x"


@pytest.mark.parametrize("target", ["../out", "{base}/out", "./../in/../out", "up/out"])
def test_a_link_that_leaves_its_grant_is_denied_and_the_error_says_where_it_leads(base, far, target):
    (base / "in/up").symlink_to("..")
    (base / "in/link").symlink_to(target.format(base=base))
    error = code_of(far.read, base / "in/link/secret")
    assert error.code == "denied"
    assert f"leads to {base}/out/secret" in error.text
    assert error.details[0] == f"fs.read:{base}/out/secret"
    assert f"fs.read:{base}/in/**" in error.details[1:]


def test_what_stands_outside_the_grant_is_never_told(base, far):
    (base / "in/link").symlink_to("../out")
    (base / "out/locked").mkdir()
    for name in ("secret", "absent", "secret/below", "absent/below", "locked/absent"):
        assert code_of(far.read, base / f"in/link/{name}").code == "denied"
        assert code_of(far.stat, base / f"in/link/{name}").code == "denied"
        assert code_of(far.write, base / f"in/link/{name}", b"x").code == "denied"
        assert code_of(far.remove, base / f"in/link/{name}").code == "denied"
        assert code_of(far.make_dir, base / f"in/link/{name}").code == "denied"


def test_the_asked_path_must_be_granted_too(base):
    (base / "out/back").symlink_to(base / "in")
    (base / "in/file").write_bytes(b"x")
    assert code_of(FarCalls(f"{base}/in/**").read, base / "out/back/file").code == "denied"
    assert FarCalls(f"{base}/in/**", f"{base}/out/back/**").read(base / "out/back/file") == b"x"


def test_every_layer_must_admit_the_place_a_path_leads_to(base):
    (base / "in/link").symlink_to("other")
    (base / "in/other").write_bytes(b"x")
    wide, narrow = [f"{base}/in/**"], [f"{base}/in/link"]
    assert FarCalls(layers=[wide, wide]).read(base / "in/link") == b"x"
    assert code_of(FarCalls(layers=[wide, narrow]).read, base / "in/link").code == "denied"
    assert code_of(FarCalls(layers=[wide, []]).read, base / "in/link").code == "denied"
    assert code_of(FarCalls(layers=[]).read, base / "in/link").code == "denied"


@pytest.mark.parametrize("path", ["{base}/in/../out/secret", "{base}/in//../out/./secret", "/../{base}/out/secret"])
def test_dots_in_the_asked_path_are_resolved_before_it_is_matched(base, far, path):
    assert code_of(far.read, path.format(base=base)).code == "denied"


@pytest.mark.parametrize("path", ["relative", "", "/a\0b", "/" + "x/" * 3000])
def test_a_path_that_is_none_is_refused(far, path):
    with pytest.raises(FarError) as caught:
        far.operations["stat"]([path.encode(), far.grants])
    assert caught.value.code == "bad_path"


def test_a_link_to_itself_ends_in_an_error(base, far):
    (base / "in/self").symlink_to("self")
    (base / "in/ping").symlink_to("pong")
    (base / "in/pong").symlink_to("ping")
    assert code_of(far.read, base / "in/self").code == "loop"
    assert code_of(far.read, base / "in/ping/file").code == "loop"


def test_as_many_links_as_the_kernel_follows_are_followed(base, far):
    (base / "in/l0").write_bytes(b"end")
    for number in range(1, MAX_LINKS + 2):
        (base / f"in/l{number}").symlink_to(f"l{number - 1}")
    assert far.read(base / f"in/l{MAX_LINKS}") == b"end"
    assert code_of(far.read, base / f"in/l{MAX_LINKS + 1}").code == "loop"


def test_links_that_multiply_names_are_cut_off(base, far):
    (base / "in/d").mkdir()
    (base / "in/l0").symlink_to("d")
    for number in range(1, 30):
        (base / f"in/l{number}").symlink_to("/".join([f"../in/l{number - 1}/.."] * 100) + "/in/d")
    assert code_of(far.read, base / "in/l29/x").code == "loop"


def test_a_link_that_ends_in_dots_leads_to_that_directory(base, far):
    (base / "in/a/b").mkdir(parents=True)
    (base / "in/dots").symlink_to("a/b/..")
    (base / "in/outwards").symlink_to("a/../..")
    with located(f"{base}/in/dots", [[f"{base}/in/**"]], "fs.write") as place:
        assert (place.path, place.name) == (f"{base}/in/a", b"a")
        assert os.path.samestat(os.stat(place.name, dir_fd=place.fd), os.stat(base / "in/a"))
    assert code_of(far.make_dir, base / "in/outwards").code == "denied"


def test_the_root_is_a_place(base):
    assert FarCalls("/**").stat("/")["kind"] == "directory"


def test_a_directory_that_has_no_read_permission_is_walked(base, far):
    (base / "in/dark").mkdir()
    (base / "in/dark/file").write_bytes(b"x")
    os.chmod(base / "in/dark", 0o111)
    assert far.read(base / "in/dark/file") == b"x"
    os.chmod(base / "in/dark", 0o755)


def test_names_that_are_not_text_are_names_all_the_same(base, far):
    name = os.fsdecode(bytes(base / "in") + b"/caf\xe9 \n\xff")
    assert far.write(name, b"x")[0]
    assert os.listdir(bytes(base / "in")) == [b"caf\xe9 \n\xff"]
    assert far.read(name) == b"x"
    assert far.remove(name)


def test_a_walk_leaves_no_descriptor_open(base, far):
    (base / "in/link").symlink_to("../out/secret")
    (base / "in/dots").symlink_to("../in/..")
    (base / "in/file").write_bytes(b"x")

    def everything() -> None:
        for path in ("link", "link/x", "dots", "file", "file/x", "none/x/y", "none"):
            for call, more in ((far.read, ()), (far.stat, ()), (far.write, (b"y",)), (far.make_dir, ())):
                try:
                    call(base / "in" / path, *more)
                except FarError:
                    continue

    everything()
    before = os.listdir("/proc/self/fd")
    everything()
    assert os.listdir("/proc/self/fd") == before


def test_a_failed_walk_closes_only_what_it_opened(base):
    with pytest.raises(OSError, match="No such file"):
        Walk(f"{base}/in/none/x", [["/**"]], "fs.read").run()
