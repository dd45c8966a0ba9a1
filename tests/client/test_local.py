"""A program that uses a client can be tested without a server."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from veltair.client import AsyncClient, Client, LocalTransport
from veltair.errors import DeadlineUnmeetable, UnknownModel


def double(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"y": inputs["x"] * 2}


def refuse(inputs: Mapping[str, Any]) -> dict[str, Any]:
    raise DeadlineUnmeetable("too busy", earliest_ms=40.0)


MODELS = {"double": double, "refuse": refuse}


def test_a_function_answers_in_place_of_a_model() -> None:
    with Client(transport=LocalTransport(MODELS)) as client:
        np.testing.assert_array_equal(client.infer("double", {"x": [1, 2]}).outputs["y"], [2, 4])
        assert [model.name for model in client.models()] == ["double", "refuse"]
        assert client.health().state == "serving"


def test_its_errors_are_the_clients_errors() -> None:
    with Client(transport=LocalTransport(MODELS)) as client:
        with pytest.raises(DeadlineUnmeetable, match="too busy") as refused:
            client.infer("refuse", {"x": [1]})
        assert refused.value.earliest_ms == 40.0
        with pytest.raises(UnknownModel, match="'none' is not served; served: double, refuse"):
            client.infer("none", {"x": [1]})


def test_the_asynchronous_client_answers_many_at_once() -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(transport=LocalTransport(MODELS)) as client:
            replies = await asyncio.gather(*(client.infer("double", {"x": [n]}) for n in range(20)))
        return [int(reply.outputs["y"][0]) for reply in replies]

    assert asyncio.run(ask()) == [2 * n for n in range(20)]
