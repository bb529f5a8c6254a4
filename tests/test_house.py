"""The house: twelve names at the root, imports downward only, few lines, no name that means two things."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "mule_lib"
# The rooms in their order, and the rooms (or single modules) that each may import besides its own.
ROOMS = {
    "params": (),
    "paper": (),
    "prompts": ("params",),
    "losses": (),
    "gradients": (),
    "data": ("params", "paper", "prompts"),
    "models": ("params", "prompts", "losses", "data"),
    "methods": ("params", "prompts", "losses", "gradients", "data"),
    "training": ("params", "paper", "prompts", "losses", "gradients", "data", "models", "methods"),
    "evaluate": ("params", "paper", "prompts", "losses", "gradients", "data", "models", "methods"),
    "report": ("params", "paper", "data", "evaluate.intervals", "evaluate.result"),
    "suite": (
        "params", "paper", "prompts", "losses", "gradients", "data", "models", "methods", "training", "evaluate",
        "report",
    ),
}  # fmt: skip
PACKAGE_DATA = {"embedded", "prompt_texts", "templates"}
# 12,500 lines with what came after the rebuild (itself 11,000), and 9,500 lines of tests.
MOST = {"mule_lib": 12_500, "tests": 9_500}


def files(folder: str = "mule_lib") -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Dotted names below mule_lib that a file imports, late imports included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("mule_lib.")}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:  # relative: resolved against the file's package
                above = file.relative_to(ROOT).with_suffix("").parts[: -node.level]
                package = ".".join([*above, *([node.module] if node.module else [])])
            if package == "mule_lib" or package.startswith("mule_lib."):
                names |= {f"{package}.{alias.name}" for alias in node.names}
    return {name.removeprefix("mule_lib.") for name in names}


def test_twelve_names_at_the_root():
    names = {path.name.removesuffix(".py") for path in LIBRARY.iterdir() if path.name != "__pycache__"}
    assert names - PACKAGE_DATA == {*ROOMS, "__init__"}


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(LIBRARY).as_posix())
def test_a_room_imports_only_rooms_above_it(file):
    room = room_of(file)
    allowed = (room, *ROOMS.get(room, ()))
    for name in imported(file):
        assert any(name == other or name.startswith(f"{other}.") for other in allowed), f"{room} imports {name}"


def test_lines_of_the_library_and_of_its_tests(capsys):
    lines = {folder: sum(len(file.read_text("utf-8").splitlines()) for file in files(folder)) for folder in MOST}
    with capsys.disabled():
        print("\nlines:", ", ".join(f"{folder} {number:,} of {MOST[folder]:,}" for folder, number in lines.items()))
    assert all(lines[folder] <= most for folder, most in MOST.items())


def test_the_map_names_every_room():
    text = ast.get_docstring(ast.parse((LIBRARY / "__init__.py").read_text("utf-8")))
    assert re.findall(r"^ *\d+ (\w+)", text, re.MULTILINE) == list(ROOMS)


def test_no_public_name_means_two_things():
    homes = defaultdict(set)
    for file in files():
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name].add(file.relative_to(LIBRARY).as_posix())
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(LIBRARY).as_posix())
def test_a_file_holds_one_idea(file):
    assert len(file.read_text("utf-8").splitlines()) <= 400
