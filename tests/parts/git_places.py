"""Where a token can be put so that a push carries it: one builder a place, each returns the refspecs to push."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from tests.parts.git_gate import Work

BRANCH = "HEAD:refs/heads/work"
Builder = Callable[[Work, str], tuple[str, ...]]
PLACES: dict[str, Builder] = {}


def place(name: str) -> Callable[[Builder], Builder]:
    def keep(builder: Builder) -> Builder:
        PLACES[name] = builder
        return builder

    return keep


def _file(work: Work, name: str, content: str | bytes) -> tuple[str, ...]:
    work.write(name, content)
    work.commit()
    return (BRANCH,)


def _object(work: Work, kind: str, content: bytes) -> str:
    return work.git("hash-object", "-t", kind, "-w", "--stdin", "--literally", stdin=content)


@place("GI1-message")
def _message(work: Work, token: str) -> tuple[str, ...]:
    work.commit(f"see {token}")
    return (BRANCH,)


@place("GI2-author")
def _author(work: Work, token: str) -> tuple[str, ...]:
    work.env = {**work.env, "GIT_AUTHOR_NAME": token, "GIT_COMMITTER_EMAIL": f"{token}@example.org"}
    work.commit()
    return (BRANCH,)


@place("GI2-extra-header")
def _header(work: Work, token: str) -> tuple[str, ...]:
    raw = work.git("cat-file", "commit", work.commit())
    head, _, message = raw.partition("\n\n")
    oid = _object(work, "commit", f"{head}\nx-note {token}\n\n{message}\n".encode())
    return (f"{oid}:refs/heads/work",)


@place("GI3-ref-name")
def _ref_name(work: Work, token: str) -> tuple[str, ...]:
    work.commit()
    return (f"HEAD:refs/heads/{token}",)


@place("GI4-tag-message")
def _tag_message(work: Work, token: str) -> tuple[str, ...]:
    work.git("tag", "-a", "-m", token, "v1")
    return ("refs/tags/v1",)


@place("GI5-notes")
def _notes(work: Work, token: str) -> tuple[str, ...]:
    work.git("notes", "add", "-m", token, "HEAD")
    return ("refs/notes/commits",)


@place("GI6-tag-to-blob")
def _tag_blob(work: Work, token: str) -> tuple[str, ...]:
    work.git("tag", "blob", _object(work, "blob", token.encode()))
    return ("refs/tags/blob",)


@place("GI7-tag-to-tree")
def _tag_tree(work: Work, token: str) -> tuple[str, ...]:
    blob = _object(work, "blob", b"nothing\n")
    work.git("tag", "tree", work.git("mktree", stdin=f"100644 blob {blob}\t{token}\n".encode()))
    return ("refs/tags/tree",)


@place("GI8-evil-merge")
def _merge(work: Work, token: str) -> tuple[str, ...]:
    base = work.commit("base")
    work.write("one", "1\n")
    work.commit("one")
    work.git("checkout", "-q", "-b", "side", base)
    work.write("two", "2\n")
    work.commit("two")
    work.git("merge", "-q", "--no-commit", "--no-ff", "-")
    work.write("three", token)
    work.commit("merge")
    return (BRANCH,)


@place("GI9-gitattributes")
def _attributes(work: Work, token: str) -> tuple[str, ...]:
    work.write(".gitattributes", "* binary -diff\n*.txt filter=hide export-ignore\n")
    return _file(work, "a.txt", token)


@place("GI10-gitattributes-before")
def _attributes_before(work: Work, token: str) -> tuple[str, ...]:
    work.write(".gitattributes", "* binary -diff\n")
    work.commit()
    assert work.push("HEAD:refs/heads/attributes").status == 0
    return _file(work, "a.txt", token)


@place("GI11-nul")
def _nul(work: Work, token: str) -> tuple[str, ...]:
    return _file(work, "a.bin", b"\0\1\2" * 3000 + token.encode() + b"\0\0")


@place("GI11-nul-between")
def _nul_between(work: Work, token: str) -> tuple[str, ...]:
    return _file(work, "a.bin", b"\0".join(bytes([byte]) for byte in token.encode()))


@place("GI12-allow-comment")
def _allow(work: Work, token: str) -> tuple[str, ...]:
    return _file(work, "a.py", f'key = "{token}"  # gitleaks:allow nosec noqa pragma: allowlist secret\n')


@place("GI13-gitleaks-toml")
def _gitleaks_toml(work: Work, token: str) -> tuple[str, ...]:
    work.write(".gitleaks.toml", "[extend]\nuseDefault = true\n[allowlist]\npaths = ['''.*''']\nregexes = ['''.*''']\n")
    return _file(work, "a.py", token)


@place("GI14-gitleaksignore")
def _gitleaksignore(work: Work, token: str) -> tuple[str, ...]:
    work.write(".gitleaksignore", ":github-pat:1\n:github-pat:2\na.py:github-pat:1\n")
    return _file(work, "a.py", token)


ENCODED: dict[str, Callable[[bytes], bytes]] = {
    "GI15-utf16": lambda raw: raw.decode().encode("utf-16"),
    "GI15-utf32": lambda raw: raw.decode().encode("utf-32"),
    "GI15-base32": base64.b32encode,
    "GI15-base64-lines": lambda raw: base64.encodebytes(b"a" * 50 + raw + b"z" * 50),
    "GI15-base64-twice": lambda raw: base64.b64encode(base64.urlsafe_b64encode(raw)),
    "GI15-escapes": lambda raw: "".join(f"\\x{byte:02x}" for byte in raw).encode(),
    "GI15-byte-list": lambda raw: repr(list(raw)).encode(),
    "GI15-zero-width": lambda raw: "\u200b".join(raw.decode()).encode(),
    "GI15-entities": lambda raw: "".join(f"&#{byte};" for byte in raw).encode(),
    "GI15-rot13": lambda raw: bytes(_rot13(byte) for byte in raw),
    "GI16-reversed": lambda raw: raw[::-1],
    "GI16-reversed-base64": lambda raw: base64.b64encode(raw)[::-1],
    "GI17-split": lambda raw: b'key = "' + raw[:15] + b'" + \\\n      "' + raw[15:] + b'"\n',
    "GI17-split-lines": lambda raw: raw[:20] + b"\n" + raw[20:] + b"\n",
    "GI18-gzip": lambda raw: gzip.compress(b"x" * 100 + raw),
    "GI18-gzip-behind": lambda raw: b"#!/bin/sh\nexit 0\n" + gzip.compress(raw),
    "GI18-bzip2": bz2.compress,
    "GI18-zlib-base64": lambda raw: base64.b64encode(zlib.compress(b"x" * 40 + raw)),
    "GI19-zip": lambda raw: zipped("a.txt", raw),
    "GI19-zip-name": lambda raw: zipped(raw.decode(), b"nothing"),
    "GI20-nested": lambda raw: gzip.compress(tarred("a.zip", zipped("b.gz", gzip.compress(raw)))),
    "GI38-base64": lambda raw: b"data: " + base64.b64encode(b"user:" + raw) + b"\n",
    "GI39-hex": lambda raw: raw.hex().encode(),
    "GI39-hex-colons": lambda raw: raw.hex(":").encode(),
    "GI40-url": lambda raw: "".join(f"%{byte:02X}" for byte in raw).encode(),
    "GI40-url-thrice": lambda raw: "".join(f"%2525{byte:02X}" for byte in raw).encode(),
}


def _rot13(byte: int) -> int:
    for first in (65, 97):
        if first <= byte < first + 26:
            return first + (byte - first + 13) % 26
    return byte


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _encoded(encode: Callable[[bytes], bytes]) -> Builder:
    return lambda work, token: _file(work, "data", encode(token.encode()))


PLACES.update({name: _encoded(encode) for name, encode in ENCODED.items()})


@place("GI21-filename")
def _filename(work: Work, token: str) -> tuple[str, ...]:
    return _file(work, f"docs/{token}.txt", "nothing\n")


@place("GI21-directories")
def _directories(work: Work, token: str) -> tuple[str, ...]:
    return _file(work, f"{token[:20]}/{token[20:]}", "nothing\n")


@place("GI22-gitmodules")
def _gitmodules(work: Work, token: str) -> tuple[str, ...]:
    return _file(work, ".gitmodules", f'[submodule "a"]\n\tpath = a\n\turl = https://x:{token}@example.org/a\n')


@place("GI23-symlink")
def _symlink(work: Work, token: str) -> tuple[str, ...]:
    (work.path / "link").symlink_to(f"../{token}")
    work.commit()
    return (BRANCH,)


@place("GI24-lfs-pointer")
def _lfs_pointer(work: Work, token: str) -> tuple[str, ...]:
    oid = token.encode().hex()[:64].ljust(64, "0")
    return _file(work, "big", f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 99\n")


@place("GI26-replace")
def _replace(work: Work, token: str) -> tuple[str, ...]:
    harmless = _object(work, "blob", b"harmless\n")
    work.write("a", token)
    work.commit()
    work.git("replace", _object(work, "blob", token.encode()), harmless)
    return ("refs/replace/*:refs/replace/*", BRANCH)


@place("GI27-grafts")
def _grafts(work: Work, token: str) -> tuple[str, ...]:
    _file(work, "a", token)
    (work.path / "a").unlink()
    last = work.commit("gone again")
    (work.path / ".git/info").mkdir(exist_ok=True)
    (work.path / ".git/info/grafts").write_text(f"{last}\n")
    return (BRANCH,)


@place("GI29-second-ref")
def _second_ref(work: Work, token: str) -> tuple[str, ...]:
    clean = work.commit("clean")
    _file(work, "a", token)
    return (f"{clean}:refs/heads/clean", "HEAD:refs/heads/dirty")


@place("GI29-removed-again")
def _removed_again(work: Work, token: str) -> tuple[str, ...]:
    _file(work, "a", token)
    (work.path / "a").unlink()
    work.commit("gone again")
    return (BRANCH,)


@place("GI30-force-push")
def _force(work: Work, token: str) -> tuple[str, ...]:
    work.commit("one")
    assert work.push("HEAD:refs/heads/forced").status == 0
    work.git("commit", "-q", "--amend", "--allow-empty", "-m", token)
    return ("+HEAD:refs/heads/forced",)


@place("GI31-delete")
def _delete(work: Work, token: str) -> tuple[str, ...]:
    work.commit("one")
    return (f":refs/heads/{token}", BRANCH)


@place("GI32-huge-file")
def _huge(work: Work, token: str) -> tuple[str, ...]:
    lines = random.Random(1).randbytes(3 << 20).hex(" ", 16).replace(" ", "\n")
    return _file(work, "huge.txt", lines[: 4 << 20] + f"\n{token}\n" + lines[4 << 20 :])


NAMED = {
    "GI33-lockfile": "package-lock.json",
    "GI34-node-modules": "node_modules/a/index.js",
    "GI35-go-sum": "go.sum",
    "GI36-png": "logo.png",
    "GI37-svg": "logo.svg",
}


def _named(name: str) -> Builder:
    return lambda work, token: _file(work, name, f'\x89PNG\n "token": "{token}"\n')


PLACES.update({name: _named(path) for name, path in NAMED.items()})


@place("GI36-png-text-chunk")
def _png_chunk(work: Work, token: str) -> tuple[str, ...]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\0\0\0\0")
    return _file(work, "logo.png", head + chunk(b"zTXt", b"k\0\0" + zlib.compress(token.encode())))
