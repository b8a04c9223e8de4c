from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_hash.settings import IndexSettings
from stream_hash.storage.places import BLOCK, code_bytes, decode_places, encode_places, place_bytes, split_block


@given(st.data())
def test_places_keep_codes_of_any_length_and_signatures(data: st.DataObject) -> None:
    settings = IndexSettings(3, bits=data.draw(st.integers(1, 62)), tables=data.draw(st.integers(1, 5)))
    row = st.lists(st.integers(0, 2**settings.bits - 1), min_size=settings.tables, max_size=settings.tables)
    rows = data.draw(st.lists(st.tuples(row, st.integers(0, 2**39 - 1)), max_size=4))
    codes = np.array([codes for codes, _ in rows], np.uint64).reshape(len(rows), settings.tables)
    signatures = np.array([signature for _, signature in rows], np.uint64)
    places = encode_places(codes, signatures, settings)
    assert places.shape == (len(rows), 5 + settings.tables * code_bytes(settings))
    placed = decode_places(places, settings)
    assert placed.occupied.all()
    assert placed.codes.tolist() == codes.tolist()
    assert placed.signatures.tolist() == signatures.tolist()


def test_a_place_is_signature_and_codes_big_endian() -> None:
    settings = IndexSettings(3, bits=12, tables=2)
    places = encode_places(np.array([[0xABC, 0x1]], np.uint64), np.array([0x2122232425], np.uint64), settings)
    assert places.tobytes().hex() == "a122232425" + "0abc" + "0001"


def test_free_places_decode_as_free() -> None:
    settings = IndexSettings(3, bits=12, tables=2)
    for block in (None, b"", b"\0" * 7):
        places = split_block(block, settings)
        assert places.shape == (BLOCK, place_bytes(settings))
        assert not decode_places(places, settings).occupied.any()
