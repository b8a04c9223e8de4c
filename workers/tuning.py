"""What a worker process asks of the libraries beneath it, once. Only for a process of our own."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

LARGEST_BUFFER_BYTES = 31 * 1024 * 1024


def tune() -> None:
    """Without both, a hash worker on two cores takes five times the processor time for the same work."""
    # One process, one thread. Hashing a batch takes BLAS a tenth of a millisecond; the threads it would start for
    # that spin on for longer, and take the processor from the other workers and the server.
    threadpool_limits(1)
    # A batch passes through buffers of half a megabyte and more. glibc gives each back to the kernel when it is
    # freed, and the next is zeroed page by page. It keeps what is smaller than the largest block ever freed, up
    # to 32 MB (mallopt(3), M_MMAP_THRESHOLD): this frees one, which was never touched. Elsewhere it does nothing.
    np.empty(LARGEST_BUFFER_BYTES, dtype=np.uint8)
