"""Co-runs: a model's blocks timed while something presses on the machine, kept in a file to learn from.

The victim always runs a whole model, so that each of its blocks meets its weights and inputs as it will in service. Beside it
runs, on other cores and over and over, a range of blocks of some model, an outsider's antagonist, or nothing. What is to be
held out of learning is held out by pair of co-runners: samples of one pair are alike, and a model that saw some of them would
be praised for remembering.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from veltair.bundle.format import Manifest, encode_manifest
from veltair.errors import ProfileError
from veltair.interference.ladder import LADDER
from veltair.interference.probe import plausible
from veltair.interference.profile import Kind, write_whole

SCHEMA_VERSION = 1
QUIET_SHARE, OUTSIDER_SHARE = 0.25, 0.25  # of all co-runs; in the rest two models run
WHOLE_SHARE = 0.5  # of the models beside a victim; others run a range of blocks
PASSES_L2 = 2  # so many times the L2 a range moves at least: a smaller one would run from there and press less than in service
# Beyond these somebody else ran, and would be learnt as what was beside the victim, or as nobody.
MOST_WAITED = 0.02
MOST_INTRUDED = 0.1  # coarse, since Linux counts in hundredths of a second
LEAST_KEPT = 3  # runs of a block


class Unit(msgspec.Struct, frozen=True, tag="unit"):
    """Blocks first_block <= i < end_block of a bundle, each as `variant` or the last one it has."""

    bundle: str
    digest: str  # of its manifest: another compile has other times
    variant: int
    cores: int
    first_block: int
    end_block: int


class Outsider(msgspec.Struct, frozen=True, tag="outsider"):
    """Antagonists on all cores but the first, as when the profile's ladder was made."""

    kind: Kind
    level: float


class CoRun(msgspec.Struct, frozen=True):
    """`block_us` holds the times of each of the victim's blocks, one a run."""

    victim: Unit
    beside: Unit | Outsider | None
    block_us: tuple[tuple[int, ...], ...]
    waited: float = 0.0  # share of the time in which threads of either side waited for a core
    intruded: float = 0.0  # share of the time in which somebody else used the cores that were to be idle


class Discarded(msgspec.Struct, frozen=True):
    """What is not learnt from."""

    absurd: int = 0  # single times that cannot be true: a suspended machine, a stepped clock
    disturbed: int = 0  # co-runs in which somebody else ran, too
    stale: int = 0  # co-runs of bundles that were compiled anew since, or are not asked for

    def __add__(self, other: "Discarded") -> "Discarded":
        return Discarded(self.absurd + other.absurd, self.disturbed + other.disturbed, self.stale + other.stale)


Pair = tuple[tuple[str, ...], ...]
"""Who ran together, whoever was timed, whatever the variants and cores."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A bundle that takes part."""

    manifest: Manifest
    digest: str  # of the manifest, and so of the whole bundle, whose digests it holds

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def variants(self) -> int:
        return max(len(block.variants) for block in self.manifest.blocks)

    def chosen(self, unit: Unit) -> tuple[int, ...]:
        """The number of each block's variant."""
        return tuple(
            min(unit.variant, len(block.variants) - 1) for block in self.manifest.blocks[unit.first_block : unit.end_block]
        )

    def whole(self, variant: int, cores: int) -> Unit:
        return Unit(self.name, self.digest, variant, cores, 0, len(self.manifest.blocks))

    @classmethod
    def of(cls, manifest: Manifest) -> "Subject":
        return cls(manifest, hashlib.sha256(encode_manifest(manifest)).hexdigest()[:12])

    def divisible(self) -> bool:
        """Whether a range may run by itself, on memory that holds anything: indices must not come from blocks before it."""
        return all(tensor.kind != "activation" or "int" not in tensor.dtype for tensor in self.manifest.tensors)


def pair_of(run: CoRun) -> Pair:
    return tuple(sorted(_side(side) for side in (run.victim, run.beside)))


def models_of(run: CoRun) -> Pair:
    """As `pair_of`, with all ranges of a model taken as one: the harder thing to foresee."""
    return tuple(sorted(_side(side)[:2] for side in (run.victim, run.beside)))


def _side(side: Unit | Outsider | None) -> tuple[str, ...]:
    match side:
        case Unit():
            return ("unit", side.bundle, str(side.first_block), str(side.end_block))
        case Outsider():
            return ("outsider", side.kind, str(side.level))
        case None:
            return ("nobody",)


def folds(pairs: Iterable[Pair], count: int, seed: int) -> dict[Pair, int]:
    """A number below `count` for each pair; as many pairs with each as can be."""
    distinct = sorted(set(pairs))
    Random(seed).shuffle(distinct)
    return {pair: number % count for number, pair in enumerate(distinct)}


def draw(subjects: Sequence[Subject], cores: int, l2_bytes: int, rng: Random) -> tuple[Unit, Unit | Outsider | None]:
    """Who is to run together next on a machine of so many cores, two at least for anybody to be beside the victim."""
    victim = rng.choice(subjects)
    variant, what = rng.randrange(victim.variants), rng.random()
    if cores == 1 or what < QUIET_SHARE:
        return victim.whole(variant, rng.randint(1, cores)), None
    if what < QUIET_SHARE + OUTSIDER_SHARE:
        return victim.whole(variant, 1), Outsider(*rng.choice(LADDER))
    width, beside = rng.randint(1, cores - 1), rng.choice(subjects)
    unit = beside.whole(rng.randrange(beside.variants), rng.randint(1, cores - width))
    if rng.random() >= WHOLE_SHARE and beside.divisible():
        unit = _range(beside, unit, PASSES_L2 * l2_bytes, rng)
    return victim.whole(variant, width), unit


def _range(subject: Subject, whole: Unit, least_bytes: int, rng: Random) -> Unit:
    """From the start of a layer to the end of one, wherever it is; no shorter than it takes to move `least_bytes`."""
    blocks, chosen = subject.manifest.blocks, subject.chosen(whole)
    starts = [number for number, block in enumerate(blocks) if not block.continues]
    first = rng.choice(starts)
    ends = [end for end in (*starts, len(blocks)) if end > first]
    moved = 0
    for end in range(first + 1, len(blocks) + 1):
        moved += blocks[end - 1].variants[chosen[end - 1]].traffic_bytes
        if moved >= least_bytes:
            ends = [each for each in ends if each >= end]
            break
    else:
        return whole
    return msgspec.structs.replace(whole, first_block=first, end_block=rng.choice(ends))


def sound(runs: Iterable[CoRun], subjects: Mapping[str, Subject]) -> tuple[list[CoRun], Discarded]:
    """Those to learn from, without times that cannot be true, and how much was left out."""
    kept, lost = [], Discarded()
    for run in runs:
        units = [side for side in (run.victim, run.beside) if isinstance(side, Unit)]
        if any(unit.bundle not in subjects or subjects[unit.bundle].digest != unit.digest for unit in units):
            lost += Discarded(stale=1)
        elif not (run.waited <= MOST_WAITED and run.intruded <= MOST_INTRUDED):
            lost += Discarded(disturbed=1)
        else:
            block_us = tuple(tuple(int(us) for us in plausible(times)) for times in run.block_us)
            lost += Discarded(absurd=sum(map(len, run.block_us)) - sum(map(len, block_us)))
            if all(len(times) >= LEAST_KEPT for times in block_us):
                kept.append(msgspec.structs.replace(run, block_us=block_us))
    return kept, lost


class Head(msgspec.Struct, frozen=True):
    """The first line of a file of co-runs."""

    schema_version: int
    fingerprint: str  # of the machine


def read(path: Path, fingerprint: str) -> list[CoRun]:
    """The co-runs of this machine; none where the file is missing, or of another machine or schema.

    Raises ProfileError for a file of another kind.
    """
    try:
        head, *lines = path.read_bytes().splitlines() or [b""]
        if msgspec.json.decode(head, type=Head) != Head(SCHEMA_VERSION, fingerprint):
            return []
        return [_decode(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise ProfileError(f"{path} holds no co-runs: {error}; remove it, they will be made again") from error


def write(path: Path, fingerprint: str, runs: Iterable[CoRun]) -> None:
    """In place of what is there, whole or not at all. Raises ProfileError."""
    lines = (Head(SCHEMA_VERSION, fingerprint), *runs)
    write_whole(b"".join(msgspec.json.encode(line) + b"\n" for line in lines), path)


_decode = msgspec.json.Decoder(CoRun).decode
