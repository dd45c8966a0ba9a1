"""The thread that looks for processes which are not ours, and tells the stage what has changed.

It reads what the sources tell, with what the engine itself does taken off, and hands a change of outside pressure to the
scheduler. A look costs some 50 us, and a probe in an idle slot at most half a percent of one core. It looks fifty times a
second while somebody may be about, else twenty times, which is still enough to notice within a tenth of a second.
"""

import threading
import time
from collections.abc import Callable, Mapping

from veltair.core.interference import own_pressure
from veltair.core.values import LayerBlock, Model
from veltair.engine.flights import Task
from veltair.engine.program import Program
from veltair.engine.stage import Ended, Stage
from veltair.interference.sampler import Sampler
from veltair.interference.sources import Own, Ran
from veltair.wire.messages import OutsideHealth

PERIOD_S = 0.02
LULL_S = 0.05
MOST_UNITS = 8  # compared with their tables a look; a unit's blocks are summed in some 20 us
STEPS = 16  # of pressure, between which sums are kept
MOST_KEPT = 4096

_Unit = tuple[Program, int, int, tuple[int, ...], int, int]  # blocks, their variants, cores, sixteenths of pressure


class Watch(threading.Thread):
    """`broken` is told of an error of our own, which ends the thread. Sources that go away are none (see Sampler)."""

    def __init__(
        self,
        sampler: Sampler,
        stage: Stage,
        models: Mapping[Program, Model],
        clock: Callable[[], int],
        bandwidth_bytes_per_us: float,
        broken: Callable[[Exception], None],
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self._sampler = sampler
        self._stage = stage
        self._models = models
        self._clock = clock
        self._bandwidth = bandwidth_bytes_per_us
        self._broken = broken
        self._closing = threading.Event()
        self._told_us = 0
        self._times_us: dict[_Unit, int] = {}

    def run(self) -> None:
        try:
            while not self._closing.wait(self.period_s):
                self.look()
        except Exception as error:
            self._broken(error)

    @property
    def period_s(self) -> float:
        return LULL_S if self._sampler.settled else PERIOD_S

    def look(self) -> None:
        """Once. Called by this thread; by tests, which have a clock of their own, instead."""
        now_us = self._clock()
        own = Own(
            time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID),
            min(1.0, sum(map(self._pressure_of, self._stage.in_flight))),
            self._stage.idle_cores,
            [self._compared(unit) for unit in self._stage.take_ended()[-MOST_UNITS:] if unit.decided_us >= self._told_us],
            self._sampler.alone,
        )
        outside = self._sampler.sample(now_us, own)
        if outside is not None:
            self._told_us = now_us
            self._stage.feel(outside)

    def close(self) -> None:
        self._closing.set()
        self.join()
        self._sampler.close()

    def health(self) -> OutsideHealth:
        sampler, outside = self._sampler, self._sampler.outside
        told = outside.pressure, outside.error, outside.cores
        return OutsideHealth(*told, sampler.sources, sampler.refused, sampler.discarded, outside.held)

    def _pressure_of(self, task: Task) -> float:
        dispatch = task.dispatch
        blocks = self._models[task.ride.program].blocks[dispatch.first_block : dispatch.end_block]
        moved = sum(b.variants[v].footprint.traffic_bytes for b, v in zip(blocks, dispatch.variants, strict=True))
        return own_pressure(moved, dispatch.predicted_us, self._bandwidth)

    def _compared(self, unit: Ended) -> Ran:
        """Beside the co-runners it had: what the scheduler took for pressure then, less that of outsiders."""
        beside = max(0.0, unit.dispatch.pressure - self._sampler.outside.pressure)
        quiet_us, full_us = (self._time_us(unit, pressure) for pressure in (beside, 1.0))
        return Ran(unit.program.name, quiet_us, full_us, unit.kernels_us)

    def _time_us(self, unit: Ended, pressure: float) -> int:
        """By the tables; kept, since the same few units run over and over."""
        program, dispatch = unit.program, unit.dispatch
        step = round(pressure * STEPS)
        key = program, dispatch.first_block, dispatch.end_block, dispatch.variants, len(dispatch.lease.cores), step
        us = self._times_us.get(key)
        if us is None:
            blocks = self._models[program].blocks[dispatch.first_block : dispatch.end_block]
            us = _sum_us(blocks, dispatch.variants, len(dispatch.lease.cores), step / STEPS)
            if len(self._times_us) < MOST_KEPT:
                self._times_us[key] = us
        return us


def _sum_us(blocks: tuple[LayerBlock, ...], variants: tuple[int, ...], cores: int, pressure: float) -> int:
    return sum(b.variants[v].table.latency_us(cores, pressure) for b, v in zip(blocks, variants, strict=True))
