"""What the kernel says of a process: Linux only."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """0 when there is no such process."""
    return _status(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most it ever had resident; 0 when there is no such process."""
    return _status(pid, "VmHWM")


def _status(pid: int, field: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    line = next((line for line in text.splitlines() if line.startswith(f"{field}:")), f"{field}: 0 kB")
    return 1_024 * int(line.split()[1])
