"""What is kept of a block's activations for its gradient, where the rest is computed again.

`PRODUCTS` keeps what a block is given and what products and attention give, so that only what is
cheap between them is computed again: norms, activations, dropout and the scores of attention.
`INPUTS` keeps what a block is given alone, for a third more products: less memory where a device
has many tokens at a time.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

PRODUCTS = "products"
INPUTS = "inputs"

_BLOCK, _PRODUCT = "block", "product"
_NAMES = {INPUTS: (_BLOCK,), PRODUCTS: (_BLOCK, _PRODUCT)}


def block(x: jax.Array) -> jax.Array:
    """x, said to be what a block gives, and the next is given."""
    return checkpoint_name(x, _BLOCK)


def product(x: jax.Array) -> jax.Array:
    """x, said to come out of a product, or of attention."""
    return checkpoint_name(x, _PRODUCT)


def policy(keeps: str) -> Callable[..., Any]:
    """Of `jax.checkpoint`, for `INPUTS` or `PRODUCTS`."""
    return jax.checkpoint_policies.save_only_these_names(*_NAMES[keeps])
