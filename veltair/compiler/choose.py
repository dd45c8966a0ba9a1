"""What every block keeps of its candidates: chosen from measurements, or as the records remember it."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from veltair.compiler.blocks import layers
from veltair.compiler.form import Form
from veltair.compiler.likeness import STRICTNESS
from veltair.compiler.records import Records
from veltair.compiler.select import Candidate, Selection, select


def fingerprint(form: Form, precisions: Collection[str]) -> str:
    """Names what `choose` has to choose from."""
    settings = {rule: [c.setting for c in calls] for rule, calls in form.lines.items()}
    cuts = [(span.first, span.end) for span in form.spans]
    return hashlib.sha256(repr((settings, cuts, sorted(precisions))).encode()).hexdigest()[:16]


def known_choice(form: Form, records: Records) -> Sequence[Mapping[str, Any]] | None:
    """What an earlier compile kept of the same candidates, block by block."""
    return records.selections.get(form.fingerprint) or records.selections.get(_of_these_weights(form))


def _of_these_weights(form: Form) -> str:
    """Names a choice from which the gate took something: it holds for these weights and this gate alone."""
    return f"{form.fingerprint}-{hashlib.sha256(repr((form.imported.source, STRICTNESS)).encode()).hexdigest()[:8]}"


def kept_rules(form: Form, records: Records) -> list[list[str]] | None:
    """Block by block, the rules whose candidates an earlier compile kept; None where there was none, or not such."""
    known = known_choice(form, records)
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
    for name in (form.fingerprint, _of_these_weights(form)):
        records.selections.pop(name, None)
    return None


def remembered(form: Form, known: Sequence[Mapping[str, Any]]) -> list[Selection]:
    """The earlier choice, less what the gate rejects now."""
    chosen = []
    for layer in layers(form.spans):
        rejected = _rejected(form, layer)
        for block in layer:
            found = Selection.from_data(known[block], [c.name for c in form.blocks[block]])
            chosen.append(replace(found, kept=tuple(v for v in found.kept if v not in rejected)))
    return chosen


def remember(forms: Sequence[Form], records: Records, described: Mapping[str, str], folder: Path, name: str) -> None:
    """Write what was chosen beside the kernels' records, if any of it is new."""
    new = False
    for form in forms:
        if known_choice(form, records) is None:
            objected = form.verdict is not None and form.verdict.rejected
            data = [c.as_data([x.name for x in block]) for c, block in zip(form.chosen, form.blocks, strict=True)]
            records.selections[_of_these_weights(form) if objected else form.fingerprint] = data
            new = True
    if new:
        names = [n for form in forms for n in (form.fingerprint, _of_these_weights(form)) if n in records.selections]
        records.write(folder, name, described, names)


def choose(form: Form) -> list[Selection]:
    """What each block keeps of the candidates that passed the gate; all blocks of a layer in parts keep the same."""
    return [found for layer in layers(form.spans) for found in [_choose_for(form, layer)] * len(layer)]


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
