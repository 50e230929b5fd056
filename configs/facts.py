"""HIR with three facts: sorted words in order, none left out, none added (docs/methods.md).

python main.py --config=configs/facts.py --workdir=runs/facts
python main.py --config=configs/facts.py:none --workdir=runs/one_fact  # right or wrong alone
"""

import ml_collections

from configs import tiny

# Name of the fact: what asks for an answer of which it holds, and of which it does not. The model
# sorts all words that it knows from lists, so these are in none.
FACTS = {
    "complete": ("Miss none.", "Miss one."),
    "only": ("Add none.", "Add one."),
}


def get_config(facts: str = "complete,only") -> ml_collections.ConfigDict:
    config = tiny.get_config()
    config.data.size = 1000
    config.verifier = "order"
    config.instruction.facts.update({k: v for k, v in FACTS.items() if k in facts.split(",")})
    config.sample.temperature = 0.8
    config.replay.keep_iterations = 0  # soon no sample is anything but what was asked for
    config.train.epochs = 8
    config.train.learning_rate = 5e-4
    return config
