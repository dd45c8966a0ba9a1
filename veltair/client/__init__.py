"""The client library: Client for plain programs, AsyncClient for asyncio."""

from veltair.client.aio import AsyncClient
from veltair.client.conversation import Reply
from veltair.client.sync import Client
from veltair.client.transport import LocalTransport, Transport

__all__ = ["AsyncClient", "Client", "LocalTransport", "Reply", "Transport"]
