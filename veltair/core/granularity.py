"""How many blocks to run in one go.

A unit cannot be interrupted, so its length is what a tighter request that comes meanwhile may have to wait. Handing over
costs some 50-100 us. Hence: whole models while everybody could afford to wait for one, and units of a share of the
tightest slack as soon as somebody with less slack is served here (measured in `FACTS`: fine units triple the load a mixed
machine carries, and cost a twentieth of it where all tenants are alike).
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from veltair.core.predict import Line
from veltair.core.state import Kind

MEMORY_US = 2_000_000  # whoever was seen this lately is expected again; rarer tenants are not worth fine units
SLACK_SHARE = 0.7  # of the tightest slack: what is left of it is for the queue in front of the one who waits
WORTH_SPLITTING = 1.2  # thresholds: a rest that is hardly longer than one runs in one go, for the price of a hand-over
LENT_UNIT_US = 10_000  # on more cores than needed: whoever comes and needs them waits for their return
LEAST_UNIT_US = 1_000  # twenty times the hand-over: finer units cost more than 5 % of the machine


@dataclass(slots=True)
class _Tightest:
    """The two kinds of request with the least slack, so that one can be asked about all others."""

    since_us: int = 0
    least: dict[Kind, int] = field(default_factory=dict)

    def add(self, kind: Kind, slack_us: int) -> None:
        if slack_us < self.least.get(kind, slack_us + 1):
            self.least[kind] = slack_us
            if len(self.least) > 2:
                del self.least[max(self.least, key=lambda k: self.least[k])]


class SeenLately:
    """The tightest slack (QoS minus service) among the requests of the last seconds. Constant time and memory."""

    def __init__(self) -> None:
        self._now, self._before = _Tightest(), _Tightest()

    def add(self, kind: Kind, slack_us: int, now_us: int) -> None:
        self._turn(now_us)
        self._now.add(kind, slack_us)

    def tightest_us(self, besides: Kind, now_us: int) -> int | None:
        """Least slack of any other kind. None: no other kind was seen."""
        self._turn(now_us)
        slacks = [us for half in (self._now, self._before) for kind, us in half.least.items() if kind != besides]
        return min(slacks, default=None)

    def _turn(self, now_us: int) -> None:
        """Two halves of the memory in turn: forgetting needs no list of requests."""
        if now_us - self._now.since_us >= MEMORY_US:
            self._now, self._before = _Tightest(now_us), _Tightest(now_us)
        elif now_us - self._now.since_us >= MEMORY_US // 2:
            self._now, self._before = _Tightest(now_us), self._now


def threshold_us(tightest_slack_us: int) -> int:
    """How long a unit may run where such requests come."""
    return max(LEAST_UNIT_US, int(tightest_slack_us * SLACK_SHARE))


def is_worth_splitting(quiet_us: int, tightest_slack_us: int) -> bool:
    """By what the rest takes on a quiet machine, as slack is what a quiet machine leaves."""
    return quiet_us > WORTH_SPLITTING * threshold_us(tightest_slack_us)


def unit_end(line: Line, first_block: int, limit_us: float) -> int:
    """The block behind the longest unit within the limit, one block at least."""
    if line.rest_us(first_block) <= limit_us:
        return len(line.variants)
    return max(first_block + 1, bisect_right(line.until_us, line.until_us[first_block] + limit_us) - 1)
