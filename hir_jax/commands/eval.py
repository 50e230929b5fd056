"""--mode=eval: how well a policy follows both instructions."""

import pathlib

import ml_collections
from absl import logging

from hir_jax.commands.lines import check_folder, check_output
from hir_jax.commands.policy import load_policy
from hir_jax.devices import processes
from hir_jax.run import answering, choosing, evaluate, identity, models, workdirs
from hir_jax.run.asking import Asking
from hir_jax.run.evaluation import Evaluation
from hir_jax.run.questions import expect, load_questions


def evaluate_policy(
    config: ml_collections.ConfigDict,
    workdir: str | None,
    transfer: bool = False,
    output: str | None = None,
) -> dict[str, Evaluation]:
    """Scores the policy on `config.evaluate.split`, as JSON in `output`.

    Without `output` that is eval_<split>.json in the workdir, if one is given. The questions of
    other splits are looked at only where they must be those of the run.

    Raises:
        UserError: the split is empty; `output` is there already; or, without `transfer`, the run in
            the workdir was asked other questions, by other instructions, or judged otherwise: its
            "test" questions could then be among those that it was trained on.
    """
    split = config.evaluate.split
    file = output or (workdir and str(pathlib.Path(workdir, f"eval_{split}.json")))
    if output:
        check_output(output)
    elif workdir and pathlib.Path(workdir).is_dir():  # else it is no run's, as is told below
        check_folder(file)
    of_the_run = workdir and not transfer
    model, name = load_policy(config, workdir)
    questions = load_questions(config, model.codec, only="" if of_the_run else split)
    if of_the_run:
        ours = identity.of_questions(questions, config)
        mend = "Leave out the flags that change it, or judge the run by it with --transfer."
        identity.check(pathlib.Path(workdir), ours, mend)
    examples = expect(questions.splits, split)
    sampler = models.make_sampler(config, model, questions.buckets.source)
    asking = Asking(config, sampler, model.params, questions, examples)
    result = evaluate.evaluate(asking, f"evaluating on {split}")
    result = choosing.with_choices(result, asking)
    record = {"model": name, "task": config.data.task, "split": split} | result.to_json()
    record |= {"among": config.evaluate.among, "beams": config.evaluate.beams}
    if file and processes.is_first():
        workdirs.write_json(pathlib.Path(file), record)
        logging.info("wrote %s", file)
    said = answering.said(config.evaluate.among, config.evaluate.beams)
    return {f"{name}: {split}{said}": result}
