"""Workdirs as runs leave them, made in a moment."""

import json

from configs import common
from hir_jax.data.example import Example
from hir_jax.hindsight.relabel import Instructions
from hir_jax.hindsight.sample import Sample
from hir_jax.run import metrics, workdirs
from hir_jax.run.constant import Constant
from hir_jax.run.outcome import Outcome
from tests.run.evaluate_test import evaluation

QUESTIONS = ("1 + 1?", "2 + 2?", "Which is heavier?")
HOSTILE = "</script><script>document.title='owned'</script><!-- <img src=x onerror=alert(1)> \u2028"

# right under the correct-answer instruction, right under the other
BEFORE, AFTER = ("1010101010", "1010101010"), ("1111111110", "0010000000")
LONG = Constant("carrot chair wood and others", 0.6, 3, 3)  # longer than a table shows


def config(**changes):
    found = common.get_config()
    found.iterations = 2
    found.update_from_flattened_dict(changes)
    return found


def run(folder, outputs=(), after=AFTER, alarm=None, digest="d", **changes):
    """A workdir; where there is `after`, of a run that has ended.

    outputs: of each iteration (question, text, right) for each sample.
    """
    made = config(**changes)
    folder.mkdir(parents=True)
    workdirs.write_json(folder / "config.json", json.loads(made.to_json_best_effort()))
    workdirs.write_json(folder / "identity.json", {"test": digest})
    writer = metrics.MetricsWriter(folder)
    drawn = 0
    for iteration in range(3 if after else 2):
        place = {"iteration": iteration, "samples_drawn": drawn}
        found = evaluation(*(AFTER if iteration else BEFORE))
        if iteration:
            drawn += 4
            place["samples_drawn"] = drawn
            figures = {"correct": 0.5, "reward": 0.5, "pass@1": 0.5, "pass@2": 0.75}
            writer.write(10 * iteration, place | figures | {"phase": "sample"})
            for step in (1, 10):
                loss = float("nan") if step == 1 and iteration == 1 else 1 / step
                values = place | {"loss": loss, "own_term": 2.0, "phase": "train"}
                writer.write(10 * iteration + step, values)
            writer.timing(10, {"phase": "train", "iteration": iteration, "seconds": 2.0})
        values = found.scalars() | found.bounds() | {"phase": "evaluate", "split": "dev"}
        writer.write(10 * iteration + 10, place | values)
    if alarm:
        writer.write(15, {"phase": "alarm", "alarm": alarm, "iteration": 1})
    writer.close()
    for iteration, samples in enumerate(outputs, 1):
        write_samples(folder, iteration, samples, made)
    if after:
        result = Outcome(
            2,
            8,
            20,
            2,
            "dev",
            evaluation(*BEFORE, digest=digest),
            evaluation(*after, digest=digest, constant=LONG),
            {alarm: 3} if alarm else {},
        )
        workdirs.write_json(folder / "eval.json", result.to_json())
    return folder


def write_samples(folder, iteration, outputs, made):
    texts = dict.fromkeys(question for question, _, _ in outputs)
    examples = {
        f"sums/{question}": Example(f"sums/{question}", question, (), ("2", "two"), "sums", "")
        for question in texts
    }
    samples = [
        Sample(f"sums/{question}", i, (5, 1), text, right, text != "", -float(i), iteration, text,
               facts={"short": len(text) < 5}, reference=(-1.0, -0.5))
        for i, (question, text, right) in enumerate(outputs)
    ]  # fmt: skip
    instructions = Instructions(made.instruction.correct, made.instruction.wrong)
    workdirs.write_samples(folder, iteration, samples, examples, instructions, {})
