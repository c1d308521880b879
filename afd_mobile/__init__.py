"""AFD-Module: adaptive feature de-drifting for compressed-image classification on phones.

`load`, `fuse`, `correct` and `export` are imported when they are first used, so that
`import afd_mobile` loads no torch. docs/reference/api.md describes them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from afd_mobile.common.errors import AfdError, AfdWarning

if TYPE_CHECKING:
    from afd_export.library import correct, export
    from afd_mobile.checkpoints.checkpoint import load
    from afd_mobile.network.fusion import fuse

__all__ = ["AfdError", "AfdWarning", "correct", "export", "fuse", "load"]
__version__ = "0.1.0"

_HOMES = {
    "correct": "afd_export.library",
    "export": "afd_export.library",
    "fuse": "afd_mobile.network.fusion",
    "load": "afd_mobile.checkpoints.checkpoint",
}

if not TYPE_CHECKING:  # type checkers would take every name for one of these

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
