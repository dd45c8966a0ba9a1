"""Strategies behind the scheduler, by name."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from veltair.core.policies.clockwork import Clockwork
from veltair.core.policies.edf import Edf
from veltair.core.policies.fcfs import Fcfs
from veltair.core.policies.layerwise import Layerwise
from veltair.core.policies.planaria import Planaria
from veltair.core.policies.prema import Prema
from veltair.core.policies.protocol import Policy
from veltair.core.policies.veltair import Veltair
from veltair.errors import ConfigError

POLICIES: Mapping[str, Callable[[], Policy]] = MappingProxyType(
    {
        "veltair": Veltair,
        "veltair-as": partial(Veltair, adaptive_compilation=False),
        "veltair-ac": partial(Veltair, adaptive_scheduling=False),
        "fcfs": Fcfs,
        "layerwise": Layerwise,
        "planaria": Planaria,
        "prema": Prema,
        "edf": Edf,
        "clockwork": Clockwork,
    }
)


def make_policy(name: str) -> Policy:
    """A fresh policy; each scheduler needs its own. Raises ConfigError for a name that is none."""
    if name not in POLICIES:
        raise ConfigError(f"policy {name!r} is unknown; choose one of: {', '.join(POLICIES)}")
    return POLICIES[name]()
