"""Nothing unchecked reaches a kernel."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tiny import ROWS, WIDTH, tiny_inputs, tiny_manifest

from veltair.config import TenantQos
from veltair.engine.intake import MAX_BUDGET_US, Intake
from veltair.engine.program import Program
from veltair.errors import BadDeadline, BadTensor, RequestError, UnknownModel, UnknownTenant
from veltair.wire.frames import frames_of, tensor_headers
from veltair.wire.messages import Infer

TINY = cast(Program, SimpleNamespace(bundle=SimpleNamespace(manifest=tiny_manifest())))
INTAKE = Intake(
    {"tiny": TINY, "secret": TINY}, [TenantQos("shop", "tiny", 5_000, 0.95), TenantQos("bank", "secret", 5_000, 0.95, "bf16")]
)


def infer(inputs: dict[str, Any], **changed: Any) -> tuple[Infer, list[Any]]:
    fields = {"request_id": "1", "tenant": "shop", "model": "tiny", "tensors": tensor_headers(inputs), **changed}
    message = Infer(**fields)
    return message, frames_of(message, inputs)[1:]


def test_a_good_request_passes_with_its_tensors_and_its_tenants_qos_as_budget() -> None:
    inputs = tiny_inputs()
    checked = INTAKE.check(*infer(inputs))
    assert checked.budget_us == 5_000
    assert checked.program is TINY
    for name, tensor in inputs.items():
        np.testing.assert_array_equal(checked.inputs[name], tensor)


def test_a_request_may_run_in_the_precision_that_its_tenant_was_promised() -> None:
    assert INTAKE.check(*infer(tiny_inputs())).promise.precision == "fp32"
    assert INTAKE.check(*infer(tiny_inputs(), tenant="bank", model="secret")).promise.precision == "bf16"


def test_a_deadline_of_its_own_goes_before_the_qos() -> None:
    assert INTAKE.check(*infer(tiny_inputs(), budget_us=7)).budget_us == 7


@pytest.mark.parametrize(
    ("message", "error", "complaint"),
    [
        (infer(tiny_inputs(), tenant="nobody"), UnknownTenant, "tenant 'nobody' is not known"),
        (infer(tiny_inputs(), model="none"), UnknownModel, "model 'none' is not served to 'shop'; served: tiny$"),
        (infer(tiny_inputs(), model="secret"), UnknownModel, "served: tiny$"),
        (infer(tiny_inputs(), budget_us=0), BadDeadline, "0 us"),
        (infer(tiny_inputs(), budget_us=-5), BadDeadline, "-5 us"),
        (infer(tiny_inputs(), budget_us=MAX_BUDGET_US + 1), BadDeadline, "is not within"),
        (infer({}), BadTensor, r"inputs \[\] were given; the model takes exactly \['ids', 'x'\]"),
        (infer(tiny_inputs() | {"z": np.zeros(1)}), BadTensor, "'z'"),
        (infer(tiny_inputs() | {"x": np.zeros((1, WIDTH))}), BadTensor, r"'x' is float64 \[1, 64\]; the model takes float32"),
        (infer(tiny_inputs() | {"x": np.zeros((2, WIDTH), "float32")}), BadTensor, r"\[2, 64\]"),
        (infer(tiny_inputs() | {"ids": np.array([ROWS], "int32")}), BadTensor, "from 16 to 16; they must be within 0..15"),
        (infer(tiny_inputs() | {"ids": np.array([-1], "int32")}), BadTensor, "from -1 to -1"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(message: tuple[Infer, list[Any]], error: type[RequestError], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        INTAKE.check(*message)
