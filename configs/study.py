"""When does hindsight pay? The study behind docs/results.md.

    python main.py --mode=experiment --config=configs/study.py:tuning --workdir=runs/tuning
    python main.py --mode=experiment --config=configs/study.py:methods --workdir=runs/methods
    python main.py --mode=experiment --config=configs/study.py:data --workdir=runs/data
    python main.py --mode=experiment --config=configs/study.py:ideas --workdir=runs/ideas

Every process that is given the same command with another `--config.experiment.part=(1, 2)`, (2, 2)
does a part of the cells; whoever comes last prints all.
"""
