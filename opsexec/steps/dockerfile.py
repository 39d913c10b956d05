"""Which images a Dockerfile names, read as its parser reads it; what could be read in two ways is no step's.

After the Dockerfile reference (docs.docker.com/reference/dockerfile): a line is ended by a line feed alone, a backslash
before it joins the next one as it stands, a comment's line is as if it weren't there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from opsexec.errors import BadStep
from opsexec.steps.container_shape import image_name

_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_CONTINUED = re.compile(r"\\[ \t]*\Z")
_DIRECTIVE = re.compile(r"#\s*(syntax|escape|check)\s*=", re.IGNORECASE)
_NAMING = re.compile(r"\s*(?:FROM|COPY|ADD|ONBUILD)\s", re.IGNORECASE)
_HEREDOC = re.compile(r"(?<!\S)\d*<<-?['\"]?[A-Za-z0-9_]")
_FROM_NETWORK = re.compile(r"(?:https?|ftp|git|ssh)[:@]")
BLANKS = " \t\v\f\r"
"""What separates the words of an instruction."""


def images_of(dockerfile: str, build_args: Mapping[str, str]) -> tuple[str, ...]:
    """Return the images it builds on or copies from, each once; raises BadStep for one that can't be known."""
    return tuple(dict.fromkeys(_images(dockerfile, build_args)))


def _images(dockerfile: str, build_args: Mapping[str, str]) -> Iterator[str]:
    stages: list[str] = []
    arguments: dict[str, str] = {}
    for line in _instructions(dockerfile):
        word, rest = _split(line)
        while word == "ONBUILD":
            word, rest = _split(rest)
        if word == "ARG" and not stages:
            _declare(rest, arguments, build_args)
        elif word == "FROM":
            base, stage = _from(rest, arguments)
            if base != "scratch" and base not in stages:
                yield image_name(base)
            stages.append(stage or f"#{len(stages)}")
        elif word in ("COPY", "ADD", "RUN"):
            yield from _copied_from(rest, stages)
            if word == "ADD" and _FROM_NETWORK.search(rest):
                raise BadStep("the Dockerfile has an ADD from the network", hint="give the file, or fetch it in a RUN")
    if not stages:
        raise BadStep("the Dockerfile has no FROM")


def _split(line: str) -> tuple[str, str]:
    word = re.split(f"[{BLANKS}]", line, maxsplit=1)
    return word[0].upper(), word[1].strip(BLANKS) if len(word) == 2 else ""


def _declare(rest: str, arguments: dict[str, str], build_args: Mapping[str, str]) -> None:
    """Take an ARG before the first FROM: these alone count there, and build arguments override them."""
    name, equals, value = rest.partition("=")
    if "\\" in rest or any(blank in rest for blank in BLANKS):
        raise BadStep(f"the Dockerfile's ARG {name[:60]!r} can't be read", hint="one plain value each")
    arguments[name] = build_args.get(name, value.strip("\"'") if equals else "")


def _from(rest: str, arguments: Mapping[str, str]) -> tuple[str, str | None]:
    """Return what a FROM builds on, and how it calls its stage."""
    words = rest.split()
    while words and re.match(r"--platform=[A-Za-z0-9_/${}]+\Z", words[0]):
        del words[0]
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise BadStep(f"the Dockerfile's FROM {rest[:80]!r} can't be read", hint="FROM IMAGE, or FROM IMAGE AS STAGE")
    return _filled(words[0], arguments), words[2].lower() if len(words) == 3 else None


def _copied_from(rest: str, stages: list[str]) -> Iterator[str]:
    """Yield the images in an instruction's own options: `--from=IMAGE`, and `from=IMAGE` in `--mount=...`."""
    for word in rest.split():
        if not word.startswith("--"):
            return
        if set(word) & set("\\\"'$"):
            raise BadStep(f"the Dockerfile's option {word[:60]!r} can't be read", hint="name stages and images plainly")
        name, _, value = word[2:].partition("=")
        sources = [value] if name.lower() == "from" else []
        if name.lower() == "mount":
            pairs = (pair.partition("=") for pair in value.split(","))
            sources = [source for key, _, source in pairs if key.lower() == "from"]
        for source in sources:
            if source.lower() not in stages and not (source.isdigit() and int(source) < len(stages)):
                yield image_name(source)


def _filled(text: str, arguments: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not arguments.get(name):
            raise BadStep(f"the Dockerfile's FROM needs {name}", hint="give it a value in build_args")
        return arguments[name]

    filled = _REFERENCE.sub(value, text)
    if "$" in filled:
        raise BadStep(f"the Dockerfile's FROM {text[:80]!r} can't be read", hint="name the image, or use ${NAME}")
    return filled


def _instructions(dockerfile: str) -> Iterator[str]:
    """Yield whole instructions: comments left out, continued lines joined."""
    whole = ""
    for line in dockerfile.split("\n"):
        line = line.removesuffix("\r")
        if line.lstrip().startswith("#"):
            if _DIRECTIVE.match(line.lstrip()):
                raise BadStep("the Dockerfile chooses another syntax", hint="leave that line out")
            continue
        if not line.strip():
            continue
        if whole and _NAMING.match(line):
            # Were a parser to see the end of the instruction before it, this would be one of its own.
            text = f"the Dockerfile's line {line.strip()[:60]!r} stands inside another instruction"
            raise BadStep(text, hint="join it to the line before")
        whole += _CONTINUED.sub("", line if whole else line.lstrip())
        if _CONTINUED.search(line):
            whole = whole or " "
            continue
        yield _whole(whole)
        whole = ""
    if whole.strip():
        yield _whole(whole)


def _whole(line: str) -> str:
    if _HEREDOC.search(line):
        raise BadStep("the Dockerfile has a here-document", hint="give the text as a file of the step")
    return line.strip()
