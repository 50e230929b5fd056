"""Every expected number is worked out beside its test; log is natural."""

from math import log

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hir_jax.training import losses


def logits(*probs):
    """Logits of given distributions, shifted so that they are not normalised."""
    return jnp.log(jnp.array(probs, jnp.float32)) + 3.0


# One example of three tokens over a vocabulary of 4, the last token padding.
LOGITS = logits([[1 / 2, 1 / 4, 1 / 8, 1 / 8], [1 / 4, 1 / 4, 1 / 4, 1 / 4], [0.7, 0.1, 0.1, 0.1]])
TARGETS = jnp.array([[1, 2, 0]])
MASK = jnp.array([[True, True, False]])


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def statistics_of(logits_BxTxV, targets, pieces=1):
    """Statistics of given logits: what a decoder gives where the head is the identity."""
    return losses.token_statistics(logits_BxTxV, jnp.eye(logits_BxTxV.shape[-1]), targets, pieces)


def kl_of(policy, reference, mask):
    head = jnp.eye(policy.shape[-1])
    return losses.kl_divergence(policy, head, reference, head, mask)


def test_token_statistics():
    statistics = statistics_of(LOGITS, TARGETS)
    close(statistics.logprob, [[log(1 / 4), log(1 / 4), log(0.7)]])
    # First token: (-1 - 2 - 3 - 3) log 2 / 4 = -9/4 log 2; second: log 1/4.
    close(statistics.mean_logprob[0, :2], [-9 / 4 * log(2), log(1 / 4)])
    # First token: (1/2 + 2/4 + 3/8 + 3/8) log 2 = 7/4 log 2; second: log 4.
    close(statistics.entropy[0, :2], [7 / 4 * log(2), log(4)])


def test_statistics_do_not_overflow_at_large_logits():
    statistics = statistics_of(jnp.array([[[1000.0, 0.0]]]), jnp.array([[1]]))
    close(statistics, [[[-1000.0]], [[-500.0]], [[0.0]]])


def plain_statistics(decoded, head, targets):
    """From all logits at once, for autodiff to go through."""
    logits_BxTxV = decoded @ head
    logp = jax.nn.log_softmax(logits_BxTxV)
    target = jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
    return losses.TokenStatistics(target, logp.mean(-1), -jnp.sum(jnp.exp(logp) * logp, -1))


def random_decoded():
    keys = jax.random.split(jax.random.key(3), 3)
    decoded, head = jax.random.normal(keys[0], (3, 4, 8)), jax.random.normal(keys[1], (8, 40))
    return decoded, head, jax.random.randint(keys[2], (3, 4), 0, 40)


@pytest.mark.parametrize("name", losses.TokenStatistics._fields)
@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_values_and_gradients_in_pieces_are_those_of_all_logits(name, pieces):
    decoded, head, targets = random_decoded()
    weights_BxT = jax.random.normal(jax.random.key(4), targets.shape)

    def weighed(statistics, *rest):
        def total(decoded, head):
            return jnp.sum(weights_BxT * getattr(statistics(decoded, head, targets, *rest), name))

        return jax.value_and_grad(total, argnums=(0, 1))(decoded, head)

    value, gradients = weighed(losses.token_statistics, pieces)
    expected, expected_gradients = weighed(plain_statistics)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for got, plain in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, plain, atol=1e-5)
        assert np.abs(plain).max() > 0.1


def test_only_a_piece_of_the_logits_is_in_memory():
    keys = jax.random.split(jax.random.key(3), 2)
    head = jax.random.normal(keys[0], (8, 4000))
    decoded, targets = jax.random.normal(keys[1], (4, 16, 8)), jnp.zeros((4, 16), jnp.int32)

    def temporary(statistics, *rest):
        def total(decoded, head):
            return sum(x.sum() for x in statistics(decoded, head, targets, *rest))

        compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(decoded, head).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = 4 * 4 * 16 * 4000  # bytes
    assert temporary(plain_statistics) >= whole
    assert temporary(losses.token_statistics, 16) < whole / 2


def test_gradients_have_the_types_of_their_arguments():
    decoded, head, targets = random_decoded()
    total = lambda *args: losses.token_statistics(*args, targets, 2).entropy.sum()  # noqa: E731
    gradients = jax.grad(total, argnums=(0, 1))(decoded.astype(jnp.bfloat16), head)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32]
    expected = jax.grad(lambda *args: plain_statistics(*args, targets).entropy.sum())(decoded, head)
    np.testing.assert_allclose(gradients[0].astype(jnp.float32), expected, atol=0.05)


def test_pieces_divide_the_length_and_hold_the_logits_asked_for():
    assert losses.pieces_for(4, 8, 100, logits_at_once=3200) == 1
    assert losses.pieces_for(4, 8, 100, logits_at_once=3199) == 2
    assert losses.pieces_for(4, 12, 100, logits_at_once=1000) == 6  # 5 does not divide 12
    assert losses.pieces_for(4, 8, 100, logits_at_once=10) == 8  # a position is the least


def test_supervised_with_smoothing():
    statistics = statistics_of(LOGITS, TARGETS)
    # 0.8 * (2 + 2) log 2 + 0.2 * (9/4 + 2) log 2 = (3.2 + 0.85) log 2 over two real tokens.
    close(losses.supervised(statistics, MASK, 0.2).sum, 4.05 * log(2))


def test_supervised_without_smoothing_is_optax_cross_entropy():
    key, target_key = jax.random.split(jax.random.key(0))
    logits_BxTxV = 3 * jax.random.normal(key, (2, 3, 4))
    targets = jax.random.randint(target_key, (2, 3), 0, 4)
    mask = jnp.array([[True, True, True], [True, False, False]])
    expected = optax.softmax_cross_entropy_with_integer_labels(logits_BxTxV, targets)
    term = losses.supervised(statistics_of(logits_BxTxV, targets), mask, 0.0)
    close(term.sum, expected[0].sum() + expected[1, 0])


def test_supervised_with_smoothing_is_cross_entropy_with_smoothed_labels():
    key, target_key = jax.random.split(jax.random.key(1))
    logits_BxTxV = 3 * jax.random.normal(key, (2, 3, 4))
    targets = jax.random.randint(target_key, (2, 3), 0, 4)
    labels = optax.smooth_labels(jax.nn.one_hot(targets, 4), 0.3)
    expected = optax.softmax_cross_entropy(logits_BxTxV, labels).sum()
    term = losses.supervised(statistics_of(logits_BxTxV, targets), targets >= 0, 0.3)
    close(term.sum, expected)


def test_negative_entropy():
    statistics = statistics_of(LOGITS, TARGETS)
    # -(7/4 + 2) log 2 over two real tokens.
    close(losses.negative_entropy(statistics, MASK).sum, -15 / 4 * log(2))


def test_mean_logprob_is_over_real_tokens_and_zero_for_none():
    logprob = jnp.array([[-1.0, -2.0, -6.0], [-4.0, -50.0, -50.0], [-9.0, -9.0, -9.0]])
    mask = jnp.array([[True, True, True], [True, False, False], [False, False, False]])
    close(losses.mean_logprob(logprob, mask), [-3.0, -4.0, 0.0])


def test_pairwise_contrastive():
    # exp(s*) : exp(s-) is 3 : 1, then 1 : 4; the third row is padding.
    positive, negative = jnp.log(jnp.array([3.0, 0.5, 7.0])), jnp.log(jnp.array([1.0, 2.0, 1.0]))
    mask = jnp.array([True, True, False])
    # -log 3/4 - log 1/5
    close(losses.pairwise_contrastive(positive, negative, mask, 0.0).sum, log(4 / 3) + log(5))
    # 0.9 (-log 3/4) + 0.1 (-log 1/4) + 0.9 (-log 1/5) + 0.1 (-log 4/5)
    expected = 0.9 * log(4 / 3) + 0.1 * log(4) + 0.9 * log(5) + 0.1 * log(5 / 4)
    close(losses.pairwise_contrastive(positive, negative, mask, 0.1).sum, expected)


def test_in_batch_contrastive():
    # Output 1 has probabilities 1/2, 1/6 under the prompts; output 2 has 1/10, 3/10.
    logprob = jnp.log(jnp.array([[1 / 2, 1 / 6], [1 / 10, 3 / 10]]))
    # (1/2) / (1/2 + 1/6) = 3/4 and (3/10) / (1/10 + 3/10) = 3/4.
    term = losses.in_batch_contrastive(logprob, jnp.array([True, True]))
    close(term.sum, 2 * log(4 / 3))
    # The candidates are the prompts of one output (a row), not the outputs of one prompt.
    logprob = jnp.log(jnp.array([[1 / 2, 1 / 2], [1 / 10, 3 / 10]]))
    term = losses.in_batch_contrastive(logprob, jnp.array([True, True]))
    close(term.sum, log(2) + log(4 / 3))


def test_in_batch_padding_is_neither_an_output_nor_a_candidate():
    real = jnp.log(jnp.array([[1 / 2, 1 / 6], [1 / 10, 3 / 10]]))
    padded = jnp.zeros((4, 4)).at[jnp.ix_(jnp.array([0, 2]), jnp.array([0, 2]))].set(real)
    term = losses.in_batch_contrastive(padded, jnp.array([True, False, True, False]))
    close(term.sum, 2 * log(4 / 3))
    close(losses.in_batch_contrastive(padded, jnp.zeros(4, bool)).sum, 0)


def test_in_batch_has_no_gradient_where_all_is_padding():
    grads = jax.grad(lambda x: losses.in_batch_contrastive(x, jnp.zeros(2, bool)).sum)(jnp.eye(2))
    assert (np.asarray(grads) == 0).all()


def test_in_batch_is_exact_at_sums_of_many_tokens():
    logprob = jnp.array([[-900.0, -1000.0], [-800.0, -800.0]])
    close(losses.in_batch_contrastive(logprob, jnp.array([True, True])).sum, log(2))


def test_kl_divergence():
    policy = logits([[1 / 2, 1 / 2], [1 / 4, 3 / 4], [0.9, 0.1]])
    reference = logits([[1 / 4, 3 / 4], [1 / 2, 1 / 2], [0.1, 0.9]]) - 8
    # 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3, and 1/4 log 1/2 + 3/4 log 3/2 = log(27/16) / 4.
    expected = log(4 / 3) / 2 + log(27 / 16) / 4
    close(kl_of(policy, reference, MASK).sum, expected)
    assert expected > 0
    close(kl_of(policy, policy - 2, MASK).sum, 0)


@jax.jit
def all_terms(logits_BxTxV, reference, targets, mask):
    """Each term of a batch, its second half standing in for what p- gives."""
    statistics = statistics_of(logits_BxTxV, targets)
    negative = statistics_of(reference, targets)
    row_mask = mask.any(axis=1)
    return {
        "supervised": losses.supervised(statistics, mask, 0.2),
        "negative_entropy": losses.negative_entropy(statistics, mask),
        "kl": kl_of(logits_BxTxV, reference, mask),
        "pairwise": losses.pairwise_contrastive(
            losses.mean_logprob(statistics.logprob, mask),
            losses.mean_logprob(negative.logprob, mask),
            row_mask,
            0.2,
        ),
    }


@pytest.fixture(scope="module")
def batch():
    """Four rows of different lengths, one of them padding."""
    keys = jax.random.split(jax.random.key(2), 3)
    logits_BxTxV, reference = (2 * jax.random.normal(key, (4, 3, 4)) for key in keys[:2])
    targets = jax.random.randint(keys[2], (4, 3), 0, 4)
    mask = jnp.arange(3) < jnp.array([3, 0, 1, 2])[:, None]
    return logits_BxTxV, reference, targets, mask


def test_terms_of_parts_add_up_to_the_whole(batch):
    whole = all_terms(*batch)
    parts = [all_terms(*(x[rows] for x in batch)) for rows in (slice(0, 1), slice(1, 4))]
    for name, term in whole.items():
        first, second = (part[name] for part in parts)
        close(term.sum, first.sum + second.sum)


def test_padding_changes_no_term_and_gradients_stay_finite(batch):
    logits_BxTxV, reference, targets, mask = batch
    whole = all_terms(*batch)
    real = jnp.array([0, 2, 3])
    for name, term in all_terms(*(x[real] for x in batch)).items():
        close(term.sum, whole[name].sum)

    def total(logits_BxTxV):
        terms = all_terms(logits_BxTxV, reference, targets, mask)
        row_mask = mask.any(axis=1)
        pairs = jnp.einsum("itv,kv->ik", logits_BxTxV, logits_BxTxV[:, 0])
        terms["in_batch"] = losses.in_batch_contrastive(pairs, row_mask)
        return sum(term.sum for term in terms.values())

    grads = np.asarray(jax.grad(total)(logits_BxTxV))
    assert np.isfinite(grads).all()
    assert (grads[1] == 0).all() and (grads[[0, 2, 3]] != 0).any(axis=(1, 2)).all()
