"""A whole run whose verifiers grade: one threshold for samples, training, evaluation and log."""

import json

import numpy as np
import pytest

from hir_jax.commands.eval import evaluate_policy
from hir_jax.errors import UserError
from hir_jax.hindsight import verify
from hir_jax.hindsight.sample import Sample
from hir_jax.hindsight.verify import Verdict
from hir_jax.run import identity, loop
from tests import tiny

pytestmark = pytest.mark.usefixtures("cache")

NAME = "auto,tests.run.rewards_test:graded"


def graded(output, example):
    """The fewer words the better."""
    return Verdict(reward=1 / max(1, len(output.split())), facts={"one": " " not in output})


def config(**changes):
    fixed = {"verifier": NAME, "reward.weights": (1, 3), "reward.threshold": 0.375}
    return tiny.config(iterations=1, algorithm="farl", **{"train.epochs": 1, **fixed, **changes})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graded")
    loop.run(config(), str(folder))
    return folder


def lines(workdir, phase):
    every = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in every if line["phase"] == phase]


def drawn(workdir):
    records = map(json.loads, (workdir / "samples" / "iter_0001.jsonl").read_text().splitlines())
    known = set(vars(Sample("", 0, (), "", True, True, 0.0, 1)))
    return [Sample.from_json({k: v for k, v in r.items() if k in known}) for r in records]


def test_samples_have_rewards_facts_and_the_verdict_of_the_threshold(workdir):
    samples = drawn(workdir)
    for sample in samples:
        parts = sample.rewards
        assert list(parts) == NAME.split(",")
        assert sample.reward == pytest.approx((parts["auto"] + 3 * parts[NAME[5:]]) / 4)
        assert sample.correct == (sample.reward >= 0.375)
        assert sample.facts == {"one": " " not in sample.text}
    # Right by the threshold without a right answer, as no other verifier has it; and wrong ones.
    assert any(s.correct and not s.rewards["auto"] for s in samples)
    assert any(not s.correct for s in samples)
    assert "logprobs" not in (workdir / "samples" / "iter_0001.jsonl").read_text()


def test_the_log_has_each_verifiers_reward_and_each_fact(workdir):
    (line,), samples = lines(workdir, "sample"), drawn(workdir)
    assert line["reward"] == pytest.approx(np.mean([s.reward for s in samples]))
    assert line["correct"] == np.mean([s.correct for s in samples])
    for name in NAME.split(","):
        found = [s.rewards[name] for s in samples]
        assert line[f"reward_{name}"] == pytest.approx(np.mean(found))
    assert line["fact_one"] == np.mean([s.facts["one"] for s in samples])
    assert line["pass@1"] == pytest.approx(line["correct"])
    assert line["pass@2"] == pytest.approx(1 - line["all_wrong"])  # R = 2


def test_farl_trains_on_what_reaches_the_threshold(workdir):
    (line,) = lines(workdir, "pairs")
    assert line["pairs"] == len({(s.example_id, s.text) for s in drawn(workdir) if s.correct})


def test_evaluation_and_the_best_constant_know_the_threshold(workdir):
    record = json.loads((workdir / "eval.json").read_text())["before"]
    # Any answer of one word is right; the best constant is one.
    assert record["best_constant"]["accuracy"] == 1.0
    assert record["asked_correct"]["accuracy"] > 0


def test_another_threshold_or_weight_is_another_judge(workdir):
    assert evaluate_policy(config(), str(workdir))
    for changes in ({"reward.threshold": 0.8}, {"reward.weights": (1, 2)}, {"verifier": NAME[5:]}):
        if "verifier" in changes:
            changes["reward.weights"] = ()
        with pytest.raises(
            UserError, match=r"verifier: the source of the verifier.*\n.*--transfer"
        ):
            evaluate_policy(config(**changes), str(workdir))


def test_what_decides_a_verdict():
    def judging(**changes):
        return identity.judging(tiny.config(**changes))

    assert judging(verifier="exact") == judging(verifier="exact", **{"reward.threshold": 0.9})
    assert judging(verifier="exact") == "exact" != judging(verifier="exact,number")
    # Two functions of one module are two verifiers.
    one, other = NAME[5:], f"{__name__}:drawn"
    assert verify.module_of(one) == verify.module_of(other) == __name__
    assert judging(verifier=one) != judging(verifier=other)
