"""Which code of ours a step can reach, and a digest of it: the same on every Python, in a checkout and in a wheel.

From the module that holds a step's work the walk follows every import of our own modules, at top or inside functions,
and onward; imports under `if TYPE_CHECKING:` are annotations and are left out. A module that says `__registry__ = True`
is a table of names: it is neither hashed nor followed, and a step names the modules of the entries that it uses.

A module's digest is taken of its syntax tree, by the module's name and not its path. Left out is what decides no
result: positions, comments, docstrings, annotations, and the text of errors and of lines to a logger.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

CORE = "alignment_core"
_LOGGERS = {"log", "logger", "logging"}
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_SKIPPED = {"ctx", "type_comment", "kind", "returns", "annotation", "type_ignores", "type_params"}
"""Fields of the syntax tree that decide nothing, or that only some versions of Python have."""


@dataclass(frozen=True)
class Code:
    """The modules that a step can reach, each with its digest (16 hex digits), by name."""

    modules: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of all of them, 16 hex digits."""
        return _hashed("".join(f"{name} {digest}\n" for name, digest in sorted(self.modules.items())))


def code_of(*names: str) -> Code:
    """The code that the modules of these names can reach, themselves among it.

    Ours are the core's modules and those of the packages that the names belong to. `RuntimeError` for a module whose
    source cannot be read: a step that it makes could not be known again.
    """
    ours = frozenset({CORE, *(name.partition(".")[0] for name in names)})
    found: dict[str, str] = {}
    open_ = list(names)
    while open_:
        name = open_.pop()
        if name in found:
            continue
        module = _module(name, ours)
        if module is None:
            raise RuntimeError(f"the source of module {name} cannot be found, so its steps could not be known again")
        if not module.registry:
            found[name] = module.digest
            open_ += module.imports
    return Code(dict(sorted(found.items())))


def module_of(work: Callable[..., Any]) -> str:
    """The name of the module that holds a step's work, through `functools.partial` and decorators."""
    while isinstance(work, partial) or hasattr(work, "__wrapped__"):
        work = work.func if isinstance(work, partial) else work.__wrapped__
    return work.__module__


def module_digest(source: str) -> str:
    """16 hex digits over what a module's source does; equal for sources that differ only in what is left out."""
    return _hashed("".join(_canonical(ast.parse(source))))


@dataclass(frozen=True)
class _Module:
    digest: str
    imports: tuple[str, ...]
    registry: bool


def _module(name: str, ours: frozenset[str]) -> _Module | None:
    """None where there is no such module."""
    path = _path(name)
    return None if path is None else _read(name, path, path.stat().st_mtime_ns, ours)


@lru_cache(maxsize=4096)
def _read(name: str, path: Path, changed: int, ours: frozenset[str]) -> _Module:
    tree = ast.parse(path.read_bytes())
    parents = [parent for parent in (name.rpartition(".")[0],) if parent and _path(parent) is not None]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported = {m for n in _imported(tree, package) if n.partition(".")[0] in ours and (m := _known(n))}
    return _Module(_hashed("".join(_canonical(tree))), (*parents, *sorted(imported)), _is_registry(tree))


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


@lru_cache(maxsize=64)
def _root(package: str) -> Path | None:
    """The folder of a package, or the file of a module that stands alone."""
    loaded = sys.modules.get(package)
    origin = getattr(loaded, "__file__", None) if loaded is not None else None
    if origin is None:
        spec = importlib.util.find_spec(package) if package != "__main__" else None
        origin = None if spec is None else spec.origin
    if origin is None or not Path(origin).is_file():
        return None
    return Path(origin).parent if Path(origin).name == "__init__.py" else Path(origin)


def _path(name: str) -> Path | None:
    """The source file of a module; nothing is imported but the package it belongs to."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is not None:
        return Path(loaded)
    package, _, rest = name.partition(".")
    root = _root(package)
    if root is None or (root.is_file() and rest):
        return None
    if root.is_file():
        return root
    inside = root.joinpath(*rest.split(".")) if rest else root
    for path in (inside.with_suffix(".py") if rest else inside / "__init__.py", inside / "__init__.py"):
        if path.is_file():
            return path
    return None


def _known(name: str) -> str | None:
    """`package.module` of `package.module` or of `package.module.attribute`."""
    if _path(name) is not None:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent and _path(parent) is not None else None


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that the code imports, of modules or of what is in them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _type_checking(child.test):
            for other in child.orelse:
                yield from _imported(other, package)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            parts = package.split(".")
            above = ".".join(parts[: len(parts) - child.level + 1]) if child.level else ""
            base = ".".join(part for part in (above, child.module) if part)
            yield from (f"{base}.{alias.name}" for alias in child.names)
        else:
            yield from _imported(child, package)


def _type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _is_registry(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Assign)
        and [t.id for t in node.targets if isinstance(t, ast.Name)] == ["__registry__"]
        and isinstance(node.value, ast.Constant)
        and node.value.value is True
        for node in tree.body
    )


def _canonical(node: Any, *, silent: bool = False) -> Iterator[str]:
    """The syntax tree as text; `silent` inside the call that makes an error's or a log line's text."""
    if isinstance(node, list):
        yield "["
        for item in node:
            if not _decides_nothing(item):
                yield from _canonical(item, silent=silent)
                yield ","
        yield "]"
    elif isinstance(node, ast.Constant):
        yield "text" if silent and isinstance(node.value, str) else f"{type(node.value).__name__}:{node.value!r}"
    elif isinstance(node, ast.JoinedStr):
        yield from ("text",) if silent else _joined(node)
    elif isinstance(node, ast.AST):
        inside = silent or isinstance(node, ast.Raise) or _is_log_line(node)
        yield f"{type(node).__name__}("
        for name in node._fields:
            value = getattr(node, name, None)
            if name not in _SKIPPED and value is not None:
                yield f"{name}="
                yield from _canonical(value, silent=inside)
        yield ")"
    else:
        yield repr(node)


def _joined(node: ast.JoinedStr) -> Iterator[str]:
    """An f-string; versions of Python differ in how they split its constant parts."""
    yield "JoinedStr("
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        yield repr(text)
        text = ""
        yield from _canonical(part)
    yield f"{text!r})"


def _decides_nothing(item: Any) -> bool:
    """A docstring, an annotation without a value, or imports for annotations alone."""
    if isinstance(item, ast.Expr):
        return isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
    return isinstance(item, ast.If) and _type_checking(item.test) and not item.orelse


def _is_log_line(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS):
        return False
    return isinstance(node.func.value, ast.Name) and node.func.value.id in _LOGGERS
