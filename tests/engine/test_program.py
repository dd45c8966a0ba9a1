"""A bundle runs as a straight line of kernels, and says which one failed."""

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tiny import TABLE, WEIGHT, tiny_answer, tiny_inputs, tiny_manifest

from veltair.bundle.format import CallSpec, Manifest, TensorSpec
from veltair.bundle.store import open_bundle, write_bundle
from veltair.engine.lanes import hold_cores, set_cores
from veltair.engine.program import Program
from veltair.errors import BundleCorrupt, EngineFailed


@pytest.fixture(scope="module")
def program(artifacts: Path) -> Program:
    return Program(open_bundle(artifacts / "tiny"))


@pytest.fixture
def all_cores_afterwards():
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def changed(artifacts: Path, folder: Path, manifest: Manifest) -> Path:
    weights = [(0, WEIGHT), (WEIGHT.nbytes, TABLE)]
    return write_bundle(folder, manifest, weights, artifacts / "tiny" / "blocks.so", {})


@pytest.mark.parametrize("variants", [(0, 0), (1, 0)])
def test_every_variant_gives_numpys_answer(program: Program, variants: tuple[int, ...]) -> None:
    arena, inputs = program.new_arena(), tiny_inputs()
    program.write_inputs(arena, inputs)
    times = program.run(arena, 0, 2, variants)
    np.testing.assert_allclose(program.read_outputs(arena)["y"], tiny_answer(**inputs), rtol=1e-5, atol=1e-5)
    assert len(times) == 2
    assert all(us >= 0 for us in times)


def test_a_request_may_pause_between_blocks_while_another_runs(program: Program) -> None:
    first, second = program.new_arena(), program.new_arena()
    program.write_inputs(first, tiny_inputs(1))
    program.write_inputs(second, tiny_inputs(2))
    program.run(first, 0, 1, (0,))
    program.run(second, 0, 2, (1, 0))
    program.run(first, 1, 2, (0,))
    for arena, seed in ((first, 1), (second, 2)):
        np.testing.assert_allclose(program.read_outputs(arena)["y"], tiny_answer(**tiny_inputs(seed)), rtol=1e-5, atol=1e-5)


def test_outputs_outlive_the_arena_they_came_from(program: Program) -> None:
    arena = program.new_arena()
    program.write_inputs(arena, tiny_inputs(1))
    program.run(arena, 0, 2, (0, 0))
    outputs = program.read_outputs(arena)
    program.release(arena)
    again = program.new_arena()
    assert again is arena
    program.write_inputs(again, tiny_inputs(2))
    program.run(again, 0, 2, (0, 0))
    np.testing.assert_allclose(outputs["y"], tiny_answer(**tiny_inputs(1)), rtol=1e-5, atol=1e-5)


def test_the_answer_is_the_same_on_one_core_and_on_all(program: Program, all_cores_afterwards: None) -> None:
    cores = tuple(sorted(os.sched_getaffinity(0)))
    answers = []
    for granted in (cores[:1], cores):
        set_cores(granted)
        assert os.sched_getaffinity(0) == set(granted)
        arena = program.new_arena()
        program.write_inputs(arena, tiny_inputs())
        program.run(arena, 0, 2, (1, 0))
        answers.append(program.read_outputs(arena)["y"])
    np.testing.assert_array_equal(*answers)


def test_a_lane_sits_on_the_first_of_its_cores_and_not_on_one_of_its_pools(all_cores_afterwards: None) -> None:
    cores = tuple(sorted(os.sched_getaffinity(0)))
    for granted in (cores, cores[::-1], cores[-1:]):
        hold_cores(granted)
        assert os.sched_getaffinity(0) == {granted[0]}


def test_a_failing_kernel_is_named_with_its_block_and_tvms_message(artifacts: Path, tmp_path: Path) -> None:
    manifest = tiny_manifest()
    wrong = TensorSpec("activation", "float32", (1, 32), 576)  # the kernel checks for 64
    tensors = (*manifest.tensors[:3], wrong, *manifest.tensors[4:])
    program = Program(open_bundle(changed(artifacts, tmp_path / "tiny", msgspec.structs.replace(manifest, tensors=tensors))))
    with pytest.raises(EngineFailed, match=r"block 'product', variant 'split', kernel 'tiny_product_split': .*Error"):
        program.run(program.new_arena(), 0, 2, (1, 0))


def test_a_kernel_that_the_library_lacks_is_found_when_loading(artifacts: Path, tmp_path: Path) -> None:
    manifest = tiny_manifest()
    variant = msgspec.structs.replace(manifest.blocks[1].variants[0], calls=(CallSpec("no_such_kernel", (0,)),))
    blocks = (manifest.blocks[0], msgspec.structs.replace(manifest.blocks[1], variants=(variant,)))
    bundle = open_bundle(changed(artifacts, tmp_path / "tiny", msgspec.structs.replace(manifest, blocks=blocks)))
    with pytest.raises(BundleCorrupt, match="no kernel 'no_such_kernel'"):
        Program(bundle)


@pytest.mark.parametrize(
    ("first", "end", "variants"), [(0, 3, (0, 0, 0)), (1, 1, ()), (0, 2, (0,)), (0, 2, (2, 0)), (-1, 1, (0, 0))]
)
def test_a_unit_that_does_not_exist_is_refused_before_any_pointer_is_followed(
    program: Program, first: int, end: int, variants: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="tiny"):
        program.run(program.new_arena(), first, end, variants)


def test_a_bundle_replaced_under_the_same_name_is_loaded_anew(artifacts: Path, tmp_path: Path) -> None:
    folder = changed(artifacts, tmp_path / "tiny", tiny_manifest())
    old = Program(open_bundle(folder))
    write_bundle(folder, open_bundle(artifacts / "slow").manifest, b"", artifacts / "slow" / "blocks.so", {})
    new = Program(open_bundle(folder))
    assert (old.name, new.name) == ("tiny", "slow")
    assert new.kernel("slow_add") != 0
