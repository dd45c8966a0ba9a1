"""veltair: many tenants' neural networks on one machine, each answered within its latency target.

The names below are the public API. They load on first use, so that a client needs neither TVM nor the compiler.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from veltair import errors
from veltair.errors import VeltairError

if TYPE_CHECKING:
    from veltair.bundle.store import Bundle
    from veltair.bundle.store import open_bundle as load_bundle
    from veltair.client import AsyncClient, Client, Reply
    from veltair.compiler.build import Compiled, compile_model
    from veltair.directory.service import serve

__version__ = _version("veltair")

_LAZY = {
    "AsyncClient": ("veltair.client", "AsyncClient"),
    "Bundle": ("veltair.bundle.store", "Bundle"),
    "Client": ("veltair.client", "Client"),
    "Compiled": ("veltair.compiler.build", "Compiled"),
    "Reply": ("veltair.client", "Reply"),
    "compile_model": ("veltair.compiler.build", "compile_model"),
    "load_bundle": ("veltair.bundle.store", "open_bundle"),
    "serve": ("veltair.directory.service", "serve"),
}

__all__ = [
    "AsyncClient",
    "Bundle",
    "Client",
    "Compiled",
    "Reply",
    "VeltairError",
    "__version__",
    "compile_model",
    "errors",
    "load_bundle",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'veltair' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
