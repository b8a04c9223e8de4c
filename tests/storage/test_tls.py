"""TLS: a real server, and certificates of every kind."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import servers
from certificates import Authority, Certificate

from stream_hash import Index, Producer
from stream_hash.errors import ServerRefusedError, ServerUnreachableError, UsageError
from stream_hash.jobs import FUNCTIONS
from stream_hash.queue import HASH_QUEUE, broker, broker_for
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.settings import IndexSettings
from stream_hash.storage.certificates import tls_fault
from stream_hash.storage.connection import connect, is_cluster
from workers.base import StreamWorker


@dataclass
class Encrypted:
    """A server that speaks TLS on `port`, with certificates to choose from. admin : by a socket of its own."""

    directory: Path
    port: int
    authority: Authority
    admin: Any

    def url(self, user: str = "", host: str = "localhost", authority: Path | None = None, **options: object) -> str:
        every = {"ssl_ca_certs": authority or self.authority.certificate, **options}
        return f"rediss://{user}{host}:{self.port}/0?" + "&".join(f"{name}={value}" for name, value in every.items())

    def show(self, certificate: Certificate) -> None:
        files = ("tls-cert-file", certificate.certificate, "tls-key-file", certificate.key)
        self.admin.execute_command("CONFIG", "SET", *map(str, files))


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with tempfile.TemporaryDirectory(prefix="sh-") as directory:
        yield Authority(Path(directory))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Certificate:
    return authority.sign("good")


def options(port: int, authority: Authority, certificate: Certificate) -> dict[str, object]:
    return {
        "tls_port": port,
        "tls_cert_file": certificate.certificate,
        "tls_key_file": certificate.key,
        "tls_ca_cert_file": authority.certificate,
        "tls_auth_clients": "no",
    }


@pytest.fixture(scope="module")
def encrypted(authority: Authority, good: Certificate) -> Iterator[Encrypted]:
    (port,) = servers.free_ports(1)
    with (
        tempfile.TemporaryDirectory(prefix="sh-") as directory,
        servers.running_server(servers.path_redis_binary(), Path(directory), **options(port, authority, good)) as url,
        redis.Redis.from_url(url) as admin,
    ):
        yield Encrypted(Path(directory), port, authority, admin)


def test_the_index_and_its_queue_travel_encrypted(encrypted: Encrypted) -> None:
    connections = Connections.open(encrypted.url())
    Index.create("x", IndexSettings(4, bits=4), connections)
    with Producer("x", connections) as producer:
        producer.upsert_many(["a", "b"], np.eye(4)[:2])
    context = Context(connections)
    StreamWorker(HASH_QUEUE, connections.broker, functions=FUNCTIONS, context=context, signals=False).work(burst=True)
    assert Index("x", connections).query(np.eye(4)[1], k=1)[0].results[0].id == "b"
    for client in (connections.client, connections.broker):
        settings = client.connection_pool.connection_kwargs
        assert client.connection_pool.connection_class is redis.SSLConnection
        assert settings["ssl_ca_certs"] == str(encrypted.authority.certificate)


def test_an_authority_may_be_named_by_the_environment(encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = f"rediss://localhost:{encrypted.port}"
    with pytest.raises(ServerUnreachableError, match="no encrypted connection"):
        connect(plain)
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.authority.certificate))
    with connect(plain) as client:
        assert client.ping()


@pytest.mark.parametrize(
    ("kind", "why", "remedy"),
    [
        ("of another host", "Hostname mismatch", "the name that the certificate is for"),
        ("of another address", "IP address mismatch", "the name that the certificate is for"),
        ("of an unknown authority", "self-signed certificate in certificate chain", "ssl_ca_certs=FILE"),
        ("expired", "certificate has expired", "renew the server's certificate"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(
    encrypted: Encrypted, good: Certificate, tmp_path: Path, kind: str, why: str, remedy: str
) -> None:
    url = encrypted.url("me:hunter2@")
    if kind == "of another host":
        encrypted.show(encrypted.authority.sign("host", "DNS:elsewhere"))
    elif kind == "of another address":
        encrypted.show(encrypted.authority.sign("host", "DNS:localhost"))
        url = encrypted.url("me:hunter2@", host="127.0.0.1")
    elif kind == "of an unknown authority":
        url = encrypted.url("me:hunter2@", authority=Authority(tmp_path, "stranger").certificate)
    else:
        encrypted.show(encrypted.authority.sign("late", days=-1))
    try:
        with pytest.raises(ServerUnreachableError, match="no encrypted connection to rediss://me:\\*\\*\\*@") as caught:
            connect(url)
    finally:
        encrypted.show(good)
    assert why in caught.value.why
    assert remedy in caught.value.remedy
    assert "hunter2" not in f"{caught.value} {caught.value.why} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (9, "set this machine's clock, or"),
        (10, "if it holds, set"),
        (62, "this host"),
        (64, "this address"),
        (1, "sign"),
    ],
)
@pytest.mark.parametrize("under", ["__cause__", "__context__"])
def test_each_fault_of_a_certificate_has_its_remedy(code: int, remedy: str, under: str) -> None:
    """By the numbers of openssl's x509_vfy.h, wherever the client puts the error."""
    fault = ssl.SSLCertVerificationError(1, "no")
    fault.verify_code, fault.verify_message = code, "it is so"
    raised = redis.ConnectionError()
    setattr(raised, under, fault)
    found = tls_fault(raised)
    assert found is not None
    assert found[0] == "its certificate is refused: it is so"
    assert remedy in found[1]
    assert tls_fault(redis.ConnectionError()) is None


@pytest.mark.parametrize(
    ("reason", "why", "remedy"),
    [
        ("WRONG_VERSION_NUMBER", "not with TLS", "write redis://"),
        ("RECORD_LAYER_FAILURE", "not with TLS", "write redis://"),  # the same, by another openssl
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "CERTIFICATE_REQUIRED", "?ssl_certfile=FILE&ssl_keyfile=FILE"),
    ],
)
def test_each_fault_of_the_handshake_has_its_remedy(reason: str, why: str, remedy: str) -> None:
    fault = ssl.SSLError(1, "no")
    fault.library, fault.reason = "SSL", reason
    found = tls_fault(fault)
    assert found is not None
    assert (why in found[0], remedy in found[1]) == (True, True), found


def test_a_wrong_password_is_refused_over_tls_and_never_shown(encrypted: Encrypted) -> None:
    encrypted.admin.acl_setuser("me", enabled=True, passwords=["+right"], commands=["+@all"], keys=["*"])
    with connect(encrypted.url("me:right@")) as client:
        assert client.ping()
    with pytest.raises(ServerUnreachableError, match="refuses the user or password") as caught:
        connect(encrypted.url("me:hunter2@"))
    assert "hunter2" not in f"{caught.value} {caught.value.why} {caught.value.remedy}"


def test_a_server_may_ask_for_a_certificate_of_the_client(encrypted: Encrypted) -> None:
    encrypted.admin.config_set("tls-auth-clients", "yes")
    try:
        mine = encrypted.authority.sign("client")
        with connect(encrypted.url(ssl_certfile=mine.certificate, ssl_keyfile=mine.key)) as client:
            assert client.ping()
        with pytest.raises(ServerUnreachableError):
            connect(encrypted.url())
    finally:
        encrypted.admin.config_set("tls-auth-clients", "no")


def test_who_speaks_no_tls_is_told_of(encrypted: Encrypted) -> None:
    with socket.create_server(("localhost", 0)) as silent, pytest.raises(ServerUnreachableError) as caught:
        connect(f"rediss://localhost:{silent.getsockname()[1]}", timeout_seconds=0.2)
    assert "one that does not is redis://" in caught.value.remedy
    with chatting() as port, pytest.raises(ServerUnreachableError) as caught:
        connect(f"rediss://localhost:{port}")
    assert caught.value.why == "it answers, but not with TLS"
    with pytest.raises(ServerUnreachableError) as caught:
        connect(f"redis://localhost:{encrypted.port}")
    assert caught.value.remedy == "write rediss:// if the server speaks TLS", caught.value.why


@contextlib.contextmanager
def chatting() -> Iterator[int]:
    """The port of one who answers everything with the same few words."""
    with socket.create_server(("localhost", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as connection:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        connection.recv(4_096)

        thread = threading.Thread(target=answer)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_not_there_is_named(option: str) -> None:
    with pytest.raises(UsageError, match="/no/such") as caught:
        connect(f"rediss://me:hunter2@localhost:1/?{option}=/no/such.pem")
    assert option in caught.value.why
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "the key of another"])
def test_a_file_that_holds_something_else_is_told_of(
    encrypted: Encrypted, good: Certificate, tmp_path: Path, option: str
) -> None:
    (tmp_path / "no.pem").write_text("hello")
    files = {"ssl_certfile": good.certificate, "ssl_keyfile": good.key, option: tmp_path / "no.pem"}
    if option not in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        files = {"ssl_certfile": good.certificate, "ssl_keyfile": encrypted.authority.sign("other").key}
    with pytest.raises(ServerUnreachableError, match="no encrypted connection") as caught:
        connect(encrypted.url(**files))
    assert "a file that the URL names cannot be used" in caught.value.why
    assert "give PEM" in caught.value.remedy
    with pytest.raises(UsageError, match="names the file"):
        connect(encrypted.url(ssl_keyfile=tmp_path))


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_checks_cannot_be_switched_off_for_the_queue_either(encrypted: Encrypted, option: str) -> None:
    url = f"{encrypted.url()}&{option}"
    for urls in ((url, None), (encrypted.url(), url)):
        with pytest.raises(ServerRefusedError, match="switches certificate checks off"):
            _ = Connections.open(*urls).broker


def test_a_cluster_is_asked_with_the_same_certificates(
    authority: Authority, good: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = servers.free_ports(1)
    clustered = {"cluster_enabled": "yes", "tls_cluster": "yes", **options(port, authority, good)}
    monkeypatch.setattr(broker, "RQ_KEY_PREFIX", "{rq}")
    with (
        tempfile.TemporaryDirectory(prefix="sh-") as directory,
        servers.running_server(servers.path_redis_binary(), Path(directory), **clustered) as url,
        redis.Redis.from_url(url) as admin,
    ):
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        servers.wait_until(
            lambda: admin.cluster("info")["cluster_state"] == "ok", what="the cluster to serve its slots"
        )
        place = f"rediss://localhost:{port}"
        with connect(f"{place}?ssl_ca_certs={authority.certificate}") as client:
            assert is_cluster(client)
            assert client.set("a", "b")
            assert broker_for(client).ping()
        with broker_for(f"{place}?ssl_ca_certs={authority.certificate}") as queue:
            assert queue.connection_pool.connection_class is redis.SSLConnection
            assert queue.ping()
        with pytest.raises(ServerUnreachableError, match="no encrypted connection"):
            connect(place)
