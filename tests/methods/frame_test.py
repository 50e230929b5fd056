"""The frame: what is refused, what is not computed, a user's own method, and the table."""

import dataclasses
import pathlib
import re

import pytest

from configs import common
from hir_jax.errors import UserError
from hir_jax.methods import table
from hir_jax.methods.hir import Hir
from hir_jax.methods.method import ANSWERS, GROUPS, LOGPROBS, OPPOSITE, REFERENCE, VALUES
from hir_jax.methods.policy_gradient import PolicyGradient
from hir_jax.run import models, settings, trainers, workdirs
from hir_jax.training.batch import Layout
from tests import tiny
from tests.methods import advantages_test, terms_test

ROOT = pathlib.Path(__file__).parents[2]

NEEDS = {
    "hir": {OPPOSITE},
    "sft": {ANSWERS},
    "farl": set(),
    "raft": set(),
    "reinforce": set(),
    "rloo": {GROUPS},
    "grpo": {GROUPS, LOGPROBS},
    "ppo": {VALUES, LOGPROBS, REFERENCE},
    "nft": {GROUPS, LOGPROBS},
    "topr": {LOGPROBS},
    "w_reinforce": set(),
    "maxrl": {GROUPS},
}


def config(**changes):
    made = common.get_config()
    made.update_from_flattened_dict(changes)
    return made


def method(**changes):
    return settings.method_of(config(**changes))


def test_each_method_needs_what_it_says():
    assert {name: method(algorithm=name).needs for name in table.METHODS} == NEEDS
    assert method(**{"algorithm": "rloo", "rloo.clip": True}).needs == {GROUPS, LOGPROBS}
    ppo = method(**{"algorithm": "ppo", "ppo.kl_coefficient": 0.0})
    assert ppo.needs == {VALUES, LOGPROBS}
    assert method(**{"loss.contrastive_weight": 0.0}).needs == set()


@pytest.mark.parametrize("name", table.METHODS)
def test_each_method_is_sound_as_it_comes(name):
    made = config(algorithm=name)
    settings.check(made)
    found = settings.method_of(made)
    assert found == settings.method_of(made) and hash(found) == hash(settings.method_of(made))


def layout(**changes):
    made = config(**changes)
    found = settings.method_of(made)
    return found.layout(trainers.make_objective(made, found, tiny.one_device()))


def test_batches_hold_what_is_needed_alone():
    assert layout() == Layout(opposite=True)
    assert layout(**{"loss.contrastive_weight": 0.0}) == Layout()
    # The divergence from the start is under the prompt that was sampled under.
    assert layout(**{"loss.contrastive_weight": 0.0, "loss.kl_weight": 0.1}).opposite
    assert layout(**{"loss.contrastive": "in_batch"}) == Layout()
    assert layout(algorithm="farl") == layout(algorithm="sft") == Layout()
    assert layout(**{"algorithm": "farl", "loss.kl_weight": 0.1}) == Layout()
    assert layout(algorithm="rloo") == Layout(of_rows=("advantage",))
    grpo = Layout(of_rows=("advantage",), of_tokens=("behaviour",))
    assert layout(algorithm="grpo") == layout(**{"algorithm": "rloo", "rloo.clip": True}) == grpo


def test_averages_are_as_the_methods_papers_have_them():
    def average(**changes):
        made = config(**changes)
        return trainers.make_objective(made, settings.method_of(made), tiny.one_device()).average

    assert average() == average(algorithm="ppo") == "tokens"
    assert average(algorithm="grpo") == "examples"
    assert average(**{"algorithm": "grpo", "loss.average": "constant"}) == "constant"
    rates = {settings.setting(config(algorithm=n), "train.learning_rate") for n in table.METHODS}
    assert rates == {5e-4, 3e-5}
    assert settings.setting(config(**{"train.learning_rate": 0.0}), "train.learning_rate") == 0.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm": "grpo", "sample.samples": 1}, "samples: expected 2 or more"),
        ({"algorithm": "grpo", "sample.top_k": 50}, "top_k and top_p: expected 0"),
        ({"algorithm": "topr", "sample.top_p": 0.9}, "ratio.behaviour=drawn"),
        ({"algorithm": "nft", "sample.guidance": 0.5}, "policy without guidance"),
        (
            {"algorithm": "ppo", "ppo.kl_target": 1.0, "ppo.kl_coefficient": 0.0},
            "kl_coefficient: expected above 0",
        ),
        (
            {"algorithm": "ppo", "ratio.behaviour": "drawn"},
            "Use loss.kl_weight",
        ),
        ({"algorithm": "nft", "nft.least": 0.0}, "nft.least: expected above 0"),
        ({"algorithm": "topr", "topr.low": 2.0}, "topr.low: expected at most topr.high=1.0"),
        ({"algorithm": "grpo", "ratio.behaviour": "exact"}, "behaviour: expected one of whole"),
        ({"algorithm": "absent"}, "algorithm: expected one of hir"),
        ({"algorithm": "tests.absent:Method"}, "importing 'tests.absent' failed"),
        ({"algorithm": "tests.methods.frame_test:NEEDS"}, "to be a class made from"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(changes, says):
    with pytest.raises(UserError, match=says):
        settings.check(config(**changes))


def test_the_start_is_kept_where_something_reads_it():
    assert not trainers.needs_start(config())
    for changes in (
        {"loss.kl_weight": 0.1},
        {"sample.kl_to_start": True},
        {"algorithm": "ppo"},
    ):
        assert trainers.needs_start(config(**changes))
    assert not trainers.needs_start(config(**{"algorithm": "sft", "sample.kl_to_start": True}))


def test_what_may_be_is_not_refused():
    drawn = {"ratio.behaviour": "drawn", "sample.top_k": 50, "sample.top_p": 0.9}
    drawn["sample.guidance"] = 0.5
    for name in ("grpo", "topr", "nft", "ppo"):
        settings.check(config(algorithm=name, **drawn, **{"ppo.kl_coefficient": 0.0}))
    settings.check(config(**{"algorithm": "rloo", "sample.top_k": 50}))
    settings.check(config(**{"algorithm": "topr", "sample.samples": 1}))


def test_all_tokens_are_drawn_from_where_ratios_are_of_the_whole_policy():
    assert models.top_k(config()) == models.top_k(config(algorithm="rloo")) == 50
    assert models.top_k(config(algorithm="grpo")) == 0
    assert models.top_k(config(**{"algorithm": "grpo", "ratio.behaviour": "drawn"})) == 50
    assert models.top_k(config(**{"sample.top_k": 7})) == 7


def test_fields_of_other_methods_are_refused():
    with pytest.raises(UserError) as e:
        settings.check_given(
            config(algorithm="grpo"),
            {"grpo.skip_flat", "ppo.trace", "loss.contrastive", "loss.contrastive_weight"},
        )
    assert len(str(e.value).splitlines()) == 4
    settings.check_given(config(algorithm="grpo"), {"grpo.skip_flat", "ratio.clip_low"})
    with pytest.raises(UserError, match="'topr' does not read it"):
        settings.check_given(config(algorithm="topr"), {"ratio.clip_low"})


@pytest.mark.parametrize("name", table.METHODS)
def test_each_method_takes_all_that_it_reads(name):
    made = config(**{"algorithm": name, "rloo.clip": True})
    fields = {
        field
        for field in workdirs.flatten(made.to_dict())
        if field.startswith(table.METHODS[name].reads) and field.startswith(table.OPTIONAL)
    }
    of_facts_and_guides = {"hir.shown", "hir.flip", "sample.guidance_cutoff"}
    settings.check_given(made, fields - of_facts_and_guides)


@dataclasses.dataclass(frozen=True)
class Optimist(PolicyGradient):
    """A user's own."""

    def advantages(self, samples):
        return [2 * s.reward for s in samples]


def test_a_users_own_method_is_found_by_its_path():
    made = config(algorithm="tests.methods.frame_test:Optimist")
    settings.check(made)
    assert settings.method_of(made) == Optimist()
    assert table.resolve("raft") is table.resolve("farl")
    assert table.resolve("hir") is Hir


def test_the_worked_example_of_the_docs_works(monkeypatch, tmp_path):
    text = (ROOT / "docs" / "methods.md").read_text()
    (code,) = re.findall(r"```python\n# my_methods.py\n(.*?)```", text, re.S)
    (tmp_path / "my_methods.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    made = config(algorithm="my_methods:Extremes")
    settings.check(made)
    extremes = settings.method_of(made)
    rows = extremes.pairs(advantages_test.view())
    assert [row.scalars["push"] for row in rows] == [0.75, -0.25, -0.25, -0.25]
    _, push = terms_test.value_and_push(extremes, push=[1.0, -0.5, 0.25])
    assert push[:, 0].tolist() == [1.0, -0.5, 0.25]
    with pytest.raises(UserError, match="2 or more"):
        settings.check(config(algorithm="my_methods:Extremes", **{"sample.samples": 1}))
