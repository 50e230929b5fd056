"""Guided draws: two prompts an output, in the engine and as a plain loop would draw them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hir_jax.decoding import draws
from hir_jax.decoding.prompt import Guide, Output
from hir_jax.devices import sharding
from hir_jax.model import batching, t5
from tests.decoding import sampler_test
from tests.decoding.sampler_test import CONFIG, EOS, KEY, PROMPTS, SAMPLER

OPPOSITE = [prompt.tokens for prompt in reversed(PROMPTS)]
# More questions than places, samples that end at different times, and pairs of which either prompt
# may be the one for the longer bucket.
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
    """Each prompt's outputs, by whole passes over what was drawn so far."""
    keys = [(prompt.uid, sample) for prompt in PROMPTS for sample in range(samples)]
    uid, sample = (jnp.array(x, jnp.uint32) for x in zip(*keys, strict=True))
    key_N = draws.row_keys(KEY, uid, sample)
    sides = [
        batching.pad([tokens for tokens in side for _ in range(samples)], 16)
        for side in ([prompt.tokens for prompt in PROMPTS], guide.opposite)
    ]

    @jax.jit
    def step(tokens, t):
        inputs = t5.shift_right(CONFIG, tokens)
        logits, opposite = (t5.forward(params, CONFIG, *side, inputs)[:, t] for side in sides)
        scores = draws.guided(logits, opposite, guide.guidance, guide.cutoff)
        uniform = draws.uniforms(key_N, jnp.full(len(keys), t))
        token, logprob = draws.scored_draw(scores, uniform, temperature, ENGINE.top_k)
        return token, draws.token_logprob(logits, token), logprob

    tokens = np.zeros((len(keys), ENGINE.max_new_tokens), np.int32)
    whole, drawn = np.zeros(tokens.shape), np.zeros(tokens.shape)
    for t in range(ENGINE.max_new_tokens):
        tokens[:, t], whole[:, t], drawn[:, t] = step(tokens, t)
    outputs = []
    for own, p, q in zip(tokens.tolist(), whole, drawn, strict=True):
        length = own.index(EOS) + 1 if EOS in own else len(own)
        outputs.append(Output(tuple(own[:length]), p[:length].sum(), tuple(q[:length])))
    return [outputs[i : i + samples] for i in range(0, len(outputs), samples)]


def guided(params, mesh=ENGINE.mesh):
    engine = dataclasses.replace(ENGINE, mesh=mesh)
    return engine(params, PROMPTS, KEY, 0.8, samples=2, guide=Guide(OPPOSITE, 1.5, 0.05))


@pytest.fixture(scope="module")
def plain(params):
    return ENGINE(params, PROMPTS, KEY, 0.8, samples=2)


def tokens_of(outputs):
    return [[output.tokens for output in own] for own in outputs]


def test_guided_outputs_are_those_of_a_plain_loop(params, plain):
    found = guided(params)
    expected = drawn_by_a_loop(params, Guide(OPPOSITE, 1.5, 0.05), 0.8, 2)
    assert tokens_of(found) == tokens_of(expected) != tokens_of(plain)
    # `logprob` is of the plain policy, `logprobs` of what was really drawn from.
    for own, others in zip(found, expected, strict=True):
        for output, other in zip(own, others, strict=True):
            np.testing.assert_allclose(output.logprob, other.logprob, atol=1e-4)
            np.testing.assert_allclose(output.logprobs, other.logprobs, atol=1e-4)


def test_without_guidance_the_draws_are_the_plain_policys_bit_by_bit(params, plain):
    # No pair goes to a longer bucket than its prompt: padding would round otherwise.
    short = [own[: len(prompt.tokens)] for own, prompt in zip(OPPOSITE, PROMPTS, strict=True)]
    guide = Guide(short, 0.0, 0.5)
    assert ENGINE(params, PROMPTS, KEY, 0.8, samples=2, guide=guide) == plain


def test_on_a_mesh_the_same(params):
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    placed = sampler_test.place(jax.device_get(params), mesh)
    assert tokens_of(guided(placed, mesh)) == tokens_of(guided(params))
