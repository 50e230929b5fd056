"""Scores of long targets: what they take of memory."""

import jax
import jax.numpy as jnp

from hir_jax.model import t5
from hir_jax.training import scoring
from tests import tiny


def test_memory_grows_with_the_target_and_not_with_its_square():
    config = tiny.shape()
    params = t5.abstract_params(config)

    def bytes_for(length: int) -> int:
        def tokens(n: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((1, n), jnp.int32)

        mask = jax.ShapeDtypeStruct((1, 8), bool)
        given = (params, tokens(8), mask, tokens(length))
        options = {"config": config, "logits_at_once": scoring.LOGITS}
        compiled = scoring.score_batch.lower(*given, **options).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_for(8192) < 4.5 * bytes_for(2048)
