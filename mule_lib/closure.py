"""Which files of the library a notebook or module runs through, found by reading imports and never by importing."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from mule_lib.params import ROOT

PACKAGE = "mule_lib"
# Checked values are part of a run's identity; how they are checked, drawn and put on disk is not, nor a paper's text.
WITHOUT_RESULTS = frozenset(
    f"{PACKAGE}/{name}.py"
    for name in (
        *("closure", "fingerprint", "run_folder"),
        *(f"report/{name}" for name in ("__init__", "names", "results", "tables", "figures", "claims", "ledger")),
        "params",
    )
)


def import_closure(start: Path, *, root: Path = ROOT) -> list[Path]:
    """The start and every file of the package that it imports, at the top or inside functions, directly or not.

    `start` is a notebook or a Python file; the files come sorted, relative to `root`. Packages count with their
    `__init__.py`. Raises SyntaxError for a file that cannot be parsed.
    """
    start = start.resolve()
    own = _files_of(".".join(start.relative_to(root).parent.parts), root) if start.is_relative_to(root) else []
    found, waiting = {start, *own}, [start, *own]
    while waiting:
        for file in _imported(waiting.pop(), root):
            if file not in found:
                found.add(file)
                waiting.append(file)
    return sorted(file.relative_to(root) if file.is_relative_to(root) else file for file in found)


def behind_results(start: Path, *, root: Path = ROOT) -> list[Path]:
    """The import closure without the files that cannot change a number (`WITHOUT_RESULTS`)."""
    return [file for file in import_closure(start, root=root) if file.as_posix() not in WITHOUT_RESULTS]


def code_hashes(start: Path, *, root: Path = ROOT) -> dict[str, str]:
    """Hash of each file behind the results of `start`, by its path; comments, docstrings and layout do not count."""
    return {file.as_posix(): _code_hash(root / file, _stamp(root / file)) for file in behind_results(start, root=root)}


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def _imported(file: Path, root: Path) -> tuple[Path, ...]:
    return _imported_at(file, root, _stamp(file))


@cache
def _imported_at(file: Path, root: Path, stamp: tuple[int, int]) -> tuple[Path, ...]:
    names: set[str] = set()
    for node in ast.walk(_tree(file, stamp)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, file, root)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    files: set[Path] = set()
    for name in names:
        files.update(_files_of(name, root))
    return tuple(sorted(files))


def _base(node: ast.ImportFrom, file: Path, root: Path) -> str:
    """The absolute name that a `from` import starts at."""
    if not node.level:
        return node.module or ""
    package = file.relative_to(root).parts[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _files_of(name: str, root: Path) -> list[Path]:
    """The files that importing a dotted name runs: its packages' `__init__.py` and the module, where it is ours."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return []
    files = []
    for i in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:i])
        file = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
        if file.is_file():
            files.append(file)
    return files


@cache
def _tree(file: Path, stamp: tuple[int, int]) -> ast.Module:
    """A file's code (a notebook's code cells) without comments and docstrings."""
    text = file.read_text("utf-8")
    if file.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
        lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    tree = ast.parse(text, filename=str(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _documented(
            node.body
        ):
            node.body[:] = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _code_hash(file: Path, stamp: tuple[int, int]) -> str:
    return hashlib.sha256(ast.dump(_tree(file, stamp)).encode()).hexdigest()[:16]


def _documented(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
