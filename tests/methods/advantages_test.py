"""Advantages and rows, against numbers worked by hand."""

import dataclasses

import numpy as np
import pytest

from hir_jax.data.example import Example
from hir_jax.hindsight.relabel import Goal, Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.methods import groups, ppo
from hir_jax.methods.farl import Farl
from hir_jax.methods.grpo import Grpo
from hir_jax.methods.maxrl import MaxRl
from hir_jax.methods.method import View
from hir_jax.methods.nft import Nft
from hir_jax.methods.ppo import Ppo
from hir_jax.methods.reinforce import Reinforce
from hir_jax.methods.rloo import Rloo
from hir_jax.methods.sft import Sft
from hir_jax.methods.topr import Topr
from hir_jax.methods.w_reinforce import WReinforce


def sample(question, index, reward, iteration=1, **fields):
    right = reward >= 0.5
    fields = {"logprobs": (-0.5, -0.25), **fields}
    return Sample(
        question, index, (7, 1), "w", right, True, -0.75, iteration, reward=reward, **fields
    )


# Of "a" one of four is right, of "b" all, of "c" none, of "d" half in part.
REWARDS = {"a": (1, 0, 0, 0), "b": (1, 1), "c": (0, 0), "d": (0.75, 0.25)}
SAMPLES = [sample(q, i, r) for q, rewards in REWARDS.items() for i, r in enumerate(rewards)]
OLD = [sample("a", 0, 1, iteration=0)]


def view(samples=(*OLD, *SAMPLES), **fields):
    given = {"epoch": 0, "seed": 0, "encode": None, "decode": None, "eos_id": 1}
    return View(samples=samples, examples=(), iteration=1, **given | fields)


def scalars(method, name, **given):
    return [pair.scalars[name] for pair in method.pairs(view(**given))]


def test_groups_are_of_a_question_and_an_iteration():
    samples = [*OLD, *SAMPLES]
    assert groups.rewards(samples).tolist() == [1, 1, 0, 0, 0, 1, 1, 0, 0, 0.75, 0.25]
    assert groups.pass_rates(samples).tolist() == [1] + 4 * [0.25] + [1, 1, 0, 0, 0.5, 0.5]
    assert groups.sizes(samples).tolist() == [1, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2]
    spread = [0, *4 * [np.sqrt(3) / 4], 0, 0, 0, 0, 0.25, 0.25]
    np.testing.assert_allclose(groups.spreads(samples), spread, atol=1e-12)


ADVANTAGES = {
    Reinforce("none"): (1, 0, 0, 0, 1, 1, 0, 0, 0.75, 0.25),
    Reinforce("mean"): (0.6, -0.4, -0.4, -0.4, 0.6, 0.6, -0.4, -0.4, 0.35, -0.15),
    WReinforce(0.1): (0.1, -1, -1, -1, 0.1, 0.1, -1, -1, 0.075 - 0.25, 0.025 - 0.75),
    WReinforce(0.0): (0, -1, -1, -1, 0, 0, -1, -1, -0.25, -0.75),
    Rloo(): (1, -1 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0, 0.5, -0.5),
    Grpo(divide_by_spread=False): (0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0, 0.25, -0.25),
    Grpo(): (3**0.5, *3 * [-(3**-0.5)], 0, 0, 0, 0, 1, -1),
    MaxRl(): (3, -1, -1, -1, 0, 0, 0, 0, 0.5, -0.5),
}


@pytest.mark.parametrize("method", ADVANTAGES, ids=repr)
def test_advantages_of_the_newest_samples(method):
    found = scalars(method, "advantage")
    np.testing.assert_allclose(found, ADVANTAGES[method], rtol=1e-5, atol=1e-9)


def test_rows_are_the_outputs_as_they_were_drawn():
    rows = Grpo().pairs(view())
    assert [row.target for row in rows] == [s.tokens for s in SAMPLES]
    assert {(row.prefix, row.correct, row.weight) for row in rows} == {((), True, 1.0)}
    assert {row.scalars["behaviour"] for row in rows} == {(-0.5, -0.25)}


def test_farl_imitates_right_outputs_as_they_were_drawn():
    right = [s for s in (*OLD, *SAMPLES) if s.correct]
    made = Farl().pairs(view())
    assert [pair.target for pair in made] == [s.tokens for s in right]
    assert [pair.example_id for pair in made] == ["a", "a", "b", "b", "d"]


def test_sft_closes_the_first_target_of_each_question():
    examples = [
        Example("t/0", "?", (), ("three", "3"), "t", "?"),
        Example("t/1", "?", ("red", "blue"), ("blue",), "t", "?"),
    ]
    asked = dataclasses.replace(view(encode=lambda text: [*map(ord, text)]), examples=examples)
    assert Sft().pairs(asked) == [
        Pair("t/0", (), (*map(ord, "three"), 1), Goal(True)),
        Pair("t/1", (), (*map(ord, "(B)"), 1), Goal(True)),
    ]


def test_questions_that_tell_nothing_may_be_left_out():
    rows = Grpo(skip_flat=True).pairs(view())
    assert [row.example_id for row in rows] == ["a"] * 4 + ["d"] * 2
    rows = Nft().pairs(view())
    assert [row.example_id for row in rows] == ["a"] * 4 + ["d"] * 2
    assert scalars(Nft(), "pass_rate") == 4 * [0.25] + 2 * [0.5]
    assert scalars(Nft(), "reward") == [1, 0, 0, 0, 0.75, 0.25]
    assert scalars(Topr(), "reward") == [s.reward for s in SAMPLES]


@pytest.mark.parametrize("method", [Grpo(skip_flat=True), Nft()], ids=repr)
def test_rewards_that_are_alike_tell_nothing_however_they_are_rounded(method):
    flat = [sample("flat", i, 0.1) for i in range(3)]
    assert groups.spreads(flat).max() > 0  # a mean of three tenths is no tenth in binary
    assert method.pairs(view(flat)) == []
    other = [*flat, *(sample("other", i, r) for i, r in enumerate((0.1, 0.1, 0.2)))]
    assert [row.example_id for row in method.pairs(view(other))] == ["other"] * 3


@pytest.mark.parametrize("method", [*ADVANTAGES, Nft(), Topr(), Ppo()], ids=repr)
def test_of_nothing_there_are_no_rows(method):
    assert method.pairs(view(OLD)) == []


# PPO ----------------------------------------------------------------------------------------------


def test_generalized_advantages_by_hand():
    reward, value = np.array([0.0, -0.5, 1.0]), np.array([0.5, 0.25, 1.0])
    # δ = 0 + 0.9 * 0.25 - 0.5, -0.5 + 0.9 * 1 - 0.25, 1 - 1; each weighs 0.9 * 0.5 of the next.
    expected = [-0.275 + 0.45 * 0.15, 0.15, 0.0]
    np.testing.assert_allclose(ppo.advantages(reward, value, 0.9, 0.5), expected, atol=1e-12)
    # With λ = 1 it is what comes, less what was expected; with λ = 0 the error of one step.
    np.testing.assert_allclose(ppo.advantages(reward, value, 1, 1), [0.0, 0.25, 0.0], atol=1e-12)
    np.testing.assert_allclose(ppo.advantages(reward, value, 1, 0), [-0.25, 0.25, 0.0], atol=1e-12)


def ppo_rows(method, state=None):
    fields = {"values": (0.5, 0.25), "reference": (-1.5, -0.5)}
    samples = [sample("a", 0, 1.0, **fields), sample("a", 1, 0.0, **fields)]
    return method.pairs(view(samples, state=state or {}))


def test_the_reward_comes_with_the_last_token():
    right, wrong = ppo_rows(Ppo(trace=1.0, whiten=False))
    assert right.scalars["advantage"] == pytest.approx([0.5, 0.75])
    assert wrong.scalars["advantage"] == pytest.approx([-0.5, -0.25])
    assert right.scalars["returns"] == pytest.approx([1.0, 1.0])
    assert right.scalars["value"] == (0.5, 0.25)


def test_advantages_are_whitened_over_all_tokens():
    every = np.concatenate([row.scalars["advantage"] for row in ppo_rows(Ppo())])
    assert every.mean() == pytest.approx(0, abs=1e-7) and every.std() == pytest.approx(1)
    returns = [row.scalars["returns"] for row in ppo_rows(Ppo())]
    assert returns == [row.scalars["returns"] for row in ppo_rows(Ppo(whiten=False))]


def test_moving_away_from_the_start_costs_something():
    method = Ppo(trace=1.0, whiten=False, kl_coefficient=0.1)
    right, _ = ppo_rows(method, {"kl_coefficient": 0.2})
    # log π_old - log π_start = 1 and 0.25 nats at 0.2 each; then the reward.
    assert right.scalars["returns"] == pytest.approx([1 - 0.2 - 0.05, 1 - 0.05])


def test_the_coefficient_adapts_to_how_far_the_samples_before_had_moved():
    method = Ppo(kl_coefficient=0.5, kl_target=1.0)
    samples = [sample("a", 0, 1.0, reference=(-1.5, -0.5))]
    state = method.after_sampling(samples, {})
    assert state == {"kl_coefficient": 0.5, "kl": 1.25}
    state = method.after_sampling(samples, state)
    assert state["kl_coefficient"] == pytest.approx(0.5 * 1.02)  # an error of 0.25 counts as 0.2
    state = method.after_sampling(samples, {"kl_coefficient": 0.5, "kl": 0.9})
    assert state["kl_coefficient"] == pytest.approx(0.5 * 0.99)
    fixed = dataclasses.replace(method, kl_target=0.0)
    assert fixed.after_sampling(samples, state)["kl_coefficient"] == state["kl_coefficient"]
    assert Ppo().after_sampling(samples, {}) == {}


def test_explained_variance_says_what_the_value_head_knew():
    fields = [{"values": (1.0, 1.0)}, {"values": (0.0, 0.0)}]
    samples = [sample("a", i, 1.0 - i, **given) for i, given in enumerate(fields)]
    assert Ppo(trace=1.0).figures(view(samples)) == {"explained_variance": 1.0}
    blind = [dataclasses.replace(s, values=(0.5, 0.5)) for s in samples]
    assert Ppo(trace=1.0).figures(view(blind)) == {"explained_variance": 0.0}
