"""A server as a client meets it, that says what it is told to say."""

from typing import Self

from veltair.errors import ServerUnreachable
from veltair.wire.messages import Health, ModelInfo


class Server:
    """`connected` stands in for `Client`. Without a `now` nothing answers."""

    now: Health | None = None
    endpoint = ""

    def connected(self, endpoint: str, timeout_ms: float) -> Self:
        self.endpoint = endpoint
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def health(self) -> Health:
        if self.now is None:
            raise ServerUnreachable(f"nothing answers at {self.endpoint}")
        return self.now

    def models(self) -> list[ModelInfo]:
        return [ModelInfo(name, (), (), 1, None, ()) for name in ("magika", "minilm")]
