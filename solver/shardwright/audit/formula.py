"""Arithmetic of reports: exact numbers with dimensions."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fractions import Fraction

from shardwright.audit.evidence import Value
from shardwright.schema.printed import COUNT, Dimension

_MOST_NODES = 200
_LEAST = Fraction(1, 10**60)


def evaluate(formula: str, names: Mapping[str, Value]) -> Value:
    """The value of ``formula``: + - * / ( ) min() max(), numbers and ``names``.

    Raises ValueError where it is none, or adds figures of different dimensions.
    """
    try:
        tree = ast.parse(formula, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"a formula ({error})") from error
    if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
        raise ValueError("a shorter formula")
    found = _value(tree.body, names)
    if found.number and not _LEAST < abs(found.number) < 1 / _LEAST:
        raise ValueError("a result between 1e-60 and 1e60")
    return found


def _value(node: ast.expr, names: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=bool()):
            raise ValueError("numbers, not true or false")
        case ast.Constant(value=int() | float() as number):
            return Value(Fraction(str(number)), COUNT)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _value(left, names), _value(right, names))
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=[_, *_] as args):
            values = [_value(arg, names) for arg in args]
            for other in values[1:]:
                _same(values[0], other)
            choose = min if name == "min" else max
            return choose(values, key=lambda value: value.number)
    raise ValueError(
        f"+ - * / ( ) min() max(), numbers and the names {sorted(names)}; "
        f"{ast.unparse(node)!r} is none of them"
    )


def _same(left: Value, right: Value) -> None:
    if left.dimension != right.dimension:
        raise ValueError("figures of one kind where they are added or compared")


def _binary(op: ast.operator, left: Value, right: Value) -> Value:
    match op:
        case ast.Add() | ast.Sub():
            _same(left, right)
            sign = 1 if isinstance(op, ast.Add) else -1
            return Value(left.number + sign * right.number, left.dimension)
        case ast.Mult():
            return Value(left.number * right.number, _joined(left, right, 1))
        case ast.Div():
            if not right.number:
                raise ValueError("no division by zero")
            return Value(left.number / right.number, _joined(left, right, -1))
    raise ValueError("only + - * /")


def _joined(left: Value, right: Value, sign: int) -> Dimension:
    a, b = left.dimension, right.dimension
    return (a[0] + sign * b[0], a[1] + sign * b[1], a[2] + sign * b[2])
