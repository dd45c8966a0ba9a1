"""What every block keeps of its candidates: chosen from measurements, or as the records remember it."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from veltair.compiler.form import Form
from veltair.compiler.records import Records
from veltair.compiler.select import Candidate, Selection, select


def fingerprint(form: Form, precisions: Collection[str]) -> str:
    """Names what `choose` has to choose from."""
    settings = {rule: [c.setting for c in calls] for rule, calls in form.lines.items()}
    cuts = [(span.first, span.end) for span in form.spans]
    return hashlib.sha256(repr((settings, cuts, sorted(precisions))).encode()).hexdigest()[:16]


def kept_rules(form: Form, records: Records) -> list[list[str]] | None:
    """Block by block, what an earlier compile kept of the same candidates; None where there was none, or not such."""
    known = records.selections.get(form.fingerprint)
    if known is None:
        return None
    try:
        kept = [[str(name) for name in block["kept"]] for block in known]
        if len(kept) == len(form.spans) and all(names and set(names) <= form.lines.keys() for names in kept):
            for block, names in zip(known, kept, strict=True):
                Selection.from_data(block, names)
            return kept
    except (LookupError, TypeError, ValueError, AttributeError):
        pass  # a cache: what is damaged is measured again
    del records.selections[form.fingerprint]
    return None


def remembered(form: Form, known: Sequence[Mapping[str, Any]]) -> list[Selection]:
    """The earlier choice, less what the gate rejects now."""
    chosen = []
    for layer in _layers(form):
        rejected = _rejected(form, layer)
        for block in layer:
            found = Selection.from_data(known[block], [c.name for c in form.blocks[block]])
            chosen.append(replace(found, kept=tuple(v for v in found.kept if v not in rejected)))
    return chosen


def remember(forms: Sequence[Form], records: Records, described: Mapping[str, str], folder: Path, name: str) -> None:
    """Write what was chosen beside the kernels' records, if any of it is new.

    A choice from which the gate took something is not remembered: it depends on the weights, which the fingerprint does not.
    """
    new = [form for form in forms if form.fingerprint not in records.selections and not _objected(form)]
    for form in new:
        data = [c.as_data([x.name for x in block]) for c, block in zip(form.chosen, form.blocks, strict=True)]
        records.selections[form.fingerprint] = data
    if new:
        known = [form.fingerprint for form in forms if form.fingerprint in records.selections]
        records.write(folder, name, described, known)


def _objected(form: Form) -> bool:
    return form.verdict is not None and bool(form.verdict.rejected)


def choose(form: Form) -> list[Selection]:
    """What each block keeps of the candidates that passed the gate; all blocks of a layer in parts keep the same."""
    return [found for layer in _layers(form) for found in [_choose_for(form, layer)] * len(layer)]


def _layers(form: Form) -> Iterator[list[int]]:
    """The blocks, those of a layer in parts together."""
    layer = [0]
    for block in range(1, len(form.spans)):
        if not form.spans[block].continues:
            yield layer
            layer = []
        layer.append(block)
    yield layer


def _rejected(form: Form, layer: Sequence[int]) -> dict[int, str]:
    """Candidate -> why the gate rejected it in any of the layer's blocks."""
    assert form.verdict is not None
    return {v: why for (block, v), why in form.verdict.rejected.items() if block in layer}


def _choose_for(form: Form, layer: Sequence[int]) -> Selection:
    assert form.measured is not None
    rejected = _rejected(form, layer)
    candidates = form.blocks[layer[0]]
    places = [v for v in range(len(candidates)) if v not in rejected]
    found = select(
        [
            Candidate(
                candidates[v].name,
                tuple(map(sum, zip(*(form.measured.at_points(b, v) for b in layer), strict=True))),
                max(form.measured.pressure[b][v] for b in layer),
                candidates[v].exact,
            )
            for v in places
        ]
    )
    return found.moved(places, {candidates[v].name: why for v, why in rejected.items()})
