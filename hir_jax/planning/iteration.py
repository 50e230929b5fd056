"""How long an iteration takes, and what it costs, by what compiled programs do.

Of sampling: outputs of full length, in as many turns of the engine's loops as they ask for.
Of training: a buffer that is full and holds no output twice. Verdicts, further passes over samples,
evaluation, checkpoints and the host are not in it.
"""

import dataclasses
import math
from typing import Self

import ml_collections

from hir_jax.devices.hardware import Kind
from hir_jax.planning import aot, hlo
from hir_jax.run import pairs, settings

# How often the bytes of a collective go through a device's links: a sum is scattered and gathered.
PASSES = {"all-reduce": 2}


@dataclasses.dataclass(frozen=True)
class Work:
    """Of an iteration.

    Attributes:
        questions: that are asked.
        samples: outputs to each of them; 0 where the method draws none.
        steps: of training.
    """

    questions: int
    samples: int
    steps: int

    @classmethod
    def of(cls, config: ml_collections.ConfigDict, questions: int) -> Self:
        """By `config.sample`, `config.replay` and `config.train`, as the method reads them."""
        method = settings.method_of(config)
        samples = config.sample.samples if method.draws_samples else 0
        keep = method.replay["keep_iterations"] or config.iterations
        rows = questions * samples * min(keep, config.iterations) if samples else questions
        return cls(questions, samples, pairs.steps(config, method, rows))


def training_seconds(work: Work, step: aot.Compiled, kind: Kind) -> float:
    """All steps."""
    return work.steps * seconds(step.program.cost, kind, step_bytes(step))


def sampling_seconds(work: Work, shards: int, pool: aot.Compiled, kind: Kind) -> float:
    """All turns of the shard with the most questions, and what each pool takes besides."""
    if not work.samples:
        return 0.0
    shape = pool.shape
    questions = math.ceil(work.questions / shards)
    turns = {
        aot.DECODING: math.ceil(questions * shape.samples / shape.rows) * shape.max_new_tokens,
        aot.ENCODING: math.ceil(questions / shape.encoded) * shape.prompts,
        aot.FILLING: math.ceil(questions / -(-shape.batch // shape.samples)),
    }
    total = math.ceil(questions / shape.pool) * seconds(pool.program.cost, kind)
    for scope, count in turns.items():
        if loop := pool.program.loop(scope):
            read = decode_bytes(pool) if scope == aot.DECODING else 0.0
            total += count * seconds(loop.turn, kind, read)
    return total


def seconds(cost: hlo.Cost, kind: Kind, read: float = 0.0) -> float:
    """The compiler's estimate, or the roofline where it has none; and collectives.

    A roofline is the greater of products at the device's peak and `read` bytes through its memory.
    Collectives are what they move through all of a device's links at their peak, one after another
    and beside nothing else.
    """
    own = cost.cycles / kind.clock if kind.clock else roofline(cost, kind, read)
    moved = sum(PASSES.get(c.kind, 1) * c.bytes for c in cost.collectives)
    return own + (moved / kind.links if kind.links else 0.0)


def roofline(cost: hlo.Cost, kind: Kind, read: float) -> float:
    """Seconds that no program of this kind can do without, whatever the compiler does."""
    return max(cost.flops / kind.flops, read / kind.bandwidth)


def step_bytes(step: aot.Compiled) -> float:
    """What a training step reads and writes at least: weights and state; frozen ones are read."""
    trained = ("parameters", "adapters", "optimizer state")
    kept = sum(step.memory.get(name, 0.0) for name in trained)
    return 2 * kept + step.memory.get("frozen model", 0.0)


def decode_bytes(pool: aot.Compiled) -> float:
    """What a decode step reads at least: the decoder's weights, the head and the caches."""
    return pool.read + pool.memory["caches"]
