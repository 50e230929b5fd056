# %% [markdown]
# # An iteration of HIR by hand, and a run
#
# Cell by cell in Jupyter or VS Code, or all of it by `python examples/library.py`. It needs no
# network, and the model is part of hir_jax. docs/library.md says more.

# %%
import hir_jax

policy = hir_jax.load("assets/tiny", {"sub_output.mode": "full"})
config = hir_jax.config(
    "configs/tiny.py", {"iterations": 1, "data.size": 700, "data.max_test": 100}
)
questions = hir_jax.questions(config)
print(questions.train[0])

# %% [markdown]
# Sample: four outputs to each question, under the instruction that asks for a right answer.

# %%
asked = questions.test[:16]
outputs = hir_jax.sample(policy, asked, samples=4, temperature=1.0, max_new_tokens=16, seed=0)
print([output.text for output in outputs[0]])

# %% [markdown]
# Verify: by name, or by a function of yours.

# %%
verdicts = hir_jax.verify("exact", asked, outputs)


def first_word(output: str, example: hir_jax.Example) -> bool:
    """Right: the first word is the answer's."""
    return output.split()[:1] == example.answers[0].split()[:1]


for name, found in {"exact": verdicts, "mine": hir_jax.verify(first_word, asked, outputs)}.items():
    print(name, sum(verdict.correct for own in found for verdict in own), "of", 4 * len(asked))

# %% [markdown]
# Relabel: each output stands under the instruction that it fulfils, wrong ones too.

# %%
pairs = hir_jax.relabel(policy, asked, outputs, verdicts)
for correct in (True, False):
    pair = next(pair for pair in pairs if pair.correct == correct)
    print(f"{pair.instruction} {pair.example.question!r} -> {pair.target!r}")


# %% [markdown]
# Score: how much more the policy says an output where the instruction asks for such a one, in nats.


# %%
def margin(policy: hir_jax.Policy) -> float:
    """Nats an output, the mean over all pairs."""
    own = hir_jax.score(policy, [(pair.source_tokens, pair.target_tokens) for pair in pairs])
    other = hir_jax.score(policy, [(pair.opposite_tokens, pair.target_tokens) for pair in pairs])
    return (sum(own) - sum(other)) / len(pairs)


before = margin(policy)
print(f"{before:.2f} nats")

# %% [markdown]
# All of that in a loop, with training: a run. Stopped, the same call goes on with it.

# %%
workdir = "runs/library"
outcome = hir_jax.train(config, workdir)
print(outcome.table())

# %% [markdown]
# Its best checkpoint tells the two instructions apart, on questions that it was not trained on.

# %%
after = margin(hir_jax.load(workdir))
print(f"{before:.2f} nats before, {after:.2f} after")
print(hir_jax.write_report([workdir]))
