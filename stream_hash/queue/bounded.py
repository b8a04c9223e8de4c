"""Reading from keys that anybody may have written.

`read_fields` looks at a hash's type and at the length of each wanted field before it reads any of them, in
one script: nothing can grow in between, and a hostile field of 500 MB stays on the server.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

READ_FIELDS: Final = """
local kind = redis.call('TYPE', KEYS[1])
if type(kind) == 'table' then kind = kind['ok'] end
if kind == 'none' then return '' end
if kind ~= 'hash' then return 'it is a ' .. kind end
for i = 2, #ARGV do
    if redis.call('HSTRLEN', KEYS[1], ARGV[i]) > tonumber(ARGV[1]) then
        return 'its field ' .. ARGV[i] .. ' is longer than ' .. ARGV[1] .. ' bytes'
    end
end
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
"""


def read_fields(connection: Any, key: str | bytes, fields: Sequence[str], limit_bytes: int) -> Any:
    """Send the read of `fields` of the hash at `key`, as EVAL so that it may stand in a pipeline.

    The reply is the list of values (None where a field is missing), or bytes: why there is none, and empty
    when the key does not exist.
    """
    return connection.eval(READ_FIELDS, 1, key, limit_bytes, *fields)


def decompress(raw: bytes, limit_bytes: int) -> bytes:
    """The zlib stream `raw`, decompressed. Raises ValueError when it is none or longer than `limit_bytes`."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(raw, limit_bytes)
    except zlib.error as error:
        raise ValueError(f"it is not a zlib stream: {error}") from error
    if not stream.eof:
        raise ValueError(f"it is cut short, or decompresses to more than {limit_bytes} bytes")
    return text
