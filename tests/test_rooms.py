"""The package's rooms: what may import what, and how large a module may be."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "segbatch"

ROOMS = (
    "redaction",
    "errors",
    "log",
    "storage",
    "classes",
    "config",
    "geometry",
    "scenes",
    "masks",
    "evaluation",
    "models",
    "inference",
    "training",
    "report",
    "demo",
    "runtime",
    "telemetry",
    "tracing",
    "commands",
    "submit",
    "bench",
    "cli",
    "__main__",
)
"""From the ground up: a room imports only rooms before it."""

RAY_MODULES = {
    "inference/dataset.py",
    "inference/pipeline.py",
    "training/trainer.py",
    "training/crew.py",
    "training/loopback.py",
    "training/search.py",
    "training/trial.py",
    "runtime.py",
    "telemetry.py",
    "submit/client.py",
    "submit/package.py",
    "bench/store.py",
    "bench/training.py",
}

THIRD_PARTY = {
    "errors": set(),
    "redaction": set(),
    "log": set(),
    "storage": {"obstore"},
    "classes": {"numpy"},
    "geometry": {"numpy", "affine"},
    "evaluation": {"numpy"},
}
"""All that the pure rooms import from outside the standard library."""

LIGHT_ROOMS = {
    "errors",
    "redaction",
    "log",
    "storage",
    "telemetry",
    "tracing",
    "classes",
    "config",
    "geometry",
    "scenes",
    "evaluation",
    "commands",
    "submit",
    "cli",
    "__main__",
}
HEAVY_LIBRARIES = {"matplotlib", "pandas", "ray", "segmentation_models_pytorch", "sklearn", "timm", "torch"}

WITHOUT_CONFIGURATION = {"geometry", "evaluation", "inference/predictor.py"}

MAX_MODULE_LINES = 400
MAX_JOB_LINES = 60


class Import(NamedTuple):
    """One imported module: its dotted name, its line, and whether importing the file imports it."""

    name: str
    line: int
    at_top: bool


def imports(source: str, package: str) -> Iterator[Import]:
    """Every import in a module's source, functions and TYPE_CHECKING blocks included.

    Args:
        source: Python text.
        package: Dotted name of the package that the module is in, for relative imports.
    """
    tree = ast.parse(source)
    delayed = {
        id(node)
        for scope in ast.walk(tree)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types_only(scope)
        for node in ast.walk(scope)
    }
    for node in ast.walk(tree):
        at_top = id(node) not in delayed
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # 'from segbatch import geometry' imports the room, not the package alone.
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "segbatch" else [base]
            yield from (Import(name, node.lineno, at_top) for name in names)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


class Module(NamedTuple):
    """A module of the package."""

    path: str
    """Relative to the package, as 'geometry/block.py'."""
    room: str
    imports: tuple[Import, ...]

    def at(self, found: Import) -> str:
        return f"{self.path}:{found.line} imports {found.name}"


def read_module(file: Path) -> Module:
    inside = file.relative_to(PACKAGE)
    package = ".".join(("segbatch", *inside.parent.parts))
    return Module(inside.as_posix(), inside.parts[0].removesuffix(".py"), tuple(imports(file.read_text(), package)))


def room_of(name: str) -> str | None:
    """The room that a dotted name lies in; None outside the package or for a name of the package itself."""
    package, _, rest = name.partition(".")
    room = rest.split(".")[0]
    return room if package == "segbatch" and room in ROOMS else None


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    found = [read_module(file) for file in sorted(PACKAGE.rglob("*.py"))]
    assert len(found) > 10, "the package was not found"
    return found


def test_every_module_is_in_a_room(modules: list[Module]) -> None:
    strangers = {module.path for module in modules if module.room not in ROOMS} - {"__init__.py"}
    assert not strangers


def test_rooms_import_only_rooms_above_them(modules: list[Module]) -> None:
    wrong = []
    for module in modules:
        allowed = () if module.path == "__init__.py" else ROOMS[: ROOMS.index(module.room) + 1]
        for found in module.imports:
            room = room_of(found.name)
            if room is not None and room not in allowed:
                wrong.append(module.at(found))
    assert not wrong


def test_every_import_of_the_package_is_of_a_room(modules: list[Module]) -> None:
    wrong = [
        module.at(found)
        for module in modules
        for found in module.imports
        if found.name.split(".")[0] == "segbatch"
        and room_of(found.name) is None
        and found.name != "segbatch.__version__"
    ]
    assert not wrong


def test_ray_stays_in_a_handful_of_modules(modules: list[Module]) -> None:
    wrong = [
        module.at(found)
        for module in modules
        for found in module.imports
        if found.name.split(".")[0] == "ray" and module.path not in RAY_MODULES
    ]
    assert not wrong


def test_pure_rooms_import_no_more_than_arrays(modules: list[Module]) -> None:
    wrong = [
        module.at(found)
        for module in modules
        for found in module.imports
        if module.room in THIRD_PARTY
        and (library := found.name.split(".")[0]) not in sys.stdlib_module_names
        and library not in {"segbatch", *THIRD_PARTY[module.room]}
    ]
    assert not wrong


def test_light_rooms_import_heavy_libraries_inside_functions_only(modules: list[Module]) -> None:
    wrong = [
        module.at(found)
        for module in modules
        for found in module.imports
        if found.at_top and module.room in LIGHT_ROOMS and found.name.split(".")[0] in HEAVY_LIBRARIES
    ]
    assert not wrong


def test_geometry_evaluation_and_the_predictor_never_see_the_configuration(modules: list[Module]) -> None:
    wrong = [
        module.at(found)
        for module in modules
        for found in module.imports
        if {module.room, module.path} & WITHOUT_CONFIGURATION and room_of(found.name) == "config"
    ]
    assert not wrong


def test_no_module_is_called_utils() -> None:
    folders = [CHECKOUT / name for name in ("segbatch", "jobs", "cluster", "tests")]
    names = {"utils", "util", "helpers", "misc"}
    found = [path for folder in folders for path in folder.rglob("*.py") if {path.stem, path.parent.name} & names]
    assert not found


def test_modules_are_small() -> None:
    large = {
        str(file.relative_to(CHECKOUT)): lines
        for file in PACKAGE.rglob("*.py")
        if (lines := len(file.read_text().splitlines())) >= MAX_MODULE_LINES
    }
    assert not large


def test_jobs_are_thin() -> None:
    jobs = CHECKOUT / "jobs"
    if not jobs.is_dir():
        pytest.skip("this copy of the tests lies beside no jobs/ folder")
    thick = {
        file.name: lines
        for file in jobs.glob("*.py")
        if file.name != "benchmark.py" and (lines := len(file.read_text().splitlines())) >= MAX_JOB_LINES
    }
    assert not thick


def test_imports_of_every_form_are_seen() -> None:
    source = """
import ray.data as data, os
from segbatch import __version__, report
from ..training.loop import fit
from . import window
if TYPE_CHECKING:
    import torch
class A:
    import pandas
    def f(self):
        from segbatch.cli import main
"""
    found = list(imports(source, "segbatch.geometry"))
    assert {(item.name, item.at_top) for item in found} == {
        ("ray.data", True),
        ("os", True),
        ("segbatch.__version__", True),
        ("segbatch.report", True),
        ("segbatch.training.loop", True),
        ("segbatch.geometry", True),
        ("torch", False),
        ("pandas", True),
        ("segbatch.cli", False),
    }
    assert room_of("segbatch.training.loop") == "training"
    assert room_of("segbatch.__version__") is None
    assert room_of("ray.train") is None
