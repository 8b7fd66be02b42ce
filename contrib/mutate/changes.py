"""Makes small changes of a Python source, each at one place, as a careless edit could.

Promises: every change is valid Python and differs from the source. Nothing is changed in docstrings, annotations,
decorators, imports and texts for people (strings with a space in them that are not SQL).
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_SWAPS = {
    "and": "or", "or": "and", "==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "is": "is not",
    "is not": "is", "in": "not in", "not in": "in", "+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "&": "|", "|": "&",
    "+=": "-=", "-=": "+=", "|=": "&=", "&=": "|=",
}  # fmt: skip
_FUNCTIONS = {"any": "all", "all": "any", "min": "max", "max": "min"}
_IS_SQL = re.compile(r"\b(?:SELECT|UPDATE|DELETE|INSERT|WHERE|AND|OR|ORDER BY|EXISTS|LIMIT|PRAGMA|CASE|IS NULL)\b")
_SQL: tuple[tuple[str, str], ...] = (
    (r"\bAND\b", "OR"),
    (r"\bOR\b(?! FAIL)", "AND"),
    (r" ORDER BY [^\"'()]+?(?= LIMIT|[\"')])", ""),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r"\bNOT IN\b", "IN"),
    (r"(?<!NOT )\bIN\b", "NOT IN"),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r" DESC\b", ""),
    (r" < ", " <= "),
    (r" > ", " < "),
    (r" <= ", " < "),
    (r"\bLEFT JOIN\b", "JOIN"),
)
_DROPPED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Return, ast.Delete, ast.Continue, ast.Break)
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Change:
    """`new` instead of the octets of the source from `start` to `end`. lines: those of the statement, first and last; a test
    that runs one of them may notice the change."""

    kind: str
    start: int
    end: int
    new: str
    lines: tuple[int, int]

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def changes(source: bytes) -> list[Change]:
    """All changes of a source in UTF-8, in the order of their places."""
    found = sorted(set(_Finder(source).find()), key=lambda change: (change.start, change.end, change.new))
    return [change for change in found if _is_valid(change.apply(source), source)]


def _is_valid(changed: bytes, source: bytes) -> bool:
    try:
        ast.parse(changed)
    except SyntaxError:
        return False
    return changed != source


class _Finder:
    def __init__(self, source: bytes) -> None:
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        # Operators and strings, with the offsets of their octets.
        self._tokens: list[tuple[int, int, str, bool]] = []
        lines = source.decode().splitlines(keepends=True)
        middle = getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)
        for token in tokenize.generate_tokens(io.StringIO(source.decode()).readline):
            if token.type in (tokenize.NAME, tokenize.OP, tokenize.STRING, middle):
                start, end = (
                    self._starts[row - 1] + len(lines[row - 1][:at].encode()) for row, at in (token.start, token.end)
                )
                self._tokens.append((start, end, token.string, token.type in (tokenize.STRING, middle)))
        # Members of enums and the like, by their class: one that the source uses takes the place of another.
        self._members: dict[str, list[str]] = {}
        self._tree = ast.parse(source)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr.isupper():
                members = self._members.setdefault(node.value.id, [])
                if node.attr not in members:
                    members.append(node.attr)

    def find(self) -> Iterator[Change]:
        for statement in self._tree.body:
            yield from self._statement(statement, is_dropped=False)

    def _statement(self, node: ast.stmt, *, is_dropped: bool) -> Iterator[Change]:
        """Changes in a statement and those within it. is_dropped: whether it may be left out."""
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Pass)) or _is_docstring(node):
            return
        blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        first = next((block[0].lineno for block in blocks if block), None)
        lines = (node.lineno, max(node.lineno, first - 1) if first else node.end_lineno or node.lineno)
        if is_dropped and isinstance(node, _DROPPED):
            yield self._replace("statement", node, "pass", lines)
        yield from self._parts(node, lines)
        is_dropped = isinstance(node, _FUNCTION) or (is_dropped and not isinstance(node, ast.ClassDef))
        for block in blocks:
            for inner in block:
                yield from self._statement(inner, is_dropped=is_dropped)

    def _parts(self, node: ast.stmt, lines: tuple[int, int]) -> Iterator[Change]:
        """Changes in a statement itself, without those in the statements of its blocks."""
        expressions: list[ast.AST] = []
        match node:
            case ast.Try() | ast.TryStar():
                yield from self._try(node)
            case ast.Match():
                for case in node.cases:
                    yield from self._in_match_case(case)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                expressions += [*node.args.defaults, *(one for one in node.args.kw_defaults if one)]
            case ast.AnnAssign():
                expressions += [node.value] if node.value else []
            case ast.ClassDef():
                pass
            case _:
                expressions += [
                    child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.expr, ast.withitem))
                ]
        if isinstance(node, (ast.If, ast.While)):
            yield self._negated(node.test, lines)
        if isinstance(node, ast.AugAssign):
            yield from self._operator(node.target, node.value, lines)
        for expression in expressions:
            yield from self._expression(expression, lines)

    def _try(self, node: ast.Try | ast.TryStar) -> Iterator[Change]:
        if node.finalbody:
            first, last = node.finalbody[0], node.finalbody[-1]
            lines = (first.lineno, last.end_lineno or last.lineno)
            yield Change("finally", self._start(first), self._end(last), "pass", lines)
        for handler in node.handlers:
            if handler.type:
                # Nothing is caught. Only tests that reach the handler can notice it.
                yield self._replace("handler", handler.type, "()", (handler.lineno, handler.lineno))
            for inner in handler.body:
                yield from self._statement(inner, is_dropped=True)

    def _in_match_case(self, case: ast.match_case) -> Iterator[Change]:
        if case.guard:
            lines = (case.guard.lineno, case.guard.end_lineno or case.guard.lineno)
            yield self._negated(case.guard, lines)
            yield from self._expression(case.guard, lines)
        for inner in case.body:
            yield from self._statement(inner, is_dropped=True)

    def _expression(self, node: ast.AST, lines: tuple[int, int]) -> Iterator[Change]:  # noqa: C901, PLR0912 - one case for each kind
        match node:
            case ast.Constant():
                yield from self._constant(node, lines)
                return
            case ast.JoinedStr():
                yield from self._sql(node, lines)
                return
            case ast.IfExp():
                yield self._negated(node.test, lines)
            case ast.comprehension():
                for condition in node.ifs:
                    yield self._negated(condition, lines)
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                yield Change("operator", self._start(node), self._start(node.operand), "", lines)
            case ast.BinOp() if not any(_is_text(side) for side in (node.left, node.right)):
                yield from self._operator(node.left, node.right, lines)
            case ast.BoolOp():
                for left, right in pairwise(node.values):
                    yield from self._operator(left, right, lines)
            case ast.Compare():
                for left, right in pairwise((node.left, *node.comparators)):
                    yield from self._operator(left, right, lines)
            case ast.Name() if node.id in _FUNCTIONS:
                yield self._replace("operator", node, _FUNCTIONS[node.id], lines)
            case ast.Attribute(value=ast.Name(id=owner)) if len(members := self._members.get(owner, [])) > 1:
                if node.attr in members:
                    other = members[(members.index(node.attr) + 1) % len(members)]
                    yield self._replace("constant", node, f"{owner}.{other}", lines)
        for child in ast.iter_child_nodes(node):
            yield from self._expression(child, lines)

    def _operator(self, left: ast.expr, right: ast.expr, lines: tuple[int, int]) -> Iterator[Change]:
        """Another operator between two sides."""
        start, end = self._end(left), self._start(right)
        between = [token for token in self._tokens if start <= token[0] and token[1] <= end and token[2] not in "()"]
        if between and (new := _SWAPS.get(" ".join(token[2] for token in between))):
            yield Change("operator", between[0][0], between[-1][1], new, lines)

    def _constant(self, node: ast.Constant, lines: tuple[int, int]) -> Iterator[Change]:
        value = node.value
        if isinstance(value, bool):
            yield self._replace("constant", node, repr(not value), lines)
        elif isinstance(value, (int, float)):
            yield self._replace("constant", node, repr(value + 1), lines)
        elif isinstance(value, str) and _IS_SQL.search(value):
            yield from self._sql(node, lines)
        elif isinstance(value, (str, bytes)) and not _is_for_people(value):
            prefix = "b" if isinstance(value, bytes) else ""
            yield self._replace("constant", node, f'{prefix}""' if value else f'{prefix}"xx"', lines)

    def _sql(self, node: ast.expr, lines: tuple[int, int]) -> Iterator[Change]:
        for start, end, text, is_string in self._tokens:
            if is_string and self._start(node) <= start and end <= self._end(node) and _IS_SQL.search(text):
                for pattern, new in _SQL:
                    for found in re.finditer(pattern, text):
                        before, old = text[: found.start()].encode(), found[0].encode()
                        yield Change("sql", start + len(before), start + len(before) + len(old), new, lines)

    def _negated(self, test: ast.expr, lines: tuple[int, int]) -> Change:
        text = self._source[self._start(test) : self._end(test)].decode()
        return self._replace("condition", test, f"(not ({text}))", lines)

    def _replace(self, kind: str, node: ast.expr | ast.stmt, new: str, lines: tuple[int, int]) -> Change:
        return Change(kind, self._start(node), self._end(node), new, lines)

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)


def _is_docstring(node: ast.stmt) -> bool:
    """Also the text below a constant, and the `...` of a Protocol."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))


def _is_for_people(value: str | bytes) -> bool:
    return " " in (value if isinstance(value, str) else value.decode("latin-1"))
