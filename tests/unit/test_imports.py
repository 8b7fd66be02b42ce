"""Test modules share helpers through tests/harness alone."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]


def imported(module: Path) -> set[str]:
    """Every name that a module imports, with the module that it is imported from, wherever the import stands."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def test_no_module_of_the_tests_imports_a_test_module() -> None:
    found = {
        (str(module.relative_to(TESTS)), name)
        for module in TESTS.rglob("*.py")
        for name in imported(module)
        if any(part.startswith("test_") for part in name.split("."))
    }
    assert found == set()


def test_helpers_that_tests_share_are_in_the_harness() -> None:
    kinds = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "harness"}
    beside = {path.name for kind in kinds for path in (TESTS / kind).rglob("*.py")}
    assert {name for name in beside if not name.startswith("test_")} == {"conftest.py"}
