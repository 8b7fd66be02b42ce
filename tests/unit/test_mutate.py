"""contrib/mutate: which changes it makes of a source, and what it says of one that no test notices."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from harness.readme import ROOT

from mailrelay import spool


def load(name: str) -> ModuleType:
    """A module of contrib/mutate, under the name by which the others there import it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "contrib" / "mutate" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHANGES, RUNNING = load("changes"), load("running")


def changed(source: str) -> set[str]:
    """What the changes make of a source, without the lines that stay."""
    encoded = source.encode()
    kept = set(source.splitlines())
    made = {change.apply(encoded).decode() for change in CHANGES.changes(encoded)}
    return {"\n".join(line.strip() for line in one.splitlines() if line not in kept) for one in made}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("if x:\n        y()", {"if (not (x)):", "pass"}),
        ("while x:\n        y()", {"while (not (x)):", "pass"}),
        ("return y if x else z", {"return y if (not (x)) else z", "pass"}),
        ("return [y for y in x if y]", {"return [y for y in x if (not (y))]", "pass"}),
        ("x = y and (z  # and\n         or a)", {"x = y or (z  # and", "and a)", "pass"}),
        ("x = not y", {"x = y", "pass"}),
        ("x += y", {"x -= y", "pass"}),
        ("raise x", {"pass"}),
        ("f(x is not y)", {"f(x is y)", "pass"}),
        ("f(x not in y)", {"f(x in y)", "pass"}),
        ("f(any(x))", {"f(all(x))", "pass"}),
        ("f(x + y)", {"f(x - y)", "pass"}),
        ("f('a' + x)", {"f(\"\" + x)", "pass"}),
        ("f(2, True)", {"f(3, True)", "f(2, False)", "pass"}),
        ("f(b'x', '')", {'f(b"", \'\')', "f(b'x', \"xx\")", "pass"}),
        ("f(State.SENT, State.HELD)", {"f(State.HELD, State.HELD)", "f(State.SENT, State.SENT)", "pass"}),
        ("try:\n        x()\n    finally:\n        y()\n        z()", {"pass"}),
        ("try:\n        x()\n    except OSError:\n        y()", {"pass", "except ():"}),
        ("match x:\n        case y if z:\n            a()", {"case y if (not (z)):", "pass"}),
        ('f("SELECT x WHERE ä = 1 AND y IS NULL ORDER BY x")',
         {'f("SELECT x WHERE ä = 1 OR y IS NULL ORDER BY x")', 'f("SELECT x WHERE ä = 1 AND y IS NOT NULL ORDER BY x")',
          'f("SELECT x WHERE ä = 1 AND y IS NULL")', "pass"}),
        ('f(f"DELETE {x} WHERE a < {y}")', {'f(f"DELETE {x} WHERE a <= {y}")', "pass"}),
    ],
)  # fmt: skip
def test_a_source_is_changed_at_one_place_at_a_time(body: str, expected: set[str]) -> None:
    assert changed(f"def f(x):\n    {body}\n") == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A text."""\n', "import x\n", "from x import y\n", "x: int | None\n", "def f(x: int | None) -> int | None: ...\n",
        "@dataclass(frozen=True)\nclass A:\n    pass\n", 'x = "a text for people"\n', 'x = f"{y} and {z}"\n', "x = y\n",
    ],
)  # fmt: skip
def test_what_no_test_should_notice_is_left_alone(source: str) -> None:
    assert changed(source) == set()


def test_every_change_of_a_source_of_ours_is_valid_python_and_knows_the_lines_of_its_statement() -> None:
    source = (Path(spool.__path__[0]) / "lock.py").read_bytes()
    made = CHANGES.changes(source)
    assert {change.kind for change in made} >= {"statement", "finally", "handler", "condition", "operator", "constant"}
    for change in made:
        compile(change.apply(source), "lock.py", "exec")
        first, last = change.lines
        assert first <= source[: change.start].count(b"\n") + 1 <= last


class Covering:
    """Each place is covered by these tests, of one second each."""

    def __init__(self, *tests: str) -> None:
        self._tests = tests

    def of(self, file: str, lines: tuple[int, int]) -> list[str]:
        return list(self._tests)

    def seconds(self, test: str) -> float:
        return 1.0


def test_a_change_survives_if_no_test_within_the_budget_notices_it(tmp_path: Path) -> None:
    sources, tests = tmp_path / "mailrelay" / "mail", tmp_path / "tests"
    sources.mkdir(parents=True)
    tests.mkdir()
    source = "def f(x):\n    return x + 1\n"
    # Else the package that is installed would come before this one.
    for package in (sources.parent, sources):
        (package / "__init__.py").touch()
    (sources / "one.py").write_text(source)
    (tests / "test_one.py").write_text(
        "from mailrelay.mail.one import f\n"
        "def test_type():\n    assert isinstance(f(1), int)\ndef test_value():\n    assert f(1) == 2\n"
        "def test_red():\n    assert f(1) == 7\n"
    )
    made = {mutant.change.new: mutant for mutant in RUNNING.mutants(tmp_path, ["mail"])}
    assert [mutant.package for mutant in made.values()] == ["mail"] * 3
    assert made.keys() == {"pass", "-", "2"}
    both = Covering("tests/test_one.py::test_type", "tests/test_one.py::test_value")
    noticed = RUNNING.Runner(both, [tmp_path], 2.0).run(made["-"])
    assert (noticed.how, noticed.tests, noticed.left_out) == ("failed", 2, 0)
    kept = RUNNING.Runner(both, [tmp_path], 1.0).run(made["-"])
    assert (kept.how, kept.tests, kept.left_out) == ("survived", 1, 1)
    assert RUNNING.Runner(Covering(), [tmp_path], 1.0).run(made["-"]).how == "survived"
    red = Covering("tests/test_one.py::test_red", "tests/test_one.py::test_type")
    assert RUNNING.Runner(red, [tmp_path], 2.0).run(made["-"]).how == "survived"
    assert (sources / "one.py").read_text() == source
    assert RUNNING.diff(made["-"], tmp_path).splitlines()[-2:] == ["-    return x + 1", "+    return x - 1"]
