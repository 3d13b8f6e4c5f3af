"""Mutants of a Python module: copies of its text with one small change each, which a good test must notice.

A mutant is made from the syntax tree but spliced into the text, so line numbers and comments stay as they are.
"""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.txt")

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TYPE_CALLS = {"TypeVar", "NewType", "cast"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NEVER_IN_PARENTHESES = (ast.Constant, ast.JoinedStr, ast.Name, ast.Slice)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed text of a module; ``before`` and ``after`` are the first line that differs, without indentation."""

    path: str  # relative to the checkout
    line: int
    function: int  # first line of the innermost function around the change, as in its code object; 0 outside of any
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before} -> {self.after}"

    @property
    def change(self) -> tuple[str, str]:
        """The line before and after without the comment behind it, as EQUIVALENTS tells a mutant."""
        return self.before.split("  #")[0], self.after.split("  #")[0]


def equivalents() -> frozenset[tuple[str, str]]:
    """Read the (line before, line after) pairs that a person found equivalent, as EQUIVALENTS lists them."""
    lines = EQUIVALENTS.read_text().splitlines() if EQUIVALENTS.exists() else []
    return frozenset((old[2:], new[2:]) for old, new in itertools.pairwise(lines) if (old[:2], new[:2]) == ("- ", "+ "))


def mutants_of(checkout: Path, path: str) -> list[Mutant]:
    """Make all mutants of one module, in the order of its text."""
    return list(_Module(path, (checkout / path).read_text()).mutants())


class _Module:
    """The syntax tree of one module, and the bytes that its positions count."""

    def __init__(self, path: str, source: str) -> None:
        self.path = path
        self.source = source.encode()
        self.tree = ast.parse(source)
        self.line_starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.line_starts.append(self.line_starts[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        yield from self._visit(self.tree, self.tree, 0)

    def _visit(self, node: ast.AST, anchor: ast.AST, function: int) -> Iterator[Mutant]:
        """Yield the mutants of a node and what it contains.

        ``anchor`` is the smallest node around it whose position is right: before 3.12, parts of f-strings have none.
        """
        if isinstance(node, _FUNCTIONS):
            function = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        if not isinstance(anchor, ast.JoinedStr):
            anchor = node
        if isinstance(node, (ast.expr, ast.stmt)):
            for changed in _changes(node):
                yield from self._mutant(node, changed, anchor, function)
        for part, changed in _changed_parts(node):
            yield from self._mutant(part, changed, anchor if isinstance(anchor, ast.JoinedStr) else part, function)
        for field, value in ast.iter_fields(node):
            if _is_equivalent_by_nature(node, field):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_typing_only(child):
                    yield from self._visit(child, anchor, function)

    def _mutant(self, node: ast.AST, changed: ast.AST, anchor: ast.AST, function: int) -> Iterator[Mutant]:
        """Yield the mutant with ``changed`` in the place of ``node``; none where an f-string cannot be written so."""
        assert isinstance(anchor, (ast.expr, ast.stmt))
        assert anchor.end_lineno is not None
        assert anchor.end_col_offset is not None
        start = self.line_starts[anchor.lineno - 1] + anchor.col_offset
        end = self.line_starts[anchor.end_lineno - 1] + anchor.end_col_offset
        try:
            after = ast.unparse(_replaced(anchor, node, changed))
        except ValueError:  # before 3.12, no backslash within its braces
            return
        if isinstance(anchor, ast.expr) and not isinstance(anchor, _NEVER_IN_PARENTHESES):
            after = f"({after})"
        text = (self.source[:start] + after.encode() + self.source[end:]).decode()
        pairs = zip(self.source.decode().splitlines(), text.splitlines(), strict=False)
        line, old, new = next((line, *pair) for line, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        yield Mutant(self.path, line, function, old.strip(), new.strip(), text)


def _replaced(anchor: ast.AST, node: ast.AST, changed: ast.AST) -> ast.AST:
    """Return a copy of ``anchor`` with ``changed`` in the place of ``node``, which it is or contains."""
    if anchor is node:
        return changed
    return copy.deepcopy(anchor, {id(node): changed})


def _is_equivalent_by_nature(node: ast.AST, field: str) -> bool:
    """Tell whether what a field of a node contains is never seen by a program, or is a message for people alone."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return field in ("decorator_list", "returns")  # dataclass(slots=True), lru_cache(maxsize=...)
        case ast.AnnAssign() | ast.arg():
            return field == "annotation"
        case ast.Raise():
            return field == "exc"  # the message; the removed statement is a mutant already
        case ast.keyword(arg="strict") | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True  # zip(strict=True) is an assertion
        case ast.Call(func=ast.Name(id=name)):
            return name in _TYPE_CALLS
    return False


def _is_typing_only(node: ast.AST) -> bool:
    """Tell docstrings, ``__slots__``, ``__all__``, protocols and aliases of types from what a program does."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() | ast.BinOp(op=ast.BitOr()) | ast.Name()):
            return name.lstrip("_")[:1].isupper() and not name.isupper()  # Stack = tuple[Frame, ...]
        case ast.ClassDef(bases=[ast.Name(id="Protocol"), *_]):
            return True
        case ast.FunctionDef(name="__repr__"):
            return True
    return False


def _changes(node: ast.expr | ast.stmt) -> Iterator[ast.AST]:
    """Yield what may stand in the place of this very node; what it contains is changed by itself."""
    match node:
        case ast.stmt():
            yield from _changed_statement(node)
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                changed = copy.deepcopy(node)
                changed.ops[place] = _COMPARISONS[type(operator)]()
                yield changed
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
        case ast.BoolOp():
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.Constant():
            yield from _changed_constant(node)
        case ast.Slice(lower=lower, upper=upper, step=step):
            yield from [ast.Slice(None, upper, step)] if lower else []
            yield from [ast.Slice(lower, None, step)] if upper else []
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            yield ast.Call(ast.Name(_CALLS[name]), node.args, node.keywords)


def _changed_statement(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.AugAssign() if type(node.op) in _ARITHMETIC:
            yield ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)
            yield ast.Pass()
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()) | ast.Raise() | ast.Delete() | ast.AugAssign():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield ast.Pass()


def _changed_constant(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool():
            yield ast.Constant(not node.value)
        case int():
            yield ast.Constant(node.value + 1)
            yield ast.Constant(node.value - 1)
        case float():
            yield ast.Constant(node.value * 2 + 1)
        case str() if node.value:
            swapped = node.value.swapcase()  # for struct a number of the other sign
            yield ast.Constant(swapped if swapped != node.value else f"{node.value}!")
        case bytes() if node.value:
            yield ast.Constant(node.value + b"!")


def _changed_parts(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield parts of a node that change for where they stand, with what may stand there: conditions, exceptions."""
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            tests = [test]
        case ast.comprehension(ifs=tests):
            pass
        case ast.ExceptHandler(type=ast.Tuple(elts=caught) as exceptions):
            for place in range(len(caught)):
                yield exceptions, ast.Tuple(caught[:place] + caught[place + 1 :], ast.Load())
            return
        case ast.ExceptHandler(type=ast.expr() as exception):
            yield exception, ast.Tuple([], ast.Load())
            return
        case _:
            return
    for test in tests:
        match test:
            case ast.UnaryOp(op=ast.Not()) | ast.Compare(ops=[ast.Eq() | ast.NotEq() | ast.Is() | ast.IsNot()]):
                pass  # negated as an expression already
            case ast.Compare(ops=[ast.In() | ast.NotIn()]):
                pass
            case _:
                yield test, ast.UnaryOp(ast.Not(), test)
