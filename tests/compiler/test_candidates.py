"""Which candidates a block has, by rule, on hand-made records."""

from dataclasses import dataclass, replace

from veltair.compiler.assemble import block_candidates
from veltair.compiler.blocks import Span
from veltair.compiler.candidates import candidate_lines
from veltair.compiler.line import Call, Line
from veltair.compiler.records import Ranked, Timed
from veltair.compiler.schedules.gemm import Gemm

KERNEL = Gemm(64, 64, 64, 16, 16)
FAST, WIDE, SLOW = {"mr": 8, "ru": 4, "order": 0}, {"mr": 4, "ru": 4, "order": 0}, {"mr": 1, "ru": 4, "order": 1}
SETTINGS: Ranked = [Timed(FAST, 10.0, 9.0), Timed(WIDE, 11.0, 5.0), Timed(SLOW, 90.0, 1.0)]


@dataclass(frozen=True)
class Coarse(Gemm):
    kind = "coarse"
    precision = "bf16"


def line_of(*others: Gemm) -> Line:
    first = Call(KERNEL, (0, 1, 2), "MatMul", tuple(Call(other, (0, 3, 2), "MatMul") for other in others))
    return Line(calls=[first, Call(replace(KERNEL, m=32), (2, 1, 4), "MatMul")])


def records_of(line: Line, **of_kind: Ranked) -> dict[str, Ranked]:
    return {form.kernel.key: of_kind.get(form.kernel.kind, SETTINGS) for call in line.calls for form in call.forms}


def test_each_rule_takes_the_knobs_its_purpose_asks_for() -> None:
    line = line_of()
    found = candidate_lines(line, records_of(line), {"fp32"})
    assert found["direct"][0].knobs == FAST
    assert found["wide"][0].knobs == WIDE  # quicker still on all cores, but too slow on one
    assert all(chosen.knobs != SLOW for calls in found.values() for chosen in calls)


def test_rules_that_agree_make_one_candidate() -> None:
    line = line_of()
    assert set(candidate_lines(line, records_of(line, gemm=SETTINGS[:1]), {"fp32"})) == {"direct"}


def test_a_coarser_kernel_stands_in_candidates_of_its_own() -> None:
    line = line_of(Coarse(64, 64, 64, 16, 16))
    found = candidate_lines(line, records_of(line, gemm=SETTINGS[:1], coarse=[Timed(FAST, 5.0, 3.0)]), {"fp32", "bf16"})
    assert [c.call.kernel.precision for c in found["direct"]] == ["fp32", "fp32"]
    assert [c.call.kernel.precision for c in found["bf16"]] == ["bf16", "fp32"]


def test_a_precision_that_was_not_asked_for_is_not_offered() -> None:
    line = line_of(Coarse(64, 64, 64, 16, 16))
    found = candidate_lines(line, records_of(line, coarse=[Timed(FAST, 5.0, 3.0)]), {"fp32"})
    assert {c.call.kernel.precision for calls in found.values() for c in calls} == {"fp32"}


def test_what_two_lines_agree_on_in_a_block_is_one_candidate_there() -> None:
    line = line_of(Coarse(64, 64, 64, 16, 16))
    lines = candidate_lines(line, records_of(line, gemm=SETTINGS[:1], coarse=[Timed(FAST, 5.0, 3.0)]), {"fp32", "bf16"})
    first, second = block_candidates(lines, [Span(0, 1, 0), Span(1, 2, 0)])
    assert [c.rules for c in first] == [("direct",), ("bf16",)]
    assert [c.rules for c in second] == [("direct", "bf16")]
    assert [c.exact for c in first] == [True, False]


def test_a_recorded_selection_leaves_only_its_rules() -> None:
    line = line_of()
    lines = candidate_lines(line, records_of(line), {"fp32"})
    (only,) = block_candidates(lines, [Span(0, 2, 0)], [["wide"]])
    assert [c.name for c in only] == ["wide"]


def test_where_a_coarser_kernel_saves_next_to_nothing_a_candidate_leaves_it_exact() -> None:
    line = line_of(Coarse(64, 64, 64, 16, 16))
    small = Coarse(1, 64, 64, 16, 16)
    line.calls.append(Call(replace(KERNEL, m=1), (4, 1, 5), "MatMul", (Call(small, (4, 3, 5), "MatMul"),)))
    records = records_of(line, gemm=SETTINGS[:1], coarse=[Timed(FAST, 5.0, 3.0)])
    records[small.key] = [Timed(FAST, 9.9, 8.0)]
    found = candidate_lines(line, records, {"fp32", "bf16"})
    assert [c.call.kernel.precision for c in found["bf16"]] == ["bf16", "fp32", "bf16"]
    assert [c.call.kernel.precision for c in found["bf16-some"]] == ["bf16", "fp32", "fp32"]


def test_the_parts_of_a_layer_are_left_exact_together_or_not_at_all() -> None:
    coarse = Coarse(64, 64, 64, 16, 16)
    whole = Call(KERNEL, (0, 1, 2), "MatMul", (Call(coarse, (0, 3, 2), "MatMul"),), parts=3)
    line = Line(calls=[replace(whole, part=p, others=tuple(replace(o, part=p, parts=3) for o in whole.others)) for p in range(3)])
    big = Coarse(640, 64, 64, 16, 16)
    line.calls.append(Call(replace(KERNEL, m=640), (2, 1, 4), "MatMul", (Call(big, (2, 3, 4), "MatMul"),)))
    records = records_of(line, gemm=SETTINGS[:1], coarse=[Timed(FAST, 9.82, 8.0)])
    records[big.key] = [Timed(FAST, 6.0, 3.0)]  # one part saves less than a fortieth of it all, three save more
    found = candidate_lines(line, records, {"fp32", "bf16"})
    of_parts = {tuple(c.call.kernel.precision for c in made[:3]) for name, made in found.items()}
    assert of_parts <= {("fp32",) * 3, ("bf16",) * 3}
