"""The loop: sample, verify, train by a method, evaluate, checkpoint, repeat.

Every random draw is keyed by (seed, iteration, ...), so a run that was killed and resumed from its
workdir ends bit-identical to one that never stopped.
"""

import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax
import ml_collections
from absl import logging

from hir_jax.devices import keys, processes, sharding
from hir_jax.devices.interrupts import Interrupted, Interrupts
from hir_jax.errors import UserError
from hir_jax.hindsight import replay
from hir_jax.hindsight.relabel import Pair
from hir_jax.hindsight.sample import Sample
from hir_jax.methods.method import View
from hir_jax.model.config import Params
from hir_jax.run import (
    adapters,
    annotate,
    attempts,
    checkpoint,
    checks,
    choosing,
    drawing,
    evaluate,
    finite,
    fitting,
    lock,
    metrics,
    models,
    outcome,
    pairs,
    settings,
    start,
    terminal,
    workdirs,
)
from hir_jax.run.alarms import Alarms
from hir_jax.run.asking import Asking
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.outcome import Outcome
from hir_jax.run.progress import After, ignore
from hir_jax.run.questions import load_questions
from hir_jax.training.batch import Batch

# Folded into the run's key first, so that draws for different purposes never meet.
SAMPLING, DROPOUT, ORDER = 0, 1, 2


def run(config: ml_collections.ConfigDict, workdir: str, after: After = ignore) -> Outcome:
    """Runs or resumes a config's method in `workdir`; the test evaluations before and after.

    `workdir` is an absolute path, as `workdirs.absolute` makes it.
    `after` is called with the number of each iteration whose records are written.

    Raises:
        UserError: the config, the data or the workdir is at fault.
        Interrupted: a signal asked to stop; the same call resumes the run.
    """
    settings.check(config)
    with (
        lock.held(workdir) as check_held,
        attempts.counted(workdir) as saved,
        Interrupts() as interrupts,
        Job(config, workdir, interrupts, check_held, saved) as job,
    ):
        if not job.progress.iteration:
            job.begin()
        while job.progress.iteration <= config.iterations:
            if not job.progress.sampled:
                job.online()
            job.offline()
            job.close_iteration()
            after(job.progress.iteration - 1)
        ended = job.finish()
        interrupts.check()  # that came after the last look: a grid is not to go on
        return ended


class Job:
    """One run: what is fixed for all of it, the train state, and the progress."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str,
        interrupts: Interrupts,
        allow_save: Callable[[], None],
        saved: dict[str, Any],
    ) -> None:
        """Takes up the newest whole checkpoint, whose progress is `saved`.

        Nothing is compiled, but the step where the parts of a batch are chosen by it.
        """
        config = models.pinned(config, workdir)
        machine = start.machine(config)
        workdirs.claim(workdir, config, machine, saved.get("machine"))
        self.config = config
        self.workdir = pathlib.Path(workdir)
        self.interrupts = interrupts
        self.key = keys.make(config.seed)
        model = models.abstract_model(config)
        self.codec, self.mesh, self.shape = model.codec, model.mesh, model.config
        fitting.check_size(config, model)
        self.questions = questions = load_questions(config, self.codec)
        checks.check_splits(questions.splits)
        folder = workdirs.checkpoint_folder(workdir)
        self.checkpoints = checkpoint.Checkpoints(folder, config.checkpoint.keep, allow_save)
        parts = saved.get("parts", {})
        self.training = fitting.make_training(config, model, questions.buckets, parts)
        self.state, self.progress, self.reference = start.take_up(
            config, workdir, model, questions, self.training, self.checkpoints
        )
        self.progress.parts, self.progress.machine = parts, machine
        self.sampler = models.make_sampler(
            config, model, questions.buckets.source, self.progress.memory, questions.evaluated
        )
        self.writer = metrics.writer(workdir, self.progress.metrics_bytes, config)
        self.alarms = Alarms(self.progress.alarms, functools.partial(self._write, "alarm"))
        self.policy: Params | None = None  # see `_policy`

    # Phases ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Measures the starting model."""
        self.progress.before = self._evaluate("test", self._policy()).to_json()
        self._measure()
        self.progress.iteration = 1
        self._save()

    def online(self) -> None:
        """Samples outputs for every training question, verifies them, fills the buffer."""
        progress, method = self.progress, self.training.method
        if method.draws_samples:
            samples = self._annotate(self._draw_samples())
            progress.method = method.after_sampling(samples, progress.method)
            progress.buffer = replay.add(progress.buffer, samples, **method.replay)
            progress.drawn += len(samples)
            if processes.is_first():
                workdirs.write_samples(
                    self.workdir,
                    progress.iteration,
                    samples,
                    self.questions.by_id,
                    self.questions.instructions,
                    pairs.advantages(method, self._view()),
                )
            self.writer.samples(progress.steps, samples, self.questions.by_id)
            figures = method.figures(self._view()) | annotate.summary(samples)
            figures |= replay.summary(samples) | {"buffer": len(progress.buffer)}
            self._write("sample", figures)
            self.alarms.samples(figures)
        progress.sampled, progress.batches = True, 0
        self._save()

    def offline(self) -> None:
        """Trains on the buffer, relabeled in hindsight, from batch `progress.batches` on.

        Raises:
            UserError: a loss, a gradient or the state is not finite.
        """
        config, progress = self.config, self.progress
        self.policy = None
        epochs = self._epochs()
        total = sum(-(-len(epoch) // config.train.batch_size) for epoch in epochs)
        self.alarms.pairs(total)
        if epochs and not progress.batches:
            trained_on = replay.pairs_summary(epochs[0])
            self._write("pairs", trained_on)
            logging.info(
                "iteration %d: %d pairs to train on, %.1f%% of their weight under the "
                "correct-answer instruction",
                progress.iteration,
                trained_on["pairs"],
                100 * trained_on["correct"],
            )
        started, first = time.monotonic(), progress.batches
        on_policy = progress.steps - first + 1  # the first step since the samples were drawn

        def write(step: int, values: dict[str, float]) -> None:
            self._write("train", values, step)
            as_drawn = step == on_policy and config.ratio.behaviour == "whole"
            self.alarms.step(values, first=as_drawn)

        steps = finite.StepMetrics(config.train.log_every, write, self._stop, on_policy)
        with terminal.progress(total, f"iteration {progress.iteration}: training", "step") as bar:
            bar.update(first)
            for batch in itertools.islice(self._batches(epochs), first, None):
                values = self._step(batch)
                bar.update(1)
                steps.add(progress.steps, values)
                stop = self.interrupts.due(values["loss"])
                if stop or progress.batches % config.checkpoint.every_steps == 0:
                    steps.settle(self.state)
                    self._save()
                if stop:
                    self.interrupts.check()
            steps.settle(self.state)
        self._time("train", started, {"steps": progress.batches - first})

    def close_iteration(self) -> None:
        """Evaluates on the development questions, keeps the best parameters, checkpoints."""
        progress = self.progress
        last = progress.iteration == self.config.iterations
        if last or progress.iteration % self.config.evaluate.every == 0:
            self._measure()
        progress.iteration += 1
        progress.sampled = False
        self._save()

    def finish(self) -> Outcome:
        """Scores the best checkpoint on the test questions, once for a given length of run."""
        self.checkpoints.wait()
        file = self.workdir / "eval.json"
        known = processes.on_first(lambda: outcome.read(file))
        if known.get("iterations") == self.config.iterations:
            logging.info("this run is finished; --workdir begins another")
        else:
            self.checkpoints.check_best()
            wanted = sharding.abstract(self.state.params, self.mesh)
            self.state = self.policy = None  # in whose memory the best parameters have room
            params, fields = self.checkpoints.restore_best(wanted)
            params = self._decoding(params)
            best, after = fields["best"], self._evaluate("test", params)
            asking = self._asking("test", params)
            after = choosing.with_choices(after, asking, self.interrupts.check)
            known = Outcome(
                before=Evaluation.from_json(self.progress.before),
                iterations=self.config.iterations,
                samples=self.progress.drawn,
                best_step=best["step"],
                best_iteration=best["iteration"],
                chosen_on=self._judging_split,
                after=after,
                alarms=self.progress.alarms,
            ).to_json()
            if processes.is_first():
                workdirs.write_json(file, known)
        return Outcome.from_json(known)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, place: object) -> None:
        """Waits for checkpoints that are being written; closes the files.

        A checkpoint is whole once all processes have written: not where a fault stops one of them.
        """
        if error is None or isinstance(error, Interrupted) or not processes.many():
            self.checkpoints.close()
        self.writer.close()

    # Parts of phases ------------------------------------------------------------------------------

    def _policy(self) -> Params:
        """As it decodes, made once for an evaluation and the sampling after it; no longer kept."""
        self.policy = self.policy or self._decoding(self.state.params)
        return self.policy

    def _decoding(self, trained: Params) -> Params:
        return adapters.decoding(self.config, self.sampler, self.reference, trained)

    def _draw_samples(self) -> list[Sample]:
        count, iteration = self.config.sample.samples, self.progress.iteration
        key = jax.random.fold_in(jax.random.fold_in(self.key, SAMPLING), iteration)
        started = time.monotonic()
        total = len(self.questions.splits.train) * count
        with terminal.progress(total, f"iteration {iteration}: sampling", "sample") as bar:
            samples = drawing.draw(
                self._asking("train", self._policy()),
                key,
                samples=count,
                iteration=iteration,
                progress=lambda n: (bar.update(n), self.interrupts.check()),
            )
        self.policy = None
        tokens = sum(len(sample.tokens) for sample in samples)
        self._time("sample", started, {"samples": len(samples), "tokens": tokens})
        return samples

    def _annotate(self, samples: list[Sample]) -> list[Sample]:
        """The samples with what other passes over them say, as far as anything needs it."""
        passes = annotate.passes(self.config, self.training.method)
        if not passes:
            return samples
        started = time.monotonic()
        samples = annotate.annotate(
            samples,
            passes,
            self.questions,
            self.shape,
            self.mesh,
            adapters.attach(self.config, self.reference, self.state.params),
            self.reference,
            self.config.train.batch_size,
        )
        self._time("annotate", started, {"samples": len(samples)})
        return samples

    def _view(self, epoch: int = 0) -> View:
        done = self.progress
        given = (self.config, self.questions, done.buffer)
        return pairs.view(*given, done.iteration, epoch, done.method)

    def _epochs(self) -> list[list[Pair]]:
        method = self.training.method
        epochs = range(pairs.epochs(self.config, method))
        return [pairs.made(method, self._view(epoch)) for epoch in epochs]

    def _batches(self, epochs: list[list[Pair]]) -> Iterator[Batch]:
        key = (self.config.seed, ORDER, self.progress.iteration)
        return pairs.batches(self.config, self.questions, epochs, self.training.layout, key)

    def _step(self, batch: Batch) -> dict[str, jax.Array]:
        batch = processes.place(batch, sharding.batch_sharding(self.mesh))
        key = jax.random.fold_in(jax.random.fold_in(self.key, DROPOUT), self.progress.steps)
        self.state, values = self.training.step(self.state, batch, key, self.reference)
        self.progress.steps += 1
        self.progress.batches += 1
        return values

    def _measure(self) -> None:
        """Evaluates on the development questions (without any, on the test ones: the paper's way).

        Without development questions the newest parameters count as the best.
        """
        split, progress = self._judging_split, self.progress
        evaluation = self._evaluate(split, self._policy())
        self._write("evaluate", evaluation.scalars() | evaluation.bounds() | {"split": split})
        progress.accuracies.append(evaluation.asked_correct.accuracy)
        self.alarms.evaluations(progress.accuracies)
        best = progress.best
        if best is None or split == "test" or evaluation.quality > best["quality"]:
            place = {"iteration": progress.iteration, "step": progress.steps}
            progress.best = {"quality": evaluation.quality} | place

    @property
    def _judging_split(self) -> str:
        return "dev" if self.questions.splits.dev else "test"

    def _evaluate(self, split: str, params: Params) -> Evaluation:
        final = self.progress.iteration > self.config.iterations
        when = "at the end" if final else f"iteration {self.progress.iteration}"
        title = f"{when}: evaluating on {split}"
        return evaluate.evaluate(self._asking(split, params), title, self.interrupts.check)

    def _asking(self, split: str, params: Params) -> Asking:
        examples = getattr(self.questions.splits, split)
        return Asking(self.config, self.sampler, params, self.questions, examples)

    # Records --------------------------------------------------------------------------------------

    def _save(self) -> None:
        progress = self.progress
        progress.saves += 1
        progress.metrics_bytes = self.writer.position
        fields, best = progress.to_json(), progress.best["step"]
        self.checkpoints.save(progress.steps, self.state, fields, best)

    def _stop(self, fault: finite.Fault) -> None:
        """Ends a run that is no longer finite, on all processes alike; nothing more is saved."""
        progress = self.progress
        number = progress.batches - 1 - (progress.steps - fault.step)
        batch = next(itertools.islice(self._batches(self._epochs()), number, None))
        if processes.is_first():
            workdirs.write_batch(self.workdir, batch, self.codec)
        self.checkpoints.wait()
        raise UserError(
            f"Expected finite numbers in training; step {fault.step}, in iteration "
            f"{progress.iteration}, gave {fault.what}. Its batch is in "
            f"{self.workdir / workdirs.NONFINITE}; the newest checkpoint is from before. Try a "
            "smaller config.train.learning_rate, more config.train.warmup_steps, a "
            "config.train.clip_norm above 0 or config.model.dtype=float32, in another --workdir. "
            "The same command goes on from that checkpoint, to the same numbers unless the device "
            "was at fault."
        )

    def _write(self, phase: str, values: dict[str, Any], step: int | None = None) -> None:
        progress = self.progress
        place = {"phase": phase, "iteration": progress.iteration, "samples_drawn": progress.drawn}
        self.writer.write(progress.steps if step is None else step, place | values)

    def _time(self, phase: str, started: float, counts: dict[str, int]) -> None:
        seconds = time.monotonic() - started
        rates = {f"{name}_per_second": count / seconds for name, count in counts.items()}
        place = {"phase": phase, "iteration": self.progress.iteration, "seconds": seconds}
        self.writer.timing(self.progress.steps, place | counts | rates)
