"""Filter expressions over what items have: `price < 20 and category in ["shoes", "hats"]`.

They are written in a part of Python's grammar, which the standard library parses, and nothing of them is ever run: each
becomes arithmetic on columns. A comparison holds for items that have the attribute, `!=` and `not in` included;
`not (...)` is everything else. `has(name)` asks for the attribute itself.
"""

import ast
import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from feature_store.arrays import Bool, Int64
from feature_store.contracts.errors import InvalidInput
from online_serving.attributes import Attributes

MAX_CHARACTERS = 1_000
_FEW = 16

Value = str | int | float | bool

CATEGORIES = frozenset({"category", "categories"})
_TRUTH = {"true": True, "false": False}
_ORDERS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}


class BrokenExpression(InvalidInput):
    """A filter that says nothing, or something else than filters can."""


class Columns(NamedTuple):
    """All that a filter looks at, of `size` items."""

    attributes: Attributes
    categories: Mapping[str, Int64]  # positions of the items of each
    size: int


Test = Callable[[Columns], Bool]  # (size,)


@functools.lru_cache(maxsize=1_024)
def parse(text: str) -> Test:
    """What an expression asks of items. Raises BrokenExpression naming the place, from 1."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise _broken(text, error.lineno or 1, error.offset - 1 if error.offset else -1, error.msg) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _broken(text, 1, 0, f"it cannot be read: {error}") from None
    return _Compiler(text).test(tree.body)


def both(one: str | None, other: str | None) -> str | None:
    """The expression that holds where both of these do, None: everywhere. Each is to have been read by itself."""
    given = [text for text in (one, other) if text is not None]
    return " and ".join(f"({text}\n)" for text in given) if len(given) > 1 else next(iter(given), None)


def _broken(text: str, line: int, offset: int, reason: str) -> BrokenExpression:
    """line: of the text without the space around it, from 1. offset: in the line, from 0; -1: at its end."""
    place = offset if offset >= 0 else len(_lines(text)[line - 1])
    before = len(text) - len(text.lstrip()) if line == 1 else 0
    return BrokenExpression(f"line {line}, column {before + place + 1}: {reason}")


def _lines(text: str) -> list[str]:
    """As Python tells lines apart."""
    return re.split(r"\r\n|\r|\n", text.strip())


class _Compiler:
    def __init__(self, text: str) -> None:
        self._text = text

    def test(self, node: ast.expr) -> Test:
        match node:
            case ast.BoolOp():
                tests = [self.test(value) for value in node.values]
                return _all(tests) if isinstance(node.op, ast.And) else _any(tests)
            case ast.UnaryOp(op=ast.Not()):
                inner = self.test(node.operand)
                return lambda columns: ~inner(columns)
            case ast.Compare():
                sides = [node.left, *node.comparators]
                tests = [self._compared(*pair) for pair in zip(sides, node.ops, sides[1:], strict=False)]
                return _all(tests)
            case ast.Call(func=ast.Name(id="has"), args=[asked], keywords=[]):
                return _has(self._name(asked))
            case ast.Name() | ast.Subscript():
                name = self._name(node)
                return lambda columns: columns.attributes.flags(name, columns.size) == 1
        raise self._broken(node, "expected a comparison, `in`, `and`, `or`, `not` or has(name)")

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Test:
        if isinstance(op, ast.In | ast.NotIn):
            return self._contained(left, right, isinstance(op, ast.NotIn))
        kind = type(op)
        if kind not in _MIRRORED:
            raise self._broken(right, "expected ==, !=, <, <=, >, >=, in or not in before it")
        if _is_name(right) and not _is_name(left):
            left, right, kind = right, left, _MIRRORED[kind]
        value, negated = self._value(right), kind is ast.NotEq
        if kind in _ORDERS:
            if isinstance(value, str | bool):
                raise self._broken(right, "<, <=, > and >= are for numbers")
            return _ordered(self._name(left), _ORDERS[kind], value)
        if _names_categories(left):
            return self._in_categories(right, [value], negated)
        return _one_of(self._name(left), [value], negated)

    def _contained(self, left: ast.expr, right: ast.expr, negated: bool) -> Test:
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            values = [self._value(one) for one in right.elts]
            if _names_categories(left):
                return self._in_categories(right, values, negated)
            return _one_of(self._name(left), values, negated)
        if _names_categories(right):
            return self._in_categories(left, [self._value(left)], negated)
        raise self._broken(right, 'expected a list of values, ["a", "b"], or `"a" in categories`')

    def _in_categories(self, node: ast.expr, values: Sequence[Value], negated: bool) -> Test:
        names = [value for value in values if isinstance(value, str)]
        if len(names) < len(values):
            raise self._broken(node, "categories are texts")
        return _in_categories(names, negated)

    def _name(self, node: ast.expr) -> str:
        if _names_categories(node):
            raise self._broken(node, 'expected ==, != or in: an attribute of this name is attributes["category"]')
        match node:
            case ast.Name(id=name) if name not in _TRUTH:
                return name
            case ast.Subscript(value=ast.Name(id="attributes"), slice=ast.Constant(value=str() as name)):
                return name
        raise self._broken(node, 'expected the name of an attribute: price, or attributes["list price"]')

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return self._finite(node, value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return self._finite(node, -value)
            case ast.Name(id=name) if name in _TRUTH:
                return _TRUTH[name]
        raise self._broken(node, 'expected a value: 20, -1.5, "text", true or false')

    def _finite(self, node: ast.expr, value: Value) -> Value:
        if not isinstance(value, str | bool) and not abs(value) < 1e300:
            raise self._broken(node, "the number is too large")
        return value

    def _broken(self, node: ast.expr, reason: str) -> BrokenExpression:
        line = _lines(self._text)[node.lineno - 1]
        before = line.encode()[: node.col_offset].decode()
        return _broken(self._text, node.lineno, len(before), reason)


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Subscript) or (isinstance(node, ast.Name) and node.id not in _TRUTH)


def _names_categories(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in CATEGORIES


def _all(tests: Sequence[Test]) -> Test:
    return lambda columns: functools.reduce(np.logical_and, [test(columns) for test in tests])


def _any(tests: Sequence[Test]) -> Test:
    return lambda columns: functools.reduce(np.logical_or, [test(columns) for test in tests])


def _has(name: str) -> Test:
    return lambda columns: columns.attributes.has(name, columns.size)


def _ordered(name: str, compare: Callable[[Any, Any], Any], value: float) -> Test:
    return lambda columns: compare(columns.attributes.numbers(name, columns.size), float(value))


def _one_of(name: str, values: Sequence[Value], negated: bool) -> Test:
    """Whether an attribute has one of these values, or a value of the same kind that is none of them."""
    texts = [value for value in values if isinstance(value, str)]
    flags = [int(value) for value in values if isinstance(value, bool)]
    numbers = [float(value) for value in values if not isinstance(value, str | bool)]

    def test(columns: Columns) -> Bool:
        attributes, size = columns.attributes, columns.size
        found = attributes.is_one_of(name, texts, size)
        if numbers:
            found |= _is_one_of(attributes.numbers(name, size), numbers)
        if flags:
            found |= _is_one_of(attributes.flags(name, size), flags)
        return attributes.has(name, size) & ~found if negated else found

    return test


def _is_one_of(column: Any, values: Sequence[float]) -> Bool:
    """(size,) as np.isin, without sorting the column for a few values."""
    if len(values) > _FEW:
        found: Bool = np.isin(column, values)
        return found
    return functools.reduce(np.logical_or, [column == value for value in values])


def _in_categories(names: Sequence[str], negated: bool) -> Test:
    def test(columns: Columns) -> Bool:
        found = np.zeros(columns.size, np.bool_)
        for name in names:
            found[columns.categories.get(name, [])] = True
        return ~found if negated else found

    return test
