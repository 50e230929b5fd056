"""Guided draws: two prompts an output, in the engine and as a plain loop would draw them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.decoding import draws
from hir_jax.decoding.prompt import Guide
from hir_jax.devices import sharding
from hir_jax.model import batching, t5
from tests.decoding import sampler_test
from tests.decoding.sampler_test import CONFIG, EOS, KEY, PROMPTS, SAMPLER

OPPOSITE = [prompt.tokens for prompt in reversed(PROMPTS)]
# More questions than places, and samples that end at different times.
ENGINE = dataclasses.replace(SAMPLER, rows=4, logprobs="drawn", top_k=20)

params = sampler_test.params


def test_scores_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.2, 1e-6]]))
    opposite = jnp.log(jnp.array([[0.25, 0.6, 0.15, 1e-9]]))
    plain = draws.guided(logits, opposite, 0.0, 0.5)
    assert (plain == logits).all()
    moved = np.array([[0.5 * 2.0, 0.3 * 0.5, 0.2 * 4 / 3, 1e-6 * 1e3]])
    got = jnp.exp(draws.guided(logits, opposite, 1.0, 0.0))
    np.testing.assert_allclose(got, moved, rtol=1e-4)
    # Half as likely as the likeliest, at least.
    np.testing.assert_allclose(
        jnp.exp(draws.guided(logits, opposite, 1.0, 0.5)), moved * [1, 1, 0, 0], rtol=1e-4
    )


def drawn_by_a_loop(params, guide, temperature, samples):
    """Tokens of each prompt's samples, by whole passes over what was drawn so far."""
    keys = [(prompt.uid, sample) for prompt in PROMPTS for sample in range(samples)]
    uid, sample = (jnp.array(x, jnp.uint32) for x in zip(*keys, strict=True))
    key_N = draws.row_keys(KEY, uid, sample)
    sides = [
        batching.pad([tokens for tokens in side for _ in range(samples)], 16)
        for side in ([prompt.tokens for prompt in PROMPTS], guide.opposite)
    ]
    forward = jax.jit(lambda *args: t5.forward(params, CONFIG, *args))
    tokens = np.zeros((len(keys), ENGINE.max_new_tokens), np.int32)
    for t in range(ENGINE.max_new_tokens):
        inputs = t5.shift_right(CONFIG, jnp.asarray(tokens))
        logits, opposite = (forward(*side, inputs)[:, t] for side in sides)
        scores = draws.guided(logits, opposite, guide.guidance, guide.cutoff)
        uniform = draws.uniforms(key_N, jnp.full(len(keys), t))
        tokens[:, t] = draws.draw(scores, uniform, temperature, ENGINE.top_k)
    rows = [row[: row.index(EOS) + 1] if EOS in row else row for row in tokens.tolist()]
    return [rows[i : i + samples] for i in range(0, len(rows), samples)]


@pytest.fixture(scope="module")
def guided(params):
    return ENGINE(params, PROMPTS, KEY, 1.0, samples=2, guide=Guide(OPPOSITE, 1.5, 0.05))


def tokens_of(outputs):
    return [[list(output.tokens) for output in own] for own in outputs]


def test_guided_outputs_are_those_of_a_plain_loop(params, guided):
    assert tokens_of(guided) == drawn_by_a_loop(params, Guide(OPPOSITE, 1.5, 0.05), 1.0, 2)
    plain = ENGINE(params, PROMPTS, KEY, 1.0, samples=2)
    assert tokens_of(guided) != tokens_of(plain)


def test_without_guidance_the_draws_are_the_plain_policys_bit_by_bit(params):
    plain = ENGINE(params, PROMPTS, KEY, 1.0, samples=2)
    at_zero = ENGINE(params, PROMPTS, KEY, 1.0, samples=2, guide=Guide(OPPOSITE, 0.0, 0.5))
    assert tokens_of(at_zero) == tokens_of(plain)
    for own, other in zip(at_zero, plain, strict=True):
        np.testing.assert_allclose([o.logprob for o in own], [o.logprob for o in other], atol=1e-5)


def test_logprobs_are_of_the_plain_policy_and_of_what_was_drawn_from(params, guided):
    whole = dataclasses.replace(ENGINE, logprobs="whole")
    outputs = whole(params, PROMPTS, KEY, 1.0, samples=2, guide=Guide(OPPOSITE, 1.5, 0.05))
    assert tokens_of(outputs) == tokens_of(guided)
    for own, others in zip(outputs, guided, strict=True):
        for output, other in zip(own, others, strict=True):
            assert sum(output.logprobs) == pytest.approx(other.logprob, abs=1e-5)
            assert max(other.logprobs) <= 0 and output.logprobs != other.logprobs


def test_on_a_mesh_the_same(params, guided):
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    engine = dataclasses.replace(ENGINE, mesh=mesh)
    placed = sampler_test.place(jax.device_get(params), mesh)
    outputs = engine(placed, PROMPTS, KEY, 1.0, samples=2, guide=Guide(OPPOSITE, 1.5, 0.05))
    assert tokens_of(outputs) == tokens_of(guided)


def test_a_pair_goes_by_its_longer_prompt(params):
    short = [prompt for prompt in PROMPTS if len(prompt.tokens) <= 8][:2]
    long = [tokens for tokens in OPPOSITE if len(tokens) > 8][:2]
    engine = dataclasses.replace(ENGINE, logprobs="none")
    outputs = engine(params, short, KEY, 0.0, guide=Guide(long, 0.0))
    assert tokens_of(outputs) == tokens_of(engine(params, short, KEY, 0.0))
