"""--mode=eval: how well a policy follows both instructions."""

import pathlib

import ml_collections

from hir_jax.commands.policy import load_policy
from hir_jax.devices import processes
from hir_jax.errors import UserError
from hir_jax.run import choosing, evaluate, identity, metrics, models, workdirs
from hir_jax.run.questions import load_questions


def evaluate_policy(
    config: ml_collections.ConfigDict, workdir: str | None, transfer: bool = False
) -> dict[str, evaluate.Evaluation]:
    """Scores the policy on `config.evaluate.split`; writes eval_<split>.json into the workdir.

    Raises:
        UserError: the split is empty; or, without `transfer`, the run in the workdir was asked
            other questions, by other instructions, or judged otherwise: its "test" questions could
            then be among those that it was trained on.
    """
    model, name = load_policy(config, workdir)
    questions = load_questions(config, model.codec)
    if workdir and not transfer:
        ours = identity.of_questions(model.codec, questions, config)
        mend = "Leave out the flags that change it, or judge the run by it with --transfer."
        identity.check(pathlib.Path(workdir), ours, mend)
    split = config.evaluate.split
    examples = getattr(questions.splits, split)
    if not examples:
        sizes = {key: len(value) for key, value in questions.splits._asdict().items()}
        raise UserError(
            f"config.evaluate.split: expected a split with questions, found {split!r}; sizes are "
            f"{sizes}."
        )
    sampler = models.make_sampler(config, model, questions.buckets.source)
    total = len(questions.instructions.asked) * len(examples)
    with metrics.progress(total, f"evaluating on {split}", "question") as bar:
        result = evaluate.evaluate(
            sampler,
            model.params,
            examples,
            questions.prompts,
            model.codec,
            questions.verifier,
            progress=bar.update,
        )
    result = choosing.with_choices(
        result, config, sampler, model.params, examples, questions, model.codec
    )
    folder = pathlib.Path(workdir or ".")
    record = {"model": name, "task": config.data.task, "split": split} | result.to_json()
    if processes.is_first():
        workdirs.write_json(folder / f"eval_{split}.json", record)
    return {f"{name}: {split}": result}
