"""hir_jax from Python: what `import hir_jax` gives.

Each function is what the command of its name does, without files and flags; the same seeds give the
same numbers. They keep no state: what they take is what decides. A fault that the user can mend is
a `UserError`; where its message speaks of a flag `--config.data.size`, that is the field
"data.size" of a config here.
"""

from hir_jax.data import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.verify import Verdict
from hir_jax.library.policy import Output, Policy, load, sample, score
from hir_jax.library.relabeling import Pair, relabel, verify
from hir_jax.library.runs import config, examples, questions, train, write_report
from hir_jax.run.outcome import Outcome

__all__ = ["Example", "Outcome", "Output", "Pair", "Policy", "UserError", "Verdict", "config"]
__all__ += ["examples", "load", "questions", "relabel", "sample", "score", "train", "verify"]
__all__ += ["write_report"]
