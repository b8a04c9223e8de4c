"""What a URL may say, and what of it is shown."""

from __future__ import annotations

import traceback

import pytest

from stream_hash.errors import ServerRefusedError, UsageError
from stream_hash.storage.connection import connect
from stream_hash.storage.urls import REFUSED, redacted, refuse_password


@pytest.mark.parametrize(
    "option",
    [
        *("ssl_cert_reqs=none", "ssl_cert_reqs=NONE", "ssl_cert_reqs=no%6ee", "ssl_cert_reqs=no%256ee"),
        *("ssl%5Fcert_reqs=none", "SSL_CERT_REQS=None", "ssl_cert_reqs=optional", "db=0&ssl_cert_reqs=CERT_NONE"),
        *("ssl_check_hostname=false", "ssl_check_hostname=F", "ssl_check_hostname=N", "ssl_check_hostname=%46alse"),
        "ssl_cert_reqs=required&ssl_cert_reqs=none",
    ],
)
def test_a_url_that_switches_certificate_checks_off_is_refused_however_it_is_written(option: str) -> None:
    with pytest.raises(ServerRefusedError, match="certificate checks") as caught:
        connect(f"rediss://user:pass@localhost:1/0?{option}")
    assert "user:***@" in str(caught.value)


@pytest.mark.parametrize("name", [*REFUSED, "decode%5fresponses", "Decode_Responses"])
def test_an_option_that_breaks_what_we_read_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"sets {name.replace('%5f', '_').lower()}") as caught:
        connect(f"redis://localhost:1/0?{name}=3")
    assert caught.value.why
    assert "leave" in caught.value.remedy


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://user:se/c:r@et@host", "redis://user:***@host"),
        ("redis://host?password=secret&db=1", "redis://host?password=***&db=1"),
        ("redis://host?db=1&PASSWORD=secret", "redis://host?db=1&PASSWORD=***"),
        ("redis://host?pass%77ord=secret", "redis://host?pass%77ord=***"),
        ("redis://host?password=se#cret=1", "redis://host?password=***"),
        ("rediss://host?ssl_password=secret", "rediss://host?ssl_password=***"),
        ("redis://:se?cret@host", "redis://***"),
        ("redis://host:1?password=sec@ret", "redis://***"),
        ("se?cret@host", "***"),
    ],
)
def test_passwords_are_redacted_wherever_they_stand(url: str, shown: str) -> None:
    assert redacted(url) == shown
    with pytest.raises(UsageError) as caught:
        refuse_password(url, "STREAM_HASH_URL")
    assert caught.value.remedy == "set STREAM_HASH_URL instead"


@pytest.mark.parametrize(
    "url", ["redis://host:6379/0", "unix:///a/b?db=1", "rediss://user@host?ssl_ca_certs=%2Fca.pem"]
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert redacted(url) == url
    refuse_password(url, "STREAM_HASH_URL")
    refuse_password(None, "STREAM_HASH_URL")


def test_what_the_client_said_of_a_url_is_not_told_on_with_a_password_in_it() -> None:
    password = "/".join(("hun", "ter2"))
    with pytest.raises(UsageError) as caught:
        connect(f"redis://user:{password}@host:6379")
    told = "".join(traceback.format_exception(caught.value))
    assert "cannot be used" in told
    assert password.partition("/")[2] not in told.replace('"ter2"', "")
