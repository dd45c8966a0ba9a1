"""From co-runs to the times of this host: the trial, the choice, and what is chosen put down as tables."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from veltair.errors import ProfileError
from veltair.interference.corun import CoRun, Pair, folds, models_of, pair_of, sound
from veltair.interference.learnt import FOLDS, Learning, has_trees, learn_and_judge, trial
from veltair.interference.model import Host, Key, examples_of, questions, quiet_times
from veltair.interference.report import STRANGERS, figures
from veltair.interference.times import LEVELS, SCHEMA_VERSION, BundleTimes, HostTimes, VariantTimes

LEAST_PAIRS = 3 * FOLDS  # with fewer, a fold is too few of them to speak for others
NO_TREES = 'xgboost is not installed, so only tables were tried; pip install "veltair[calibrate]"'


def host_times(runs: Sequence[CoRun], host: Host, seed: int) -> HostTimes:
    """What to use on this host, and how good it is. `runs` may hold anything: what cannot be true is left out and counted.

    Raises ProfileError where too few pairs have run together to hold some of them out.
    """
    kept, discarded = sound(runs, host.subjects)
    together = [run for run in kept if run.beside is not None]
    pairs, models = [pair_of(run) for run in together], [models_of(run) for run in together]
    if len(set(pairs)) < LEAST_PAIRS:
        raise ProfileError(
            f"{len(set(pairs))} pairs have run together undisturbed, {LEAST_PAIRS} are needed to hold some of them out; "
            "calibrate for longer (--seconds), on two cores at least that nobody else uses"
        )
    quiet = quiet_times(kept, host)
    examples = examples_of(together, quiet, host)
    alone = examples_of([run for run in kept if run.beside is None], quiet, host)
    fold_of = _fold_of(pairs, seed)
    found = [*figures(list(trial(examples, alone, fold_of, seed)))]
    if len(set(models)) >= LEAST_PAIRS:
        strangers = list(trial(examples, alone, _fold_of(models, seed), seed))
        found += figures(strangers, of_all=STRANGERS, by_kind=False)
    learning = learn_and_judge(examples, alone, fold_of, 0, seed)
    return HostTimes(
        schema_version=SCHEMA_VERSION,
        fingerprint=host.profile.machine.fingerprint,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        versions={name: version(name) for name in ("veltair", "numpy", *(["xgboost-cpu"] if has_trees() else []))},
        bandwidth_bytes_per_us=host.bandwidth_bytes_per_us,
        levels=LEVELS,
        coruns=len(kept),
        pairs=len(set(pairs)),
        samples=sum(len(times) for run in kept for times in run.block_us),
        discarded=discarded,
        chosen=learning.chosen.names,
        figures=tuple(found),
        notes=() if has_trees() else (NO_TREES,),
        bundles={name: _tabulate(name, learning, quiet, host) for name in host.subjects},
    )


def _fold_of(pairs: Sequence[Pair], seed: int) -> list[int]:
    """Of each co-run, from its pair."""
    numbers = folds(pairs, FOLDS, seed)
    return [numbers[pair] for pair in pairs]


def _tabulate(name: str, learning: Learning, quiet: Mapping[Key, float], host: Host) -> BundleTimes:
    """All variants at all levels. More pressure never takes less: where it seems to, that is noise."""
    subject, cores = host.subjects[name], len(host.profile.machine.cores)
    forms = [[Key(name, b, v, 1) for v in range(len(block.variants))] for b, block in enumerate(subject.manifest.blocks)]
    keys = [key._replace(cores=c) for block in forms for key in block for c in host.spec(key)[1].latency_us if c < cores]
    levels = [learning.chosen.foretell(questions(keys, level, quiet, host)) for level in LEVELS]
    middle, late = (np.maximum.accumulate([level[i] for level in levels]) for i in (0, 1))
    rows = {key: (middle[:, i], late[:, i]) for i, key in enumerate(keys)}

    def times(form: Key) -> VariantTimes:
        found = {key.cores: rows[key] for key in rows if key[:3] == form[:3]}
        if cores in host.spec(form)[1].latency_us:  # nobody fits beside it: it loses to pressure as the next narrower one
            widest = form._replace(cores=cores)
            narrower = found[max(found)]
            scale = quiet.get(widest, host.table_us(widest, 0.0)) / narrower[0][0]
            found[cores] = (narrower[0] * scale, narrower[1] * scale)
        whole = {c: [tuple(max(1, round(us)) for us in each) for each in row] for c, row in sorted(found.items())}
        return VariantTimes({c: row[0] for c, row in whole.items()}, {c: row[1] for c, row in whole.items()})

    of_all = learning.by_bundle[""]
    return BundleTimes(
        subject.digest, learning.by_bundle.get(name, of_all), tuple(tuple(times(form) for form in block) for block in forms)
    )
