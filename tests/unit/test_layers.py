"""The layers hold: nothing imports what lies above it, and the worker imports next to nothing."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mlpbench"

# What a worker module may import beside the standard library, its backend's own packages and other worker modules.
WORKER_MAY = {"mlpbench.protocol", "mlpbench.turns", "mlpbench.frames", "mlpbench.units", "mlpbench.worker"}
# What no worker module may import, since the backend's environment need not have it.
WORKER_MUST_NOT = {
    "hydra",
    "pandas",
    "pydantic",
    "seaborn",
    "matplotlib",
    "jinja2",
    "pyarrow",
    "rich",
    "filelock",
    "scipy",
}

# From the bottom up; a module may import from its own row and from those before it.
LAYERS = [
    {"errors", "units", "frames", "protocol", "turns", "files", "numbers"},
    {"records", "metrics", "quantities", "statistics", "literature"},
    {"acquisition", "datasets", "backends", "devices", "references", "properties", "evaluators"},
    {"config"},
    {"study"},
    {"converging", "rounds", "comparison", "decision", "pilot", "tables"},
    {"run", "scoring", "progress", "report", "potentials", "acquire", "exploring", "finding", "exporting", "logs"},
    {"cli", "testing"},
    {"__main__"},
]


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    """Names of the modules that ``path`` imports anywhere, functions included; type-checking blocks left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module == "mlpbench":
                found.update(f"mlpbench.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", modules(PACKAGE / "worker"), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_worker_imports_only_what_a_backend_environment_has(path: Path) -> None:
    for name in imported(path):
        root = name.split(".")[0]
        assert root not in WORKER_MUST_NOT or root in _own_packages(path), f"{path.name} imports {name}"
        if root == "mlpbench":
            allowed = name == "mlpbench" or any(name == ok or name.startswith(f"{ok}.") for ok in WORKER_MAY)
            assert allowed, f"{path.name} imports {name}, which lies above the worker"


def _own_packages(path: Path) -> set[str]:
    """Packages that an adapter's requirements bring with them (hydra comes with nequip and schnetpack)."""
    requirements = path.with_name(path.stem.lstrip("_").split("_")[0] + ".requirements.txt")
    if not requirements.is_file():
        return set()
    names = {line.split("==")[0].strip().lower() for line in requirements.read_text().splitlines() if "==" in line}
    return {"hydra"} & ({"hydra"} if "hydra-core" in names else set()) | {n for n in names if n in WORKER_MUST_NOT}


@pytest.mark.parametrize("name", ["protocol", "frames", "units", "turns"])
def test_shared_modules_need_only_numpy_and_ase(name: str) -> None:
    roots = {module.split(".")[0] for module in imported(PACKAGE / f"{name}.py")}
    assert roots - set(sys.stdlib_module_names) <= {"numpy", "ase", "mlpbench"}


def test_no_module_imports_from_a_layer_above() -> None:
    level = {name: i for i, row in enumerate(LAYERS) for name in row}
    wrong = []
    for path in modules(PACKAGE):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part in ("worker", "__init__", "conf"):
            continue
        assert part in level, f"{part} has no place in LAYERS: say where it belongs"
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "mlpbench" and len(parts) > 1 and parts[1] in level and level[parts[1]] > level[part]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_core_never_imports_torch() -> None:
    core = [path for path in modules(PACKAGE) if "worker" not in path.parts and "references" not in path.parts]
    assert core
    assert [
        p for p in core if any(n.split(".")[0] in ("torch", "mace", "nequip", "schnetpack") for n in imported(p))
    ] == []
