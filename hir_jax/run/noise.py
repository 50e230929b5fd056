"""What Orbax says beside what it raises: dozens of lines a save, and hundreds where one fails."""

import logging as std_logging
import sys
from collections.abc import Callable
from typing import Any

from absl import logging


def hush() -> None:
    """Has only warnings of Orbax shown, and no tracebacks of its threads and of their tasks.

    `Checkpoints` raises what went wrong there, and most often it is that the disk is full, a file
    damaged or another process lost, which is told in a sentence.
    """
    logging.get_absl_logger().addFilter(_worth_logging)
    std_logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())
    sys.unraisablehook = _but_for_orbax(sys.unraisablehook)


def _worth_logging(record: std_logging.LogRecord) -> bool:
    if "orbax" not in record.pathname:
        return True
    return record.levelno >= std_logging.WARNING and not record.exc_info


def _but_for_orbax(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """`hook`, not called for the reads and writes that Orbax gave up when another had failed."""

    def told(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        given_up = code is not None and "orbax" in code.co_filename
        # TensorStore's, which tells a loop of Orbax that ended meanwhile.
        if not given_up and str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return told
