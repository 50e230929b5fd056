"""What no program can beat: products at the rate of large ones, weights and keys read once.

Rates and peaks are those of all devices together, and so is the work that is divided by them.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hir_jax.devices import hardware

# Rows of 1,024 numbers that are read, and the width of matrices that are multiplied.
LARGE = (2**20, 8192)
SIZES = {"cpu": (2**16, 2048)}


@dataclasses.dataclass(frozen=True)
class Weights:
    """How many numbers a model's products read.

    Attributes:
        encoder: a source token's.
        cross: of the keys and values that the decoder needs of a source token.
        decoder: a new token's, the head's among them.
        kept_a_token: keys and values of one token in all layers of the decoder.
    """

    encoder: int
    cross: int
    decoder: int
    kept_a_token: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Weights":
        """Of a gated T5, by its config.json."""
        width, heads = config["d_model"], config["num_heads"] * config["d_kv"]
        feed_forward, layers = 3 * width * config["d_ff"], config["num_decoder_layers"]
        return cls(
            encoder=config["num_layers"] * (4 * width * heads + feed_forward),
            cross=layers * 2 * width * heads,
            decoder=layers * (6 * width * heads + feed_forward) + width * config["vocab_size"],
            kept_a_token=layers * 2 * heads,
        )

    def forward_flops(self, source_tokens: float, target_tokens: float) -> float:
        """Of the products with weights, so many tokens read and decoded.

        Products with the keys and values of attention are left out; so is all padding.
        """
        encoded = source_tokens * (self.encoder + self.cross)
        return 2 * (encoded + target_tokens * self.decoder)

    def step_flops(self, source_tokens: float, target_tokens: float) -> float:
        """Of a training step: a forward pass, and twice that for the gradient."""
        return 3 * self.forward_flops(source_tokens, target_tokens)


class Rates(NamedTuple):
    """What the devices can do together; a device's share is a `devices`-th.

    Attributes:
        product: operations a second.
        read: bytes a second.
        devices: how many they are.
    """

    product: float
    read: float
    devices: int = 1


class Sampled(NamedTuple):
    """What sampling was asked for.

    Attributes:
        prompts: how many.
        source_tokens: of each, on average.
        samples: of each.
        new_tokens: of all samples.
    """

    prompts: int
    source_tokens: float
    samples: int
    new_tokens: float


def sampling_seconds(
    weights: Weights, asked: Sampled, rows: int, rates: Rates, itemsize: int
) -> float:
    """Seconds at least, where a step of so many rows reads each weight and key once.

    Prompts are encoded at the rate of a large product. A decode step takes the longer of two: its
    products at that rate, or the weights of decoder and head (on each device, since each has rows
    of its own), the keys and values of its questions and those of half of an output through the
    memory.

    Args:
        weights: the model's.
        asked: prompts and outputs.
        rows: decoded at once, on all devices together.
        rates: the devices'.
        itemsize: bytes of a number.
    """
    source_tokens = asked.prompts * asked.source_tokens
    encoding = 2 * source_tokens * (weights.encoder + weights.cross) / rates.product
    output = asked.new_tokens / (asked.prompts * asked.samples) / 2
    kept = rows * weights.kept_a_token * (asked.source_tokens / asked.samples + output)
    products = 2 * rows * weights.decoder / rates.product
    read = itemsize * (rates.devices * weights.decoder + kept) / rates.read
    return encoding + asked.new_tokens / rows * max(products, read)


def measured(dtype: str = "float32") -> Rates:
    """The rates of all devices at work together, here and now, once warm."""
    return Rates(product_rate(dtype), read_rate(), jax.device_count())


def peak_flops(dtype: str) -> float:
    """Operations a second of all devices by their data sheet, in bfloat16; 0 where not known."""
    devices = jax.devices()
    return len(devices) * hardware.kind_of(devices[0]).flops if dtype == "bfloat16" else 0.0


def read_rate() -> float:
    """Bytes a second at which devices sum up a large array each."""
    rows, _ = SIZES.get(jax.default_backend(), LARGE)
    x = _on_each_device(lambda key: jnp.ones((rows, 1024)))
    return x.nbytes / _seconds(_sums, x)


def product_rate(dtype: str = "float32") -> float:
    """Floating-point operations a second of devices that do a large product each."""
    _, size = SIZES.get(jax.default_backend(), LARGE)
    x = _on_each_device(lambda key: jax.random.normal(key, (size, size), dtype))
    return len(x) * 2 * size**3 / _seconds(_products, x, x)


_sums = jax.jit(lambda x: jnp.sum(x, axis=(1, 2)))
# Adding up in float32, without which a CPU does not use what it has for bfloat16.
_products = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))


def _on_each_device(make: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """An array of a large one for each device, made there."""
    place = NamedSharding(Mesh(np.array(jax.devices()), ("device",)), P("device"))
    keys = jax.device_put(jax.random.split(jax.random.key(0), jax.device_count()), place)
    return jax.jit(jax.vmap(make), out_shardings=place)(keys)


def _seconds(work: Callable[..., jax.Array], *args: jax.Array, times: int = 10) -> float:
    """Of one call; threads and clocks that were idle take about a second to be at their best."""
    for _ in range(times):
        work(*args).block_until_ready()
    started = time.perf_counter()
    for _ in range(times):
        work(*args).block_until_ready()
    return (time.perf_counter() - started) / times
