import ast
import json
import pathlib
import re

import pytest
from absl import flags
from ml_collections import config_dict, config_flags

from configs import common, flan_t5, paper, t5_family, workdir
from hir_jax.devices import sharding
from hir_jax.errors import UserError
from hir_jax.run import models, settings

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "configs").glob("*.py") if path.name != "workdir.py")
SOURCE = (ROOT / "configs" / "common.py").read_text()


def leaves(config, prefix=""):
    for name in config:
        value = config.get_oneway_ref(name).get()
        if isinstance(value, config_dict.ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", config.get_type(name)


def flat(config, prefix=""):
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            yield from flat(config[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_loads_locked_with_the_common_fields_and_types(file, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])  # where overrides of fields are looked for
    values = flags.FlagValues()
    loaded = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["main.py", f"--config={file}"])
    assert loaded.value.is_locked
    settings.check(loaded.value)
    found, expected = dict(leaves(loaded.value)), dict(leaves(common.get_config()))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_configs_import_nothing_but_ml_collections_and_each_other(file):
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported <= {"ml_collections", "configs"}


def test_every_field_has_a_comment_on_its_line_or_the_line_above():
    lines = SOURCE.splitlines()
    assigned = [i for i, line in enumerate(lines) if re.match(r"    \w+\.\w+ = ", line)]
    fields = [i for i in assigned if "ConfigDict()" not in lines[i]]
    bare = [i for i in fields if "  # " not in lines[i] and "    # " not in lines[i - 1][:6]]
    assert len(fields) == len(list(leaves(common.get_config())))
    assert not [lines[i].strip() for i in bare]


def test_every_field_is_read_somewhere():
    # settings.py names fields without using any.
    files = [path for path in (ROOT / "hir_jax").rglob("*.py") if path.name != "settings.py"]
    code = "\n".join(path.read_text() for path in [ROOT / "main.py", *files])
    data_code = "\n".join(p.read_text() for p in (ROOT / "hir_jax" / "data").rglob("*.py"))

    def is_read(field):
        section, _, name = field.rpartition(".")
        if section == "mesh":  # read as shape[axis]
            return name in sharding.AXES
        return (
            re.search(rf"\b{section or 'config'}\.{name}\b", code)
            or re.search(rf"\*\*config\.{section}\.to_dict\(\)", code)  # by a dataclass
            # There `config` is config.data.
            or (section == "data" and re.search(rf"\bconfig\.{name}\b", data_code))
            or (section == "data.fields" and "**config.fields.to_dict()" in data_code)
        )

    assert [name for name, _ in leaves(common.get_config()) if not is_read(name)] == []


@pytest.mark.parametrize("size", flan_t5.SIZES)
def test_flan_t5_sizes(size):
    config = flan_t5.get_config(size)
    assert config.model.path == f"google/flan-t5-{size}"
    assert config.model.dtype == "bfloat16"
    big = size in ("xl", "xxl")
    assert config.train.optimizer == ("adafactor" if big else "adamw")
    assert (config.mesh.data, config.mesh.fsdp) == ((1, -1) if big else (-1, 1))
    assert (config.mesh.tensor, config.train.remat) == ((4, True) if size == "xxl" else (1, False))
    assert config.train.accumulation == 0
    assert config.train.batch_size % 4 == 0


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r"expected a size of small, .*; found 'huge'"):
        flan_t5.get_config("huge")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("google/flan-t5-base", {"algorithm": "hir"}),
        ("google/flan-ul2", {"algorithm": "hir", "train.optimizer": "adafactor"}),
        ("CohereForAI/aya-101", {"algorithm": "hir", "mesh.fsdp": -1}),
        ("google/madlad400-3b-mt", {"algorithm": "hir", "mesh.fsdp": -1}),
        ("google/mt5-small", {"algorithm": "sft", "train.optimizer": "adamw"}),
        ("google/umt5-xxl", {"algorithm": "sft", "train.optimizer": "adafactor"}),
        ("EleutherAI/pile-t5-base", {"algorithm": "sft"}),
        ("google/t5-xl-lm-adapt", {"algorithm": "sft", "train.accumulation": 0}),
        ("google/byt5-small", {"data.max_source_tokens": 1024, "mesh.fsdp": 1}),
        ("Salesforce/codet5p-220m", {"train.learning_rate": 5e-5, "sample.max_new_tokens": 128}),
    ],
)
def test_a_model_of_the_family_by_its_name(name, changes, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    values = flags.FlagValues()
    loaded = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["main.py", f"--config={ROOT / 'configs' / 't5_family.py'}:{name}"])
    settings.check(loaded.value)
    assert loaded.value.model.path == name
    found = dict(flat(loaded.value))
    assert {field: found[field] for field in changes} == changes


def test_a_name_of_no_family_is_refused():
    with pytest.raises(ValueError, match=r"begins with one of google/flan-t5-, .*; found 'bart'"):
        t5_family.get_config("bart")


def test_a_runs_own_config_is_read_from_its_workdir(tmp_path):
    config = common.get_config()
    config.data.seed = 7
    config.loss.contrastive_smoothing = 0.1
    config.verifier, config.reward.weights = "exact,number", (0.8, 0.2)
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    assert workdir.get_config(str(tmp_path)) == config
    # As an earlier version wrote it, without a field that there is now.
    fields = json.loads(config.to_json_best_effort())
    del fields["buckets"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert workdir.get_config(str(tmp_path)) == config
    for content in ('{"seed": "x"}', '{"unheard": 1}', "[1]", "{"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"a run's config in .*config\.json, found a fault"):
            workdir.get_config(str(tmp_path))
    with pytest.raises(ValueError, match="found a fault"):
        workdir.get_config(str(tmp_path / "absent"))


def test_paper_hyperparameters():
    # Zhang et al., 2023 (arXiv 2302.05206), and the reference script's number of iterations.
    config = paper.get_config()
    assert config.sample.samples == 4
    assert config.sample.temperature == 1.0
    assert models.top_k(config) == 50
    assert settings.setting(config, "train.learning_rate") == 5e-4
    assert config.train.weight_decay == 0.0
    assert config.train.batch_size == 64
    assert config.train.epochs == 10
    assert config.loss.smoothing == 0.2
    assert config.loss.contrastive == "pairwise"
    assert config.loss.contrastive_weight == 1.0
    assert config.loss.contrastive_smoothing is None
    assert settings.setting(config, "loss.entropy_weight") == 0.001
    assert config.data.protocol == "paper"
    assert config.data.seed == 1
    assert config.iterations == 31


def test_the_papers_preset_weighs_and_holds_out_as_its_code_does():
    config = paper.get_config()
    assert config.loss.average == "examples"
    assert config.replay.hold_out == 0.1
    assert (config.replay.dedup, config.hir.share_right) == ("iteration", 0.0)
    assert "--config.sample.samples=1" in paper.__doc__  # where it is not followed, it is listed


@pytest.mark.parametrize(
    ("changes", "given", "faults"),
    [
        ({"algorithm": "sft"}, {"replay.dedup", "sample.samples", "sample.rows"}, 2),
        ({"algorithm": "reinforce"}, {"train.epochs", "sample.samples", "replay.dedup"}, 2),
        ({"algorithm": "rloo", "rloo.clip": True}, {"train.epochs", "ratio.clip_low"}, 0),
        ({"algorithm": "rloo"}, {"train.epochs", "ratio.clip_low", "rloo.clip"}, 2),
        ({"algorithm": "ppo"}, {"train.epochs", "ratio.clip_low"}, 0),
        ({"algorithm": "farl"}, {"loss.contrastive_weight", "replay.dedup", "sub_output.mode"}, 1),
        ({"loss.contrastive": "in_batch"}, {"loss.contrastive_smoothing", "loss.smoothing"}, 1),
        ({"loss.contrastive": "in_batch"}, {"loss.contrastive_weight", "loss.contrastive"}, 0),
        (
            {"loss.contrastive_weight": 0.0},
            {"loss.contrastive", "loss.contrastive_score", "loss.contrastive_weight"},
            2,
        ),
        ({"instruction.facts.short": ("s", "l")}, {"hir.flip", "hir.shown"}, 0),
        ({"instruction.facts.short": ("s", "l"), "loss.contrastive_weight": 0.0}, {"hir.flip"}, 1),
        ({"instruction.facts.short": ("s", "l"), "loss.contrastive": "in_batch"}, {"hir.flip"}, 1),
        ({"sub_output.mode": "full"}, {"sub_output.mode", "sub_output.prob"}, 1),
        ({}, {"loss.contrastive_smoothing", "sub_output.prob", "replay.dedup", "seed"}, 0),
        ({}, {"sample.guidance_cutoff", "sample.rerank", "sample.beams"}, 3),
        ({}, {"beam.length_penalty", "sample.among", "evaluate.among", "evaluate.beams"}, 1),
        ({"evaluate.beams": 4}, {"beam.length_penalty", "beam.early_stopping"}, 0),
        ({"algorithm": "sft"}, {"sample.among", "evaluate.among"}, 1),
        ({}, {"train.remat", "train.remat_keeps"}, 1),
        ({"train.remat": True}, {"train.remat_keeps"}, 0),
        ({"sample.guidance": 0.5}, {"sample.guidance", "sample.guidance_cutoff"}, 0),
        ({"algorithm": "sft"}, {"sample.guidance", "sample.temperature", "sample.top_p"}, 3),
        (
            {"algorithm": "sft", "evaluate.samples": (4,), "evaluate.guidance": (1.0,)},
            {"sample.guidance", "sample.guidance_cutoff", "sample.temperature", "sample.top_p"},
            1,
        ),
    ],
)
def test_a_field_that_was_set_and_is_not_read_is_refused(changes, given, faults):
    config = common.get_config()
    config.update_from_flattened_dict(changes)
    if not faults:
        return settings.check_given(config, given)
    with pytest.raises(UserError, match="set but not read") as e:
        settings.check_given(config, given)
    assert len(str(e.value).splitlines()) == 1 + faults


def test_settings_lists_every_fault_at_once():
    config = common.get_config()
    config.algorithm = "pppo"
    config.model.dtype = "float16"
    config.train.log_every = 0
    config.sample.temperature = -1.0
    config.loss.smoothing = float("nan")
    config.loss.contrastive_smoothing = 1.5
    config.evaluate.samples = (4, 0)
    config.evaluate.guidance = (0.5, -1.0)
    with pytest.raises(UserError) as e:
        settings.check(config)
    first, *rest = str(e.value).splitlines()[1:]
    assert first.startswith("  config.algorithm: expected one of hir, sft, farl, raft, reinforce,")
    assert first.endswith("found 'pppo'")
    assert rest == [
        "  config.model.dtype: expected one of float32, bfloat16 (T5 overflows in float16); found "
        "'float16'",
        "  config.train.log_every: expected 1 or more; found 0",
        "  config.sample.temperature: expected 0 or more; found -1.0",
        "  config.loss.smoothing: expected 0 to 1; found nan",
        "  config.loss.contrastive_smoothing: expected 0 to 1; found 1.5",
        "  config.evaluate.samples: expected numbers of samples, each 1 or more; found (4, 0)",
        "  config.evaluate.guidance: expected numbers, each 0 or more; found (0.5, -1.0)",
    ]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sample.beams": 2}, "sample.samples: expected at most sample.beams=2, .*; found 4"),
        ({"sample.beams": 4, "sample.guidance": 1.0}, "sample.guidance: expected 0 with"),
        (
            {"evaluate.beams": 4, "evaluate.samples": (4,)},
            "evaluate.samples and guidance: expected",
        ),
        ({"beam.early_stopping": "yes"}, "beam.early_stopping: expected one of false, true, never"),
        ({"evaluate.beams": 0}, "evaluate.beams: expected 1 or more; found 0"),
        ({"algorithm": "grpo", "sample.among": "options"}, "sample.among: expected '' with algori"),
        ({"sample.beams": 4, "sample.samples": 2, "evaluate.beams": 3}, ""),
        (
            {"algorithm": "grpo", "sample.among": "options", "ratio.behaviour": "drawn"},
            "",
        ),
    ],
)
def test_faults_of_beams_and_of_given_outputs(changes, fault):
    config = common.get_config()
    config.update_from_flattened_dict(changes)
    if not fault:
        return settings.check(config)
    with pytest.raises(UserError, match=fault) as e:
        settings.check(config)
    assert len(str(e.value).splitlines()) == 2


def test_faulty_rewards_are_refused_before_anything_is_loaded():
    config = common.get_config()
    config.verifier, config.reward.weights = "exact,my_checks:short", (0.8, 0.2)
    settings.check(config)  # asks no module
    config.reward.threshold, config.reward.weights = 0.0, (0.8, -0.2, 1.0)
    with pytest.raises(UserError) as e:
        settings.check(config)
    assert str(e.value).splitlines()[1:] == [
        "  config.reward.threshold: expected above 0 and at most 1; found 0.0",
        "  config.reward.weights: expected (), or for each of exact, my_checks:short a number "
        "above 0; found (0.8, -0.2, 1.0)",
    ]


@pytest.mark.parametrize(
    ("flag", "weights"), [("(0.8, 0.2)", (0.8, 0.2)), ("3,1", (3, 1)), ("2", (2,)), ("()", ())]
)
def test_tuples_are_flags(flag, weights, monkeypatch):
    given = [f"--config.reward.weights={flag}", "--config.reward.threshold=1"]
    given += ["--config.evaluate.samples=4", "--config.evaluate.guidance=0.5,1"]
    monkeypatch.setattr("sys.argv", ["main.py", *given])
    values = flags.FlagValues()
    loaded = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(["main.py", f"--config={ROOT / 'configs' / 'common.py'}", *given])
    assert (loaded.value.reward.weights, loaded.value.reward.threshold) == (weights, 1.0)
    assert (loaded.value.evaluate.samples, loaded.value.evaluate.guidance) == ((4,), (0.5, 1))


def test_a_share_of_right_pairs_is_of_hir_alone():
    config = common.get_config()
    given = ("hir.share_right",)
    settings.check_given(config, given)
    config.algorithm = "farl"
    with pytest.raises(UserError, match=r"hir\.share_right: algorithm 'farl' does not read it"):
        settings.check_given(config, given)
