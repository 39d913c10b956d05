"""Conditions: a small language of our own for `when`, `assert.that` and `changed_when`.

    or-list:  and-list { "or" and-list }         operand: ${a.b[0]} | word | 'text' | number
    and-list: not-part { "and" not-part }                 | true | false | null | [ operand, ... ]
    not-part: "not" not-part | comparison                 | ( or-list )
    comparison: operand [ ( == != < > <= >= | in | not in ) operand ]

A bare word is text where it is compared (`${tier} == prod`); alone, `changed` and `failed` say whether an
earlier step of this host changed something or failed, and any other word is an error.
"""

from __future__ import annotations

import operator as operators
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from opsexec.errors import BadRunbook
from opsexec.runbook.reference import Lookup, Reference, nearest, read_reference
from opsexec.secret import Secret

MAX_LENGTH = 4096
MAX_DEPTH = 32
FLAGS = ("changed", "failed")

_TOKEN = re.compile(
    r"""\s*(?:(?P<reference>\$\{)|(?P<text>'[^']*'|"[^"]*")|(?P<operator>==|!=|<=|>=|<|>)|(?P<mark>[()\[\],])"""
    r"""|(?P<word>[A-Za-z0-9_./:@%+*~^-]+))"""
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]+)?)\Z")
_KEYWORDS = frozenset({"and", "or", "not", "in"})
_ORDER: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operators.lt,
    ">": operators.gt,
    "<=": operators.le,
    ">=": operators.ge,
}
_LITERALS: Mapping[str, Any] = {"true": True, "false": False, "null": None}


class Token(NamedTuple):
    """One token: its kind, its value, and where it starts."""

    kind: str
    value: Any
    at: int


class Literal(NamedTuple):
    """A value written in the condition."""

    value: Any


class Word(NamedTuple):
    """A bare word: text where it is compared, a flag where it stands alone."""

    text: str


class ListOf(NamedTuple):
    """A list written in the condition."""

    items: tuple[Node, ...]


class Not(NamedTuple):
    """The opposite of its operand."""

    operand: Node


class Both(NamedTuple):
    """Holds when every operand does."""

    operands: tuple[Node, ...]


class Either(NamedTuple):
    """Holds when one operand does."""

    operands: tuple[Node, ...]


class Compare(NamedTuple):
    """Two operands and the operator between them."""

    left: Node
    operator: str
    right: Node


Node = Literal | Word | Reference | ListOf | Not | Both | Either | Compare


class Condition(NamedTuple):
    """A parsed condition: `holds(scope, flags)` answers it, `references()` says what it reads."""

    text: str
    root: Node

    def holds(self, scope: Lookup, flags: Mapping[str, bool] | None = None) -> bool:
        """Return the answer; raises UndefinedVariable, or BadRunbook for values that can't be compared."""
        return _truth(self.root, scope, flags or {})

    def references(self) -> tuple[Reference, ...]:
        """Return every reference in it, in order."""
        return tuple(_references(self.root))


@lru_cache(maxsize=2048)
def parse_condition(text: str) -> Condition:
    """Parse a condition; raises BadRunbook saying where it stops making sense."""
    if len(text) > MAX_LENGTH:
        raise BadRunbook(f"the condition is over {MAX_LENGTH} characters", hint="decide in a shell step, then register")
    parser = _Parser(text)
    root = parser.either(0)
    if parser.peek().kind != "end":
        raise parser.fault("an operator or the end")
    _check_truth(root, text)
    return Condition(text, root)


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            shown = text[at:].strip()[:20]
            raise BadRunbook(
                f"can't read {shown!r} in the condition {text[:80]!r}", hint="quote text that has odd signs"
            )
        kind, start = str(match.lastgroup), match.start(str(match.lastgroup))
        if kind == "reference":
            reference, at = read_reference(text, match.end())
            yield Token(kind, reference, start)
            continue
        at = match.end()
        value: Any = match[kind]
        if kind == "text":
            value = value[1:-1]
            if "${" in value:
                raise BadRunbook(f"a quoted {value[:40]!r} is not filled in", hint="write ${name} without quotes")
        elif kind == "word" and value in _KEYWORDS:
            kind = "operator"
        yield Token(kind, value, start)
    yield Token("end", "", len(text))


class _Parser:
    """Recursive descent over the tokens; depth is bounded, so that no input can exhaust the stack."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.at = 0

    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self, *values: str) -> str | None:
        """Consume the next token when it is one of these operators or marks."""
        token = self.peek()
        if token.kind in ("operator", "mark") and token.value in values:
            self.at += 1
            return str(token.value)
        return None

    def fault(self, wanted: str) -> BadRunbook:
        token = self.peek()
        got = "the end" if token.kind == "end" else f"{str(token.value)[:30]!r}"
        return BadRunbook(
            f"the condition {self.text[:80]!r} needs {wanted} at character {token.at + 1}, not {got}",
            hint="like ${tier} == prod and not ${out.exit_code} > 0",
        )

    def either(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise BadRunbook(f"the condition is nested over {MAX_DEPTH} deep", hint="split it over steps")
        parts = [self.both(depth)]
        while self.take("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def both(self, depth: int) -> Node:
        parts = [self.negated(depth)]
        while self.take("and"):
            parts.append(self.negated(depth))
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def negated(self, depth: int) -> Node:
        count = 0
        while self.take("not"):
            count += 1
        node = self.comparison(depth)
        return Not(node) if count % 2 else (Not(Not(node)) if count else node)

    def comparison(self, depth: int) -> Node:
        left = self.operand(depth)
        operator = self.take("==", "!=", "<=", ">=", "<", ">", "in")
        if operator is None:
            if not self.take("not"):
                return left
            if not self.take("in"):
                raise self.fault("`in` after `not`")
            operator = "not in"
        return Compare(left, operator, self.operand(depth))

    def operand(self, depth: int) -> Node:
        token = self.peek()
        if token.kind == "reference":
            self.at += 1
            assert isinstance(token.value, Reference)
            return token.value
        if token.kind == "text":
            self.at += 1
            return Literal(token.value)
        if token.kind == "word":
            self.at += 1
            return _word(str(token.value))
        if self.take("("):
            node = self.either(depth + 1)
            if not self.take(")"):
                raise self.fault("a closing )")
            return node
        if self.take("["):
            return self.items(depth)
        raise self.fault("a variable, a word or a value")

    def items(self, depth: int) -> Node:
        if depth >= MAX_DEPTH:
            raise BadRunbook(f"the condition is nested over {MAX_DEPTH} deep", hint="split it over steps")
        items: list[Node] = []
        while not self.take("]"):
            items.append(self.operand(depth + 1))
            if not self.take(",") and not (self.peek().kind == "mark" and self.peek().value == "]"):
                raise self.fault("a comma or ]")
        return ListOf(tuple(items))


def _word(text: str) -> Node:
    if text in _LITERALS:
        return Literal(_LITERALS[text])
    if _NUMBER.match(text):
        return Literal(float(text) if "." in text else int(text))
    return Word(text)


def _check_truth(node: Node, text: str) -> None:
    """Raise BadRunbook where a bare word or a list stands as a condition of its own: it would always hold."""
    if isinstance(node, Word) and node.text not in FLAGS:
        known = nearest(node.text, FLAGS)
        hint = f"{known}{'' if known.endswith('?') else ';'} a variable is written ${{{node.text}}}"
        raise BadRunbook(f"the word {node.text!r} alone is no condition in {text[:80]!r}", hint=hint)
    if isinstance(node, ListOf):
        raise BadRunbook(f"a list alone is no condition in {text[:80]!r}", hint="use it after `in`")
    if isinstance(node, Compare):
        _check_compare(node, text)
    if isinstance(node, Not):
        _check_truth(node.operand, text)
    elif isinstance(node, (Both, Either)):
        for operand in node.operands:
            _check_truth(operand, text)


def _check_compare(node: Compare, text: str) -> None:
    """Raise BadRunbook where a bare word is compared with no variable: `tier == prod` would never hold."""
    if not all(isinstance(side, (Word, Literal, ListOf)) for side in (node.left, node.right)):
        return
    word = next(_words(node.left), None) or next(_words(node.right), None)
    if word is not None and not any(_references(node)):
        hint = f"write {word} or not {word}" if word in FLAGS else f"a variable is written ${{{word}}}"
        raise BadRunbook(f"{text[:80]!r} compares no variable, {word!r} is text there", hint=hint)


def _words(node: Node) -> Iterator[str]:
    for each in node.items if isinstance(node, ListOf) else (node,):
        if isinstance(each, Word):
            yield each.text


def _truth(node: Node, scope: Lookup, flags: Mapping[str, bool]) -> bool:
    if isinstance(node, Both):
        return all(_truth(operand, scope, flags) for operand in node.operands)
    if isinstance(node, Either):
        return any(_truth(operand, scope, flags) for operand in node.operands)
    if isinstance(node, Not):
        return not _truth(node.operand, scope, flags)
    if isinstance(node, Word):
        return flags.get(node.text, False)
    value = _value(node, scope, flags)
    if isinstance(value, Secret):
        raise BadRunbook("a secret stands in a condition", hint="conditions show in reports; compare something else")
    return _text_truth(value) if isinstance(value, str) else bool(value)


def _text_truth(text: str) -> bool:
    """Return what text means alone: as in a comparison, `false` and `0` are what they are written like."""
    if text.lower() in ("no", "off", "n"):
        raise BadRunbook(f"the text {text!r} alone is no condition", hint="write true or false, or compare it")
    return text.lower() != "false" and bool(text if _number(text) is None else _number(text))


def _value(node: Node, scope: Lookup, flags: Mapping[str, bool]) -> Any:
    if isinstance(node, Reference):
        return scope.lookup(node)
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Word):
        return node.text
    if isinstance(node, ListOf):
        return [_value(item, scope, flags) for item in node.items]
    if isinstance(node, Compare):
        return _compare(_value(node.left, scope, flags), node.operator, _value(node.right, scope, flags))
    return _truth(node, scope, flags)


def _compare(left: Any, operator: str, right: Any) -> bool:
    if isinstance(left, Secret) or isinstance(right, Secret):
        raise BadRunbook(
            "a secret is compared in a condition", hint="conditions show in reports; compare something else"
        )
    if operator == "==":
        return equal(left, right)
    if operator == "!=":
        return not equal(left, right)
    if operator in ("in", "not in"):
        return _contains(right, left) == (operator == "in")
    return _ordered(left, operator, right)


def equal(left: Any, right: Any) -> bool:
    """True when both are the same; text equals a number or bool that is written like it (`--var n=3`)."""
    if isinstance(left, str) != isinstance(right, str):
        text, other = (left, right) if isinstance(left, str) else (right, left)
        if isinstance(other, bool):
            return bool(text == ("true" if other else "false"))
        if isinstance(other, (int, float)):
            number = _number(text)
            return number is not None and number == other
        return False
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _contains(container: Any, item: Any) -> bool:
    if isinstance(container, str):
        if not isinstance(item, str):
            raise BadRunbook("only text can be `in` text", hint="compare with == instead")
        return item in container
    if isinstance(container, (list, tuple)):
        return any(equal(item, each) for each in container)
    if isinstance(container, Mapping):
        return any(equal(item, key) for key in container)
    raise BadRunbook("`in` needs a list, a map or text on its right", hint="like ${tier} in [dev, staging]")


def _ordered(left: Any, operator: str, right: Any) -> bool:
    pair: tuple[Any, Any] = _number(left), _number(right)
    if None in pair:
        if not (isinstance(left, str) and isinstance(right, str)):
            raise BadRunbook(f"{_kind(left)} and {_kind(right)} have no order", hint="compare two numbers or texts")
        pair = left, right
    return bool(_ORDER[operator](*pair))


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and len(value) <= 40 and _NUMBER.match(value):
        return float(value) if "." in value else int(value)
    return None


def _kind(value: Any) -> str:
    return {str: "text", bool: "a bool", int: "a number", float: "a number", type(None): "null"}.get(
        type(value), "a list or map"
    )


def _references(node: Node) -> Iterator[Reference]:
    if isinstance(node, Reference):
        yield node
    elif isinstance(node, ListOf):
        for item in node.items:
            yield from _references(item)
    elif isinstance(node, (Both, Either)):
        for operand in node.operands:
            yield from _references(operand)
    elif isinstance(node, Not):
        yield from _references(node.operand)
    elif isinstance(node, Compare):
        yield from _references(node.left)
        yield from _references(node.right)
