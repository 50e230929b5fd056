"""T5 (Raffel et al., 2020), v1.0 and v1.1/FLAN, as pure functions of its parameters.

Parameters are a plain nested dict of float32 arrays; caches and dropout keys are arguments.

Letters in names: B sources in the batch, N rows, L lanes (a multiple of B), S source tokens,
T target tokens, D model width, H heads, K width of a head, F feed-forward width, V vocabulary.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from hir_jax.model.cache import Cache, Lanes
from hir_jax.model.config import Params, T5Config
from hir_jax.model.stacks import T5

ALWAYS_FLOAT32 = ("scale", "relative_bias", "value_weight", "value_bias")


def init_params(config: T5Config, key: jax.Array) -> Params:
    """Random float32 parameters, scaled as in Mesh TensorFlow's T5 (Raffel et al., 2020)."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return T5(config).init(key, tokens, tokens == 0, tokens)["params"]


@functools.lru_cache(maxsize=8)  # each time it is traced
def abstract_params(config: T5Config) -> Params:
    """Shape and type of each of `init_params`; callers share the tree and leave it as it is."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


def encode(
    params: Params,
    config: T5Config,
    source_BxS: jax.Array,
    source_mask_BxS: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Encoder output BxSxD; `source_mask` is True at real tokens. No key, no dropout."""
    return _apply(params, config, dropout_key, "encode", source_BxS, source_mask_BxS)


def decode(
    params: Params,
    config: T5Config,
    encoded_BxSxD: jax.Array,
    source_mask_BxS: jax.Array,
    inputs_NxT: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Decoder output NxTxD of a whole target at once; `inputs` from `shift_right`.

    Its product with `head` is the logits. N may be a multiple of B: rows n * N/B ... (n + 1) * N/B
    - 1 then share source n.
    """
    args = (encoded_BxSxD, source_mask_BxS, inputs_NxT)
    return _apply(params, config, dropout_key, "decode", *args)


def forward(
    params: Params,
    config: T5Config,
    source_BxS: jax.Array,
    source_mask_BxS: jax.Array,
    inputs_NxT: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Float32 logits NxTxV: `encode`, then `decode`, then the head."""
    args = (source_BxS, source_mask_BxS, inputs_NxT)
    return _apply(params, config, dropout_key, "__call__", *args)


def head(params: Params, config: T5Config) -> jax.Array:
    """The output embedding DxV."""
    return params["shared"].T if config.tie_lm_head else params["lm_head"]


def shift_right(config: T5Config, targets_NxT: jax.Array) -> jax.Array:
    """Decoder inputs NxT for teacher forcing: the start token, then the targets but the last."""
    return jnp.pad(
        targets_NxT[:, :-1], ((0, 0), (1, 0)), constant_values=config.decoder_start_token_id
    )


def put_sources(
    params: Params,
    config: T5Config,
    cache: Cache,
    encoded_GxSxD: jax.Array,
    source_mask_GxS: jax.Array,
    place_G: jax.Array,
) -> Cache:
    """The cache with cross-attention keys and values of G sources, computed here and never again.

    `place_G` says which of the cache's sources they replace; one out of range is left out.
    """
    cross = _apply(params, config, None, "project_cross", encoded_GxSxD)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[place_G].set(new.astype(old.dtype), mode="drop")

    keys, values = zip(*cross, strict=True)
    return cache.replace(
        cross_keys=tuple(map(put, cache.cross_keys, map(cache.turn, keys))),
        cross_values=tuple(map(put, cache.cross_values, values)),
        source_mask_BxS=put(cache.source_mask_BxS, source_mask_GxS),
    )


def decode_step(
    params: Params,
    config: T5Config,
    cache: Cache,
    token_N: jax.Array,
    clock: jax.Array,
    age_N: jax.Array,
    lanes: Lanes | None = None,
) -> tuple[jax.Array, Cache]:
    """One step for all rows: float32 logits NxV of the next token, and the cache with this one.

    Args:
        params: parameters.
        config: the model's shape.
        cache: from `init_cache` and `put_sources`, or the step before.
        token_N: the tokens read now (the start token in a row's first step).
        clock: scalar, steps since the cache was made.
        age_N: tokens each row has read before this one, less than the cache's length.
        lanes: the source of each row; None: row n reads source n // (N/B).
    """
    return _apply(params, config, None, "decode_step", cache, token_N, clock, age_N, lanes)


def _apply(
    params: Params, config: T5Config, dropout_key: jax.Array | None, method: str, *args: Any
) -> Any:
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    return T5(config).apply({"params": params}, *args, rngs=rngs, method=method)


def cast_weights(params: Params, dtype: str) -> Params:
    """The matrices in the precision that they are computed in; what is float32 always, stays.

    Gives the same results as the float32 parameters do, at `T5Config.dtype`.
    """

    def cast(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.float32 if path[-1].key in ALWAYS_FLOAT32 else dtype)

    return jax.tree_util.tree_map_with_path(cast, params)
