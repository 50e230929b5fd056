"""The files that come with hir_jax besides its code: `configs/` and `assets/`.

They stand beside the package in a checkout, and inside it where it was installed.
"""

import pathlib
import sys

import hir_jax

_PACKAGE = pathlib.Path(hir_jax.__file__).parent
_CHECKOUT = _PACKAGE.parent
HOME = _CHECKOUT if (_CHECKOUT / "configs" / "common.py").exists() else _PACKAGE / "shipped"
OF_A_WORKDIR = "configs/workdir.py"


def find(name: str) -> str:
    """A path as it stands where something is there; else the shipped file of that name, if any."""
    path = pathlib.Path(name).expanduser()
    shipped = HOME / name
    return name if path.exists() or not name or not shipped.exists() else str(shipped)


def let_configs_be_imported() -> None:
    """Puts `HOME` on Python's path, last: configs import one another as `configs.NAME`."""
    if str(HOME) not in sys.path:
        sys.path.append(str(HOME))
