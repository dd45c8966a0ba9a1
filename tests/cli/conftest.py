"""A server that commands ask, without one."""

import pytest
from served import Server

from veltair.cli import metrics, top


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """It does not answer before it is told what to say."""
    server = Server()
    for command in (metrics, top):
        monkeypatch.setattr(command, "Client", server.connected)
    return server
