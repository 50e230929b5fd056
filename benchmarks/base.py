"""The small base model, family by family: what it knows, and what its samples come to.

    python -m benchmarks.base [--model=assets/tiny] [--output=benchmarks/results/base.json]

Of each task and difficulty that it was made from, up to 200 test questions: greedy accuracy asked
for a correct and for a wrong answer, with 95% intervals; the best constant answer; and of 16
samples a question how often they are right: the mean, how many questions have a right one among 4
and among 16, and a histogram of the questions' pass rates.
"""

import json
import pathlib

import numpy as np
from absl import app, flags

from configs import pretrain, tiny
from hir_jax.data import generators
from hir_jax.hindsight import replay
from hir_jax.run import drawing, evaluate, metrics, models, questions
from hir_jax.run.asking import Asking

MODEL = flags.DEFINE_string("model", "assets/tiny", "Folder of the model.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
SAMPLES, QUESTIONS = 16, 200
EDGES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


def size_of(task: str, difficulty: int) -> int:
    """As many questions as there are, at most 1,000 on all sides."""
    stream = generators.stream(task, difficulty, tiny.get_config().data.seed)
    return sum(1 for _ in zip(stream, range(1000), strict=False))


def measure(task: str, difficulty: int) -> dict:
    """Figures of one task and difficulty."""
    config = tiny.get_config()
    config.model.path = MODEL.value
    config.data.update(
        task=task, difficulty=difficulty, size=size_of(task, difficulty), max_test=QUESTIONS
    )
    config.sample.temperature = 1.0
    config.sample.max_new_tokens = 24
    model = models.load_model(config)
    asked = questions.load_questions(config, model.codec)
    sampler = models.make_sampler(config, model, asked.buckets.source)
    asking = Asking(config, sampler, model.params, asked, asked.splits.test)
    title = f"{task} {difficulty}"
    found = evaluate.evaluate(asking, title)
    samples = drawing.draw_from(asking, samples=SAMPLES, iteration=0, title=title)
    right = np.array([sample.correct for sample in samples]).reshape(-1, SAMPLES).sum(axis=1)
    counts = np.histogram(right / SAMPLES, bins=[-1, *EDGES[1:-1], 2])[0]
    return {
        "task": task,
        "difficulty": difficulty,
        "n": len(asking.examples),
        **found.to_json(),
        "pass@1": float(right.mean() / SAMPLES),
        **{
            f"pass@{k}": float(np.mean([replay.pass_at(k, SAMPLES, int(r)) for r in right]))
            for k in (4, SAMPLES)
        },
        "histogram": counts.tolist(),
    }


def row(record: dict) -> tuple:
    """A line of the printed table."""

    def percent(name: str) -> str:
        low, high = record[name]["interval"]
        return f"{record[name]['accuracy']:.0%} [{low:.0%}, {high:.0%}]".replace("%", "")

    return (
        record["task"],
        record["difficulty"],
        percent("asked_correct"),
        percent("asked_wrong"),
        f"{100 * record['best_constant']['accuracy']:.0f}",
        f"{100 * record['pass@1']:.0f}",
        f"{100 * record['pass@4']:.0f}",
        f"{100 * record['pass@16']:.0f}",
        *record["histogram"],
        record["n"],
    )


def main(_: list[str]) -> None:
    """Prints the table; writes the figures where asked to."""
    tasks = pretrain.get_config().pretrain.tasks
    records = [measure(task, d) for task, difficulties in tasks.items() for d in difficulties]
    bins = [f"to {100 * edge:.0f}%" for edge in EDGES[1:]]
    headers = ("task", "difficulty", "asked correct", "asked wrong", "constant")
    headers += ("pass@1", "pass@4", "pass@16", *bins, "n")
    print(metrics.format_markdown(headers, [row(record) for record in records]))
    total = np.sum([record["histogram"] for record in records], axis=0)
    print("\nquestions by the share of right samples:")
    for name, count in zip(bins, total, strict=True):
        print(f"{name:>8} {'█' * round(60 * count / total.sum())} {count}")
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
