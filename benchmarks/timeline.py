"""What the devices wait for: the host's share of each iteration of a run.

    python -m benchmarks.timeline [--config=configs/tiny.py] [--config.FIELD=VALUE ...]
        [--verdict_ms=0.5]

Runs the job in a folder that is thrown away, and times what the host does by itself: texts of
outputs, verdicts, pairs, checkpoints, log and samples. A line an iteration: its seconds, those of
its sampling phase, how many percent each of these takes while devices wait, and how many texts and
verdicts take beside a pool of outputs that devices are given to work on. Programs are compiled in
the first. (The report is written beside the run.)
"""

import collections
import contextlib
import functools
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
from absl import app, flags
from ml_collections import config_flags

from benchmarks import machine
from hir_jax import library
from hir_jax.data.example import Example
from hir_jax.decoding.prompt import Output, Prompt, Receive
from hir_jax.decoding.sampler import Sampler
from hir_jax.hindsight import verify
from hir_jax.hindsight.verify import Verdict, Verifier
from hir_jax.model.codec import Codec
from hir_jax.model.config import Params
from hir_jax.run import checkpoint, evaluate, judging, loop, metrics, workdirs

CONFIG = config_flags.DEFINE_config_file("config", "configs/tiny.py", "The job.")
VERDICT_MS = flags.DEFINE_float(
    "verdict_ms", 0.0, "Makes the verifier wait so long for each output, as a slow one would."
)

# Where each is done. What one calls of another counts for the other alone.
HOST = {
    "texts": [(Codec, "decode"), (Codec, "read"), (Codec, "is_readable")],
    "verdicts": [(judging, "judge"), (evaluate, "best_constant")],
    "pairs": [(loop.Job, "_epochs"), (loop.Job, "_view")],
    "checkpoints": [(checkpoint.Checkpoints, "save"), (checkpoint.Checkpoints, "wait")],
    "log": [
        (metrics.MetricsWriter, "write"),
        (metrics.MetricsWriter, "samples"),
        (metrics.MetricsWriter, "timing"),
    ],
    "samples": [(workdirs, "write_samples")],
}
MEANWHILE = "meanwhile"  # what is done beside a pool


class Clock:
    """Seconds by name; what is inside of what else counts once, for the innermost.

    Attributes:
        seconds: by name, or of `MEANWHILE`.
        meanwhile: whether devices have a pool to work on.
    """

    def __init__(self) -> None:
        self.seconds: collections.Counter[str] = collections.Counter()
        self.meanwhile = False
        self._open: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """What is done within it takes time of this name."""
        self._turn()
        self._open.append(MEANWHILE if self.meanwhile else name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def watched(clock: Clock, stack: contextlib.ExitStack) -> None:
    """Has the clock run wherever `HOST` says, until the stack is left."""
    for name, places in HOST.items():
        for owner, attribute in places:
            does = getattr(owner, attribute)

            @functools.wraps(does)
            def timed(*args: Any, _does: Any = does, _name: str = name, **named: Any) -> Any:
                with clock.of(_name):
                    return _does(*args, **named)

            stack.enter_context(mock.patch.object(owner, attribute, timed))
    run = Sampler.run

    def told(
        sampler: Sampler,
        params: Params,
        prompts: Sequence[Prompt],
        key: jax.Array,
        temperature: float,
        samples: int,
        receive: Receive,
        *others: Any,
    ) -> Any:
        left = len(prompts) * samples

        def received(outputs: Mapping[tuple[int, int], Output]) -> None:
            nonlocal left
            left -= len(outputs)
            clock.meanwhile = left > 0  # where there are more, they are being decoded
            receive(outputs)
            clock.meanwhile = False

        return run(sampler, params, prompts, key, temperature, samples, received, *others)

    stack.enter_context(mock.patch.object(Sampler, "run", told))


def slow(resolve: Callable[..., Verifier], *args: Any) -> Verifier:
    """What `resolve` gives, after `VERDICT_MS`."""
    verifier = resolve(*args)

    def judge(text: str, example: Example) -> Verdict:
        time.sleep(VERDICT_MS.value / 1000)
        return verifier(text, example)

    return judge


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    config, clock, rows = CONFIG.value, Clock(), []
    with contextlib.ExitStack() as stack:
        watched(clock, stack)
        if VERDICT_MS.value:
            resolve = functools.partial(slow, verify.resolve)
            stack.enter_context(mock.patch.object(verify, "resolve", resolve))
        began = time.perf_counter()
        close = loop.Job.close_iteration

        def closed(job: loop.Job) -> None:
            nonlocal began
            close(job)
            ended = time.perf_counter()
            rows.append({"iteration": len(rows) + 1, "s": ended - began, **clock.seconds})
            clock.seconds.clear()
            began = ended

        stack.enter_context(mock.patch.object(loop.Job, "close_iteration", closed))
        workdir = stack.enter_context(tempfile.TemporaryDirectory())
        library.train(config, workdir)
        timings = (pathlib.Path(workdir) / "timings.jsonl").read_text().splitlines()
    phases = [phase for phase in map(json.loads, timings) if phase["phase"] == "sample"]
    print(machine.name())
    lines = []
    for row, phase in zip(rows, phases, strict=True):
        *waited, meanwhile = (100 * row.get(name, 0.0) / row["s"] for name in [*HOST, MEANWHILE])
        shares = (f"{share:.1f}" for share in [*waited, sum(waited), meanwhile])
        lines.append([row["iteration"], f"{row['s']:.1f}", f"{phase['seconds']:.1f}", *shares])
    names = [*HOST, "all of these", "beside a pool"]
    headers = ["iteration", "s", "sampling, s", *(f"{name}, %" for name in names)]
    print(metrics.format_table(headers, lines))


if __name__ == "__main__":
    app.run(main)
