"""The candidates for a block's variants: for each kernel call one form (algorithm, precision) and one setting of its knobs.

Each candidate is a whole line, made by one rule, so that it can be run and timed as a model; what two rules agree on in
a block is one candidate there. Which of them stay is decided by `select`, from measurements.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from veltair.compiler.line import Call, Line
from veltair.compiler.records import Ranked
from veltair.compiler.schedules.base import Knobs

SLOWER_AT_MOST = 1.3  # a candidate that presses less on memory may cost this much time alone
SPARED = 0.025  # of the time that a coarser precision saves, what the kernels that save least are given up for
TIE = 1.02  # timings repeat to about 2 %: between settings closer than that the lighter one wins
DIRECT = "direct"  # the candidate every block falls back on: exact, by the plainest algorithm


@dataclass(frozen=True, slots=True)
class Chosen:
    """One kernel call as a candidate runs it, with what the records say of it."""

    call: Call
    knobs: Knobs
    us: float  # on one core, weights cold
    us_wide: float  # on all cores

    @property
    def setting(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        """Names the compiled function."""
        return self.call.kernel.key, tuple(sorted(self.knobs.items()))

    @property
    def traffic_bytes(self) -> int:
        return self.call.kernel.traffic_bytes(self.knobs) // self.call.parts

    @property
    def flops(self) -> int:
        return self.call.kernel.flops // self.call.parts

    @property
    def working_set_bytes(self) -> int:
        return self.call.kernel.working_set_bytes(self.knobs)


Lines = Mapping[str, tuple[Chosen, ...]]  # candidate -> every call of the line


def candidate_lines(line: Line, ranked: Mapping[str, Ranked], precisions: Collection[str]) -> dict[str, tuple[Chosen, ...]]:
    """The candidates by name, the plainest first; one that would repeat an earlier one is left out.

    `direct` is the quickest on one core without another algorithm; `fast` may use any; `wide` is the quickest on all cores;
    `lean` moves the fewest bytes beyond the core's own caches and `small` keeps the smallest working set, both among what
    costs at most SLOWER_AT_MOST; the same again in bf16 where `precisions` hold it and the line has such kernels. `bf16-some`
    leaves the kernels exact that would save least: the gate of an attention over channels may cost most of a block's accuracy
    and none of its time.
    """
    options = [_options(call, ranked, precisions) for call in line.calls]
    exact = [[o for o in each if o.call.kernel.precision == "fp32"] for each in options]
    plain = [[o for o in each if o.call.kernel.algorithm == DIRECT] for each in exact]
    rules: list[tuple[str, list[list[Chosen]], Callable[[list[Chosen]], Chosen]]] = [
        (DIRECT, plain, _quickest),
        ("fast", exact, _quickest),
        ("wide", exact, _widest),
        ("lean", exact, _leanest),
        ("small", exact, _smallest),
    ]
    if options != exact:
        rules += [("bf16", options, _quickest), ("bf16-wide", options, _widest), ("bf16-lean", options, _leanest)]
        rules += [("bf16-some", _where_it_pays(options, exact), _quickest)]
    found: dict[str, tuple[Chosen, ...]] = {}
    for name, choices, rule in rules:
        made = tuple(rule(each) for each in choices)
        if all([c.setting for c in made] != [c.setting for c in other] for other in found.values()):
            found[name] = made
    return found


def _options(call: Call, ranked: Mapping[str, Ranked], precisions: Collection[str]) -> list[Chosen]:
    return [
        Chosen(form, timed.knobs, timed.us / form.parts, timed.us_wide / form.parts)
        for form in call.forms
        if form.kernel.precision in precisions or form is call
        for timed in ranked.get(form.kernel.key, ())
    ]


def _where_it_pays(options: Sequence[list[Chosen]], exact: Sequence[list[Chosen]]) -> list[list[Chosen]]:
    """The options of each call, only the exact ones where coarser ones save so little that all such calls together save
    SPARED of what there is to save. The parts of a layer stay together: forms share its iterations out differently."""
    saved = [min(o.us for o in fine) - min(o.us for o in each) for each, fine in zip(options, exact, strict=True)]
    layers: list[list[int]] = []
    for i, each in enumerate(options):
        if each[0].call.part:
            layers[-1].append(i)
        else:
            layers.append([i])
    left, found = SPARED * sum(saved), list(options)
    for layer in sorted(layers, key=lambda layer: sum(saved[i] for i in layer)):
        left -= sum(saved[i] for i in layer)
        if left < 0:
            break
        for i in layer:
            found[i] = exact[i]
    return found


def _quickest(options: Sequence[Chosen]) -> Chosen:
    limit = min(o.us for o in options) * TIE
    return min((o for o in options if o.us <= limit), key=lambda o: (o.traffic_bytes, o.us))


def _widest(options: Sequence[Chosen]) -> Chosen:
    return min(_near(options), key=lambda o: o.us_wide)


def _leanest(options: Sequence[Chosen]) -> Chosen:
    return min(_near(options), key=lambda o: (o.traffic_bytes, o.us))


def _smallest(options: Sequence[Chosen]) -> Chosen:
    return min(_near(options), key=lambda o: (o.working_set_bytes, o.us))


def _near(options: Sequence[Chosen]) -> list[Chosen]:
    limit = min(o.us for o in options) * SLOWER_AT_MOST
    return [o for o in options if o.us <= limit]
