"""The connection of the queue is opened when it is first asked for."""

from __future__ import annotations

from stream_hash.service.connections import Connections


class Client:
    """Stands for a connection."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_broker_is_opened_once_and_only_if_it_is_asked_for() -> None:
    client, opened = Client(), list[Client]()

    def open_broker() -> Client:
        opened.append(Client())
        return opened[-1]

    connections = Connections(client, None, open_broker=open_broker)
    connections.close()
    assert (client.closed, opened) == (True, [])
    assert connections.broker is connections.broker is opened[0]
    connections.close()
    assert (len(opened), opened[0].closed) == (1, True)
