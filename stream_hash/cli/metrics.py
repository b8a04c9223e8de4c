"""metrics: what the server and its indexes say of themselves, for Prometheus."""

from __future__ import annotations

import signal

import click

from stream_hash import __version__
from stream_hash.cli.options import log_options, opened, server_options
from stream_hash.cli.output import note
from stream_hash.environment import Environment


@click.command(short_help="Serve metrics for Prometheus.")
@click.option("--listen", default="127.0.0.1:9464", show_default=True, metavar="HOST:PORT", help="Where to serve.")
@click.option("--once", is_flag=True, help="Print the metrics and leave.")
@log_options
@server_options
def metrics(environment: Environment, listen: str, once: bool) -> None:
    """Serve metrics in Prometheus's text format at http://HOST:PORT/metrics, until SIGTERM or Ctrl-C.

    One is enough for a server or cluster; a scrape reads a few numbers of each index and writes nothing. There is no
    password and no TLS: listen where only Prometheus can ask.

    \b
    Example:
      stream-hash metrics --once
      stream-hash metrics --listen 0.0.0.0:9464
    """
    from stream_hash.exporter import Exporter, MetricsServer, address, text

    host, port = address(listen)
    exporter = Exporter(lambda: opened(environment), __version__)
    if once:
        click.echo(text(exporter), nl=False)
        return
    exporter.look()  # a wrong URL is told now, and not by a number
    ends = (signal.SIGTERM, signal.SIGINT)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # from here on they are waited for, below
    try:
        server = MetricsServer(exporter, host, port)
        note(f"metrics at http://{listen.rpartition(':')[0]}:{server.port}/metrics")
        signal.sigwait(ends)
        server.close()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
