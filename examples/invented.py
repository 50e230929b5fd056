"""A translator of an invented language, from nothing: ByT5's bytes, chrF as the reward.

`python -m examples.invented` makes a ByT5 of 230,000 weights and phrases of a language, teaches the
model some true translations until it is a weak base, and goes on with HIR, which sees rewards of
its own outputs alone. docs/models.md has what came of it. It needs sacrebleu and no network.
"""

import argparse
import itertools
import json
import pathlib
import random
from typing import Any

import jax
import ml_collections
import transformers

import hir_jax
from hir_jax.commands.export import export_policy
from hir_jax.model import hf, t5

NUMBERS = ("one", "two", "three", "four")
ADJECTIVES = ("small", "old", "red", "quiet", "warm", "tall", "kind", "round")
NOUNS = (
    *("bird", "boat", "book", "cloud", "door", "farm", "fish", "goat", "hill", "horse"),
    *("lamp", "moon", "owl", "pear", "river", "road", "song", "star", "tree", "wolf"),
)
VERBS = ("sleep", "fall", "sing", "wait", "turn", "shine")

# Of both runs, and of what comes of them.
WELL, BADLY = "Translate well.", "Translate badly."
CHANGES = {
    "instruction.correct": WELL,
    "instruction.wrong": BADLY,
    "verifier": "examples.checks:translated",
    "reward.threshold": 0.8,
    "sample.max_new_tokens": 40,
    "loss.smoothing": 0.05,  # the paper's is for 32,128 tokens, of which here are 384
    "train.batch_size": 32,
    "buckets.source": 1,
}

# As google/byt5-small's config.json, but for its size.
MODEL = {
    "model_type": "t5",
    "tokenizer_class": "ByT5Tokenizer",
    "vocab_size": 384,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 3,
    "num_decoder_layers": 1,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}


def phrases(rng: random.Random) -> list[dict[str, str]]:
    """All phrases with their translations, in random order.

    The language puts the verb first and the number last, and nouns, adjectives and verbs of more
    than one end in "n": "two red birds sing" may be "mekon tulin rapan siso".
    """
    words = list(map("".join, itertools.product("bdfklmnprst", "aeiou", "klmnrst", "aeiou")))
    english = [*NUMBERS, *ADJECTIVES, *NOUNS, *VERBS]
    means = dict(zip(english, rng.sample(words, len(english)), strict=True))
    made = []
    for number, *others in itertools.product(NUMBERS, ADJECTIVES, NOUNS, VERBS):
        adjective, noun, verb = others
        of_noun, of_verb = ("", "s") if number == "one" else ("s", "")
        plural = "n" if of_noun else ""
        said = [means[word] + plural for word in (verb, noun, adjective)]
        made.append(
            {
                "question": f"{number} {adjective} {noun}{of_noun} {verb}{of_verb}",
                "answer": " ".join([*said, means[number]]),
            }
        )
    rng.shuffle(made)
    return made


def write(folder: pathlib.Path, first: int, then: int) -> None:
    """`new`, a model of random weights, and phrases to begin with, to go on with, and of tests."""
    shape = hf.parse_config(MODEL, folder / "new", "float32", has_head=True)
    params = t5.init_params(shape, jax.random.key(0))
    hf.export(folder / "new", params, shape, transformers.ByT5Tokenizer(), MODEL)
    made = iter(phrases(random.Random(0)))
    for name, count in {"first": first, "then": then, "dev": 100, "test": 200}.items():
        lines = [json.dumps(phrase) + "\n" for phrase in itertools.islice(made, count)]
        (folder / f"{name}.jsonl").write_text("".join(lines))


def config(folder: pathlib.Path, name: str, **changes: Any) -> ml_collections.ConfigDict:
    """Of a run that learns from the phrases of that name."""
    files = {
        "data.path": f"{folder}/{name}.jsonl",
        "data.dev_path": f"{folder}/dev.jsonl",
        "data.test_path": f"{folder}/test.jsonl",
    }
    return hir_jax.config("configs/jsonl.py", CHANGES | files | changes)


def measure(name: str, source: str | pathlib.Path, asked: list[hir_jax.Example]) -> None:
    """Prints mean chrF and the share right of greedy translations under both instructions."""
    for instruction in (WELL, BADLY):
        policy = hir_jax.load(source, CHANGES | {"instruction.correct": instruction})
        outputs = hir_jax.sample(policy, asked, temperature=0.0)
        threshold = CHANGES["reward.threshold"]
        judged = hir_jax.verify(CHANGES["verifier"], asked, outputs, threshold=threshold)
        verdicts = list(itertools.chain(*judged))
        chrf = sum(verdict.reward for verdict in verdicts) / len(verdicts)
        right = sum(verdict.correct for verdict in verdicts) / len(verdicts)
        print(f"{name:12} {instruction:18} chrF {chrf:5.1%}   right {right:5.1%}", flush=True)


def main() -> None:
    """From nothing to the report; the same command goes on where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="runs/invented", help="where all of it lives")
    parser.add_argument("--first", type=int, default=800, help="phrases with true translations")
    parser.add_argument("--then", type=int, default=400, help="phrases to sample translations of")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the first")
    parser.add_argument("--iterations", type=int, default=5, help="of HIR")
    given = parser.parse_args()
    folder = pathlib.Path(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "new").exists():
        write(folder, given.first, given.then)

    base = {
        "algorithm": "sft",
        "model.path": f"{folder}/new",
        "iterations": 1,
        "train.epochs": given.epochs,
        "train.learning_rate": 3e-3,
        "train.warmup_steps": 50,
    }
    first = config(folder, "first", **base)
    hir_jax.train(first, folder / "sft")
    if not (folder / "base").exists():
        export_policy(first, f"{folder}/sft", f"{folder}/base")

    then = {
        "model.path": f"{folder}/base",
        "iterations": given.iterations,
        "replay.keep_iterations": 1,
        "sample.samples": 8,
        "sub_output.mode": "full",
        "loss.entropy_weight": 0.0,
        "train.epochs": 2,
        "train.learning_rate": 3e-4,
    }
    second = config(folder, "then", **then)
    print(hir_jax.train(second, folder / "hir").table())
    asked = list(hir_jax.questions(second).test)
    for name, source in {"nothing": "new", "base": "base", "hir": "hir"}.items():
        measure(name, folder / source, asked)
    print(hir_jax.write_report([folder / "hir"]))


if __name__ == "__main__":
    main()
