"""acl: accounts for a server's access control list."""

from __future__ import annotations

import click

from stream_hash.cli.output import line, note
from stream_hash.environment import role_password
from stream_hash.service.roles import ROLES, acl_user, default_user


@click.command(short_help="Print accounts of least privilege for the server.")
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@click.option("--index", metavar="NAME", help="Limit the accounts to one index. [default: every index]")
@click.option("--prefix", default="", help="What the names of the users begin with, before the role.")
@click.option("--setuser", is_flag=True, help="Print commands for redis-cli, in place of lines of an ACL file.")
def acl(roles: tuple[str, ...], index: str | None, prefix: str, setuser: bool) -> None:
    """Print accounts that may do what their role takes, and nothing else, for Redis 7.0, Valkey 7.2 or newer.

    Roles are reader, producer, worker, trainer and owner; without any, all of them, and `default`, so that the output
    is a whole ACL file. The password of a role is read from STREAM_HASH_READER_PASSWORD, or from the file that
    STREAM_HASH_READER_PASSWORD_FILE names, and so on, and printed as its SHA-256 hash. A user without a password is
    off. docs/security.md says what each role may do.

    \b
    Example:
      STREAM_HASH_READER_PASSWORD_FILE=reader.secret stream-hash acl reader --index photos >> users.acl
    """
    lines = []
    closed = []
    for role in roles or ("default", *ROLES):
        password = role_password(role)
        if role == "default":
            lines.append(default_user(password))
        else:
            lines.append(acl_user(role, index=index, prefix=prefix, password=password))
        if password is None:
            closed.append(role)
    for text in lines:
        line(text.replace("user ", "ACL SETUSER ", 1) if setuser else text)
    if closed:
        variables = ", ".join(f"STREAM_HASH_{role.upper()}_PASSWORD" for role in closed)
        note(f"off, for want of a password: {', '.join(closed)} (set {variables}, or each with _FILE)")
