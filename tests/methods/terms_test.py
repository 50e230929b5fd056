"""Losses of the methods and their gradients, against closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.methods.grpo import Grpo
from hir_jax.methods.hir import Hir
from hir_jax.methods.maxrl import MaxRl
from hir_jax.methods.nft import Nft
from hir_jax.methods.ppo import Ppo
from hir_jax.methods.topr import Topr
from hir_jax.training.losses import TokenStatistics
from hir_jax.training.objective import Statistics

# Two outputs of two tokens, and one of one.
MASK = np.array([[1, 1], [1, 1], [1, 0]], bool)
LOGPROB = np.log([[0.5, 0.25], [0.4, 0.8], [0.9, 0.1]])


def statistics(logprob_BxT, values_BxT=None, **scalars):
    zeros = jnp.zeros_like(logprob_BxT)
    scalars = {name: jnp.asarray(value, jnp.float32) for name, value in scalars.items()}
    return Statistics(
        own=TokenStatistics(logprob_BxT, zeros, zeros),
        opposite=None,
        value_BxT=values_BxT,
        mask_BxT=jnp.asarray(MASK),
        weight_BxT=jnp.asarray(MASK, jnp.float32),
        weight_B=jnp.ones(len(MASK)),
        scalars=scalars,
        crossed=None,
    )


def value_and_push(method, ratio=1.0, logprob=LOGPROB, **scalars):
    """A method's loss, and minus its gradient with respect to each token's log-probability.

    `ratio`: of the policy to the one that drew, a token.
    """
    behaviour = np.where(MASK, logprob - np.log(ratio), 0)

    def loss(logprob_BxT):
        terms = method.terms(statistics(logprob_BxT, behaviour=behaviour, **scalars))
        return sum(term.coefficient * term.sum for term in terms.values())

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(logprob, jnp.float32))
    return float(value), -np.asarray(gradient)


def figures(method, ratio=1.0, **scalars):
    behaviour = np.where(MASK, LOGPROB - np.log(ratio), 0)
    terms = method.terms(statistics(jnp.asarray(LOGPROB), behaviour=behaviour, **scalars))
    return {name: float(t.sum) / 3 for name, t in terms.items() if not t.coefficient}


A = np.array([2.0, -1.0, 0.5])


def test_the_plain_gradient_is_the_advantage_at_each_token():
    value, push = value_and_push(MaxRl(), advantage=A)
    np.testing.assert_allclose(push, np.where(MASK, A[:, None], 0), rtol=1e-6)
    assert value == pytest.approx(-(np.where(MASK, LOGPROB, 0).sum(1) * A).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "factor"),
    [
        (1.0, (1, 1, 1)),
        (1.1, (1.1, 1.1, 1.1)),
        (1.5, (0, 1.5, 0)),  # beyond 1.2 nothing more is gained, but a loss still counts
        (0.7, (0.7, 0, 0.7)),  # and below 0.8 the other way round
    ],
)
def test_grpos_gradient_is_the_advantage_times_the_ratio_where_it_is_not_clipped(ratio, factor):
    value, push = value_and_push(Grpo(clip_low=0.2, clip_high=0.2), ratio, advantage=A)
    expected = np.where(MASK, (A * factor)[:, None], 0)
    np.testing.assert_allclose(push, expected, rtol=1e-5)
    surrogate = np.minimum(ratio * A, np.clip(ratio, 0.8, 1.2) * A)
    assert value == pytest.approx(-(surrogate * MASK.sum(1)).sum(), rel=1e-5)


def test_both_clips_are_their_own():
    _, push = value_and_push(Grpo(clip_low=0.2, clip_high=0.6), 1.5, advantage=A)
    np.testing.assert_allclose(push, np.where(MASK, 1.5 * A[:, None], 0), rtol=1e-5)


R, P = np.array([1.0, 0.0, 0.0]), np.array([0.25, 0.25, 0.5])


def test_nfts_gradient_on_policy_is_grpos():
    spread = np.sqrt(P * (1 - P))
    for by_spread in (True, False):
        for least in (1.0, 0.1):
            nft = Nft(least, divide_by_spread=by_spread)
            _, push = value_and_push(nft, reward=R, pass_rate=P)
            advantage = (R - P) / (spread if by_spread else 1)
            _, grpo = value_and_push(Grpo(), advantage=advantage)
            np.testing.assert_allclose(push, grpo, rtol=1e-5)


def test_nfts_loss_and_gradient_off_policy():
    nft, rho = Nft(least=0.7), 1.4
    value, push = value_and_push(nft, rho, reward=R, pass_rate=P)
    weight = np.sqrt((1 - P) / P)
    implied = (1 - P * rho) / (1 - P)
    assert implied[1] > 0.7 > implied[2]
    bounded = np.maximum(implied, 0.7)
    token = np.where(R == 1, -np.log(rho), -np.log(bounded))
    assert value == pytest.approx((weight * token * MASK.sum(1)).sum(), rel=1e-5)
    # The gradient of what the max cuts is kept: that of the implied ratio, over its bound.
    expected = weight * np.where(R == 1, 1.0, -P * rho / (1 - P) / bounded)
    np.testing.assert_allclose(push, np.where(MASK, expected[:, None], 0), rtol=1e-5)


def test_toprs_gradient_tapers_wrong_outputs_by_the_ratio_of_the_whole():
    reward = np.array([1.0, 0.0, 0.25])
    _, push = value_and_push(Topr(), 0.5, reward=reward)
    # Wholes are 0.25, 0.25 and 0.5 times as likely; right ones are imitated as they are.
    expected = np.array([1.0, -0.25, 0.25 - 0.75 * 0.5])
    np.testing.assert_allclose(push, np.where(MASK, expected[:, None], 0), rtol=1e-5)
    _, push = value_and_push(Topr(), 2.0, reward=reward)  # at most 1
    np.testing.assert_allclose(push[:2], np.array([[1.0] * 2, [-1.0] * 2]), rtol=1e-5)
    _, push = value_and_push(Topr(low=0.5, high=3.0), 2.0, reward=reward)
    assert push[1, 0] == pytest.approx(-3.0) and push[2, 0] == pytest.approx(0.25 - 0.75 * 2)


def test_ppos_terms():
    value = jnp.array([[0.5, 0.9], [0.0, 0.1], [0.3, 9.0]])
    old = np.array([[0.4, 0.4], [0.1, 0.1], [0.3, 0.0]])
    goal = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    advantage = np.array([[1.0, -1.0], [0.5, 0.5], [2.0, 0.0]])
    given = {"behaviour": np.where(MASK, LOGPROB - np.log(1.5), 0)}
    given |= {"advantage": advantage, "returns": goal, "value": old}
    terms = Ppo(value_clip=0.2, value_weight=0.3).terms(
        statistics(jnp.asarray(LOGPROB), value, **given)
    )
    policy = -np.minimum(1.5 * advantage, 1.2 * advantage)[MASK].sum()
    assert float(terms["policy"].sum) == pytest.approx(policy, rel=1e-6)
    # Of (V - G)² and the same of V held within 0.2 of its old value, the larger.
    squares = [0.5**2, max(0.1**2, 0.4**2), 0.0, 0.1**2, 0.3**2]
    assert float(terms["value"].sum) == pytest.approx(sum(squares) / 2, rel=1e-5)
    assert terms["value"].coefficient == 0.3


def test_the_value_heads_gradient_is_the_clipped_losses():
    given = {"behaviour": np.where(MASK, LOGPROB, 0), "advantage": np.zeros((3, 2))}
    given |= {"returns": np.ones((3, 2)), "value": np.full((3, 2), 0.5)}

    def loss(value):
        return (
            Ppo(value_clip=0.2).terms(statistics(jnp.asarray(LOGPROB), value, **given))["value"].sum
        )

    value = jnp.array([[0.6, 0.9], [0.2, 1.5], [0.6, 0.0]])
    # 0.9 is past the clip towards the goal: nothing more is gained. 1.5 is past the goal itself.
    expected = [[-0.4, 0.0], [-0.8, 0.5], [-0.4, 0.0]]
    np.testing.assert_allclose(jax.grad(loss)(value), expected, atol=1e-6)


def test_figures_of_the_ratio():
    found = figures(Grpo(), 1.5, advantage=A)
    assert found["ratio"] == pytest.approx(1.5) and found["ratio_off"] == pytest.approx(0.5)
    assert found["kl_behaviour"] == pytest.approx(0.5 - np.log(1.5), rel=1e-5)
    assert found["clip_share"] == pytest.approx(2 / 3)
    same = figures(Grpo(), advantage=A)
    assert same == pytest.approx(
        {"ratio": 1, "ratio_off": 0, "kl_behaviour": 0, "clip_share": 0}, abs=1e-6
    )
    assert figures(Nft(0.7), 1.4, reward=R, pass_rate=P)["clip_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("method", [Grpo(), Nft(), Topr()], ids=repr)
def test_padding_has_no_gradient_and_breaks_none(method):
    # A row of padding: no token, and scalars of 0.
    padded = np.array([[0, 0], [1, 1], [1, 0]], bool)
    wild = jnp.asarray(np.where(padded, LOGPROB, -400.0), jnp.float32)
    given = {"behaviour": np.where(padded, LOGPROB, 0), "advantage": [0.0, 1.0, 1.0]}
    given |= {"reward": [0.0, 1.0, 0.0], "pass_rate": [0.0, 0.5, 0.5]}

    def loss(logprob_BxT):
        made = statistics(logprob_BxT, **given)._replace(
            mask_BxT=jnp.asarray(padded),
            weight_BxT=jnp.asarray(padded, jnp.float32),
            weight_B=jnp.array([0.0, 1.0, 1.0]),
        )
        return method.terms(made)["policy"].sum

    value, gradient = jax.value_and_grad(loss)(wild)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~padded] == 0).all() and (np.asarray(gradient)[padded] != 0).all()


def test_hir_weighs_wrong_outputs_in_the_supervised_term_alone():
    method = Hir(contrastive_weight=2.0, wrong_weight=0.25)
    given = statistics(jnp.asarray(LOGPROB), imitated=[1.0, 0.25, 1.0])
    terms = method.terms(given._replace(opposite=given.own))
    plain = Hir(contrastive_weight=2.0).terms(given._replace(opposite=given.own, scalars={}))
    nll = -np.where(MASK, LOGPROB, 0).sum(axis=1)
    assert float(terms["supervised"].sum) == pytest.approx(nll @ [1, 0.25, 1], rel=1e-6)
    assert float(plain["supervised"].sum) == pytest.approx(nll.sum(), rel=1e-6)
    assert float(terms["contrastive"].sum) == pytest.approx(3 * np.log(2), rel=1e-6)
    assert float(plain["contrastive"].sum) == pytest.approx(3 * np.log(2), rel=1e-6)


@pytest.mark.parametrize(
    ("score", "expected"),
    # Of the sums: c is the posterior of the instruction given the output.
    [("mean", np.log(1 + np.exp([-1.0, -0.5, 0.0]))), ("sum", np.log(1 + np.exp([-2.0, -1.0, 0])))],
)
def test_hir_compares_means_or_sums(score, expected):
    given = statistics(jnp.asarray(LOGPROB))
    other = given.own._replace(logprob=jnp.asarray(LOGPROB - [[1.0], [0.5], [0.0]]))
    terms = Hir(contrastive_weight=1.0, score=score).terms(given._replace(opposite=other))
    assert float(terms["contrastive"].sum) == pytest.approx(expected.sum(), rel=1e-6)
