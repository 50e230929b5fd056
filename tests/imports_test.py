"""Imports go downward only, room by room, and few modules may reach for the heavy ones."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]

# Lower first. What stands on a floor imports from the floors below and from within itself, never
# from its neighbours. A room is a package, or a module of the top folder.
FLOORS = [
    {"errors", "shipped"},
    {"devices", "model", "data"},
    {"decoding", "hindsight", "training"},
    {"methods"},
    {"run"},
    {"planning", "report", "commands"},
    {"library"},
    {"arguments"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"tensorflow", "torch", "pickle"}


def imported(source):
    """The dotted name of every module that code imports, at any depth of it.

    `from a import b` gives both a and a.b, since b may be a module.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not used here"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path):
    """The packages that a file imports from."""
    return {module.split(".")[0] for module in imported(path.read_text())}


def room_of(path):
    """The room of a file of hir_jax."""
    return path.relative_to(ROOT / "hir_jax").parts[0].removesuffix(".py")


def not_below(source, room):
    """The rooms that code in `room` imports though they do not stand below it."""
    used = {name.split(".")[1] for name in imported(source) if name.startswith("hir_jax.")}
    return sorted(
        other for other in used - {room} if FLOOR_OF.get(other, len(FLOORS)) >= FLOOR_OF[room]
    )


FILES = sorted((ROOT / "hir_jax").rglob("*.py"))
MODULES = [path for path in FILES if path != ROOT / "hir_jax" / "__init__.py"]


def name(path):
    return str(path.relative_to(ROOT))


def test_every_module_has_its_room_and_every_room_a_module():
    assert {room_of(path) for path in MODULES} == set(FLOOR_OF)


def test_tests_have_the_same_rooms():
    rooms = {path.name for path in (ROOT / "hir_jax").iterdir() if (path / "__init__.py").exists()}
    assert rooms == {path.parent.name for path in ROOT.glob("tests/*/*_test.py")}


def test_the_package_itself_imports_nothing_as_it_is_imported():
    statements = ast.parse((ROOT / "hir_jax" / "__init__.py").read_text()).body
    found = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in found] == ["from typing import TYPE_CHECKING, Any"]


def test_imports_go_downward_only():
    found = {name(path): not_below(path.read_text(), room_of(path)) for path in MODULES}
    assert not {path: rooms for path, rooms in found.items() if rooms}


def test_an_import_of_a_neighbour_or_from_above_is_seen_in_each_form():
    assert not_below("from hir_jax import data, run", "model") == ["data", "run"]
    assert not_below("import hir_jax.run.loop", "model") == ["run"]
    assert not_below("def f():\n    from hir_jax.run.loop import Job", "data") == ["run"]
    assert not_below("from hir_jax.decoding import engine", "training") == ["decoding"]
    assert not_below("from hir_jax.absent import x", "cli") == ["absent"]
    assert not_below("from hir_jax.data.example import Example", "hindsight") == []
    assert not_below("from hir_jax.model.hf import save", "model") == []


def test_no_file_is_longer_than_one_reads_at_once():
    lengths = {name(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {path: length for path, length in lengths.items() if length > 420}


def test_nothing_loads_tensorflow_torch_or_pickle():
    found = {name(path): packages(path) & HEAVY for path in (ROOT / "main.py", *FILES)}
    assert not {path: heavy for path, heavy in found.items() if heavy}


def test_only_the_model_imports_linen():
    users = {room_of(path) for path in MODULES if "flax.linen" in imported(path.read_text())}
    assert users == {"model"}


def test_configs_import_ml_collections_and_configs_only():
    used = set().union(*map(packages, (ROOT / "configs").glob("*.py")))
    assert used <= {"ml_collections", "configs", "json"}
