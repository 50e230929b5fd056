"""Imports go downward only, and few modules may reach for the heavy ones."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Lower first. A module imports modules that stand above it here; `data` is a package of its own,
# whose modules import one another.
LAYERS = [
    "errors",
    "processes",
    "leaving",
    "shapes",
    "hlo_flops",
    "hlo",
    "hardware",
    "data",
    "verify",
    "relabel",
    "replay",
    "sampling",
    "losses",
    "t5",
    "hf",
    "sharding",
    "batching",
    "generate",
    "sampler",
    "scoring",
    "train_step",
    "prompts",
    "metrics",
    "checkpoint",
    "evaluate",
    "interrupts",
    "workdirs",
    "settings",
    "runtime",
    "progress",
    "pretrain",
    "loop",
    "experiment",
    "modes",
    "aot",
    "plan_table",
    "plan",
    "main",
]
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


def layer_of(path):
    """The layer of a file: its own name, `data` for the whole package, `main` for main.py."""
    inside = path.relative_to(ROOT)
    return inside.parts[1].removesuffix(".py") if inside.parts[0] == "hir_jax" else inside.stem


def upward(source, layer):
    """The layers that code in `layer` imports though they do not stand below it."""
    used = {name.split(".")[1] for name in imported(source) if name.startswith("hir_jax.")}
    below = LAYERS[: LAYERS.index(layer)]
    return sorted(used & set(LAYERS) - set(below) - {layer if layer == "data" else ""})


FILES = [ROOT / "main.py", *sorted((ROOT / "hir_jax").rglob("*.py"))]
MODULES = [path for path in FILES if path != ROOT / "hir_jax" / "__init__.py"]


def name(path):
    return str(path.relative_to(ROOT))


def test_every_module_has_its_layer_and_every_layer_a_module():
    assert {layer_of(path) for path in MODULES} == set(LAYERS)


def test_the_package_itself_imports_nothing():
    assert imported((ROOT / "hir_jax" / "__init__.py").read_text()) == set()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_downward_only(path):
    assert upward(path.read_text(), layer_of(path)) == []


def test_an_upward_import_is_seen_in_each_form():
    assert upward("from hir_jax import t5, loop", "hf") == ["loop"]
    assert upward("import hir_jax.loop", "hf") == ["loop"]
    assert upward("def f():\n    from hir_jax.hf import save", "hf") == ["hf"]
    assert upward("from hir_jax.data.example import Example", "hf") == []
    assert upward("from hir_jax.data.example import Example", "data") == []
    assert upward("from hir_jax import verify", "data") == ["verify"]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_loads_tensorflow_torch_or_pickle(path):
    assert not {module.split(".")[0] for module in imported(path.read_text())} & HEAVY


def test_only_t5_imports_linen():
    users = [path for path in FILES if "flax.linen" in imported(path.read_text())]
    assert users == [ROOT / "hir_jax" / "t5.py"]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=name)
def test_configs_import_ml_collections_and_configs_only(path):
    used = {module.split(".")[0] for module in imported(path.read_text())}
    assert used <= {"ml_collections", "configs"}
