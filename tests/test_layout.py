"""Imports are layered: a package imports only from packages before it, wherever in a file the import is."""

import ast
import shutil
from pathlib import Path

import umie

PACKAGE = Path(umie.__file__).parent

ORDER = (
    "errors", "files", "versions", "resumable", "checkpoints", "weights", "images", "media",
    "configs", "yaml_files", "registry", "registries", "hub",
    "linear", "records", "types", "framing",
    "data",
    "language_models",
    "encoders", "fusion", "decoders", "tasks", "grounders",
    "scoring",
    "constrained",
    "audit",
    "candidates", "sequences", "tokenization", "model_parts", "model", "processor", "composition", "loading",
    "training",
    "evaluation",
    "extraction",
    "experiments",
    "bench",
    "conversion",
    "reports",
    "serving",
    "explorer",
    "cli",
    "__main__",
)  # fmt: skip
PARTS = {"encoders", "fusion", "decoders", "tasks"}  # do not import each other


def modules():
    """Return the modules of umie by dotted name, without ``umie`` itself, which imports lazily."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def imports(path, known):
    """Return the modules of umie that a file imports, including in functions and lazily as ``umie.name``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [target if target.removeprefix("umie.") in known else node.module for target in targets]
        elif isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "umie":
            targets = [umie._NAMES.get(node.attr, f"umie.{node.attr}")] if node.attr in umie.__all__ else []
        else:
            continue
        found |= {target.removeprefix("umie.") for target in targets if target.startswith("umie.")}
    return found


def top(module):
    return module.split(".")[0]


def violations(known):
    """Return all imports from a later package, or from another kind of part."""
    place = {name: number for number, name in enumerate(ORDER)}
    wrong = []
    for module, path in known.items():
        for target in imports(path, known):
            own, other = top(module), top(target)
            if place[other] > place[own] or (own != other and {own, other} <= PARTS):
                wrong.append(f"umie.{module} imports umie.{target}")
    return wrong


def test_every_package_has_a_layer():
    assert {top(module) for module in modules()} == set(ORDER)


def test_imports_are_layered():
    known = modules()
    assert violations(known) == []
    assert sum(len(imports(path, known)) for path in known.values()) > 400  # imports are found


def test_an_import_from_a_later_package_is_found(tmp_path):
    known = modules()
    changed = tmp_path / "gated.py"
    shutil.copy(known["fusion.gated"], changed)
    changed.write_text(
        changed.read_text() + "\n\ndef late():\n    from umie.experiments import run\n    from umie import decoders\n"
    )
    assert sorted(violations(known | {"fusion.gated": changed})) == [
        "umie.fusion.gated imports umie.decoders",
        "umie.fusion.gated imports umie.experiments.run",
    ]


def test_imports_have_no_cycles():
    """Without ``__init__`` files, from which parts import the registry."""
    known = modules()
    packages = {module for module, path in known.items() if path.name == "__init__.py"}
    remaining = {
        module: imports(path, known) - packages - {module} for module, path in known.items() if module not in packages
    }
    while free := {module for module, targets in remaining.items() if not targets & remaining.keys()}:
        remaining = {module: targets for module, targets in remaining.items() if module not in free}
    assert not remaining
