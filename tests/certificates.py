"""Certificates for tests, made by openssl: an authority, and servers that it vouches for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import servers


class Certificate(NamedTuple):
    """Files in PEM."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates of servers. Its own is in `certificate`."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self.certificate, self._key = directory / f"{name}.pem", self._new_key(name)
        usage = "keyUsage=critical,keyCertSign,cRLSign"
        subject = ["-subj", f"/CN={name}", "-addext", usage]
        _openssl("req", "-x509", "-new", "-key", self._key, "-days", 2, *subject, "-out", self.certificate)

    def sign(self, name: str, hosts: str = "DNS:localhost,IP:127.0.0.1", *, days: int = 2) -> Certificate:
        """A server's certificate for these hosts. days : that it holds; below 0 it has run out."""
        key, request, signed = self._new_key(name), self._directory / f"{name}.csr", self._directory / f"{name}.pem"
        _openssl(
            "req", "-new", "-key", key, "-subj", f"/CN={name}", "-addext", f"subjectAltName={hosts}", "-out", request
        )
        signer = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-copy_extensions", "copy"]
        _openssl("x509", "-req", "-in", request, *signer, "-days", days, "-out", signed)
        return Certificate(signed, key)

    def _new_key(self, name: str) -> Path:
        key = self._directory / f"{name}.key"
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        return key


def _openssl(*words: object) -> None:
    program = shutil.which("openssl") or servers.missing("there is no openssl on PATH")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
