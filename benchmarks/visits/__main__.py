"""One stage of a visit: `python -m benchmarks.visits SCRATCH SIZE,SIZE... STAGE`"""

import importlib
import pathlib
import sys

from benchmarks.visits import stages


def main() -> None:
    """Does it."""
    folder, sizes, name = sys.argv[1:]
    scratch, sizes = pathlib.Path(folder), tuple(sizes.split(","))
    stage = next(stage for stage in stages.table(sizes) if stage.name == name)
    note = stages.noting(scratch, name)
    work = importlib.import_module(f"benchmarks.visits.{stage.work}")
    work.run(stages.Visit(scratch, stage, sizes), note)


if __name__ == "__main__":
    main()
