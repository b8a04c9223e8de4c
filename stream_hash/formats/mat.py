"""mat: a MATLAB 5.0 file (`save -v7`, `scipy.io.savemat`): X, and perhaps X_class and ids.

X has the vectors as rows; X_class the shape (1, n), (n, 1) or, as rows of characters, (n, width); the same
holds for ids. Compressed variables are expanded to a temporary file first, because MATLAB stores columns
and vectors are rows.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO, cast

import numpy as np

from stream_hash.errors import FormatError
from stream_hash.formats.columns import Column, StridedRows, TextRows, flat_length
from stream_hash.formats.inflated import Inflated
from stream_hash.formats.mat_elements import (
    CHARACTER_CLASS,
    FILE_HEADER_BYTES,
    NESTED_CLASSES,
    NUMERIC_CLASSES,
    TEXT_TYPES,
    Variable,
    broken,
    byte_order,
    value_type,
    variables,
)
from stream_hash.formats.opening import COPY_BYTES, Readable, read_exactly, rewindable, spool
from stream_hash.formats.records import MAX_EXPANDED_BYTES, Chunk, Rejected, shown
from stream_hash.formats.tables import Table, chunks
from stream_hash.formats.values import check_vectors

VECTORS, LABELS, IDS = "X", "X_class", "ids"


def read(
    file: BinaryIO, name: str, *, labels: bool, chunk_items: int, limit: int | None, dimension: int | None
) -> Iterator[Chunk | Rejected]:
    """The rows of a MATLAB 5.0 file. Raises FormatError when it is none, or its arrays are unusable."""
    with rewindable(file, name) as (whole, size), ExitStack() as stack:
        table = _File(whole, size, name, stack).table(labels=labels)
        yield from chunks(table, chunk_items=chunk_items, limit=limit, dimension=dimension)


class _File:
    """The arrays of one file; `stack` closes the temporary files they are expanded to."""

    def __init__(self, file: BinaryIO, size: int, name: str, stack: ExitStack) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._stack = stack
        file.seek(0)
        self._order = byte_order(file.read(FILE_HEADER_BYTES), name)
        self._expanded = 0

    def table(self, *, labels: bool) -> Table:
        found = self._find({VECTORS, IDS} | ({LABELS} if labels else set()))
        vectors = found[VECTORS]
        what = f"{VECTORS} of {self._name}"
        self._check_plain(vectors)
        if vectors.class_ == CHARACTER_CLASS:
            raise broken(self._name, f"{VECTORS} is text")
        dtype = value_type(vectors, self._order, self._name)
        check_vectors(vectors.shape, dtype, what)
        shape = cast("tuple[int, int]", vectors.shape)
        return Table(
            self._name,
            StridedRows(*self._values(vectors), shape, dtype, what),
            ids=self._beside(found.get(IDS)),
            labels=self._beside(found.get(LABELS)),
        )

    def _find(self, wanted: set[str]) -> dict[str, Variable]:
        found: dict[str, Variable] = {}
        others: list[str] = []
        for variable in variables(self._file, self._size, self._order, self._name):
            if variable.name in found:
                raise broken(self._name, f"it holds {variable.name} twice")
            if variable.name in wanted:
                found[variable.name] = variable
            elif len(others) < 10:
                others.append(variable.name)
        if VECTORS not in found:
            raise FormatError(
                f"{self._name} has no variable {VECTORS}",
                why=f"it holds {shown(others)}",
                remedy="name the array of vectors X, with a vector in each row, and save the file again",
            )
        return found

    def _beside(self, variable: Variable | None) -> Column | None:
        if variable is None:
            return None
        self._check_plain(variable)
        if variable.class_ == CHARACTER_CLASS:
            return self._text(variable)
        dtype = value_type(variable, self._order, self._name)
        shape = (flat_length(variable.shape, variable.name, self._name), 1)
        return StridedRows(*self._values(variable), shape, dtype, f"{variable.name} of {self._name}")

    def _check_plain(self, variable: Variable) -> None:
        kind, function = "", ""
        if variable.complex_:
            kind, function = "complex", "real"
        elif variable.logical:
            kind, function = "logical", "double"
        elif variable.class_ not in (*NUMERIC_CLASSES, CHARACTER_CLASS):
            kind, function = NESTED_CLASSES.get(variable.class_, (f"of class {variable.class_}", "single"))
        if kind:
            raise FormatError(
                f"{variable.name} of {self._name} is {kind}",
                why="full real arrays are read, and text as rows of characters",
                remedy=f"save {function}({variable.name}) under the same name",
            )

    def _values(self, variable: Variable) -> tuple[BinaryIO, int]:
        """A file that can seek, and where in it the values of `variable` begin."""
        if variable.compressed is None:
            return self._file, variable.offset
        self._expand(variable.value_bytes)
        copy = self._stack.enter_context(spool())
        for piece in self._pieces(variable):
            copy.write(piece)
        return copy, 0

    def _text(self, variable: Variable) -> TextRows:
        """Characters in whichever encoding, as columns of code points."""
        encoding = TEXT_TYPES.get(variable.stored)
        if encoding is None or len(variable.shape) != 2:
            raise broken(self._name, f"{variable.name} is text of type {variable.stored}, shape {variable.shape}")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self._order == "<" else "-be"
        self._expand(4 * variable.value_bytes)
        decoder = codecs.getincrementaldecoder(encoding)()
        copy = self._stack.enter_context(spool())
        count = 0
        try:
            for piece in self._pieces(variable):
                text = decoder.decode(piece)
                count += len(text)
                copy.write(text.encode("utf-32-le"))
            decoder.decode(b"", final=True)
        except UnicodeError as error:
            raise broken(self._name, f"{variable.name} is not {encoding}: {error}") from error
        if count != math.prod(variable.shape):
            raise broken(self._name, f"{variable.name} of shape {variable.shape} has {count:,} characters")
        return TextRows(StridedRows(copy, 0, variable.shape, np.dtype("<u4"), f"{variable.name} of {self._name}"))

    def _pieces(self, variable: Variable) -> Iterator[bytes]:
        """The bytes of the values, in pieces of bounded length."""
        source: Readable = self._file
        if variable.compressed is None:
            self._file.seek(variable.offset)
        else:
            source = Inflated(self._file, *variable.compressed, self._name)
            read_exactly(source, variable.offset, self._name)
        left = variable.value_bytes
        while left:
            piece = read_exactly(source, min(COPY_BYTES, left), self._name)
            left -= len(piece)
            yield piece
        if variable.compressed is not None and len(source.read(8)) == 8:  # reading on compares the checksum
            raise broken(self._name, f"{variable.name} expands to more than it claims")

    def _expand(self, more_bytes: int) -> None:
        self._expanded += more_bytes
        if self._expanded > MAX_EXPANDED_BYTES:
            raise FormatError(
                f"{self._name} expands to {self._expanded:,} bytes or more",
                why=f"the limit is {MAX_EXPANDED_BYTES:,}",
                remedy="split it, or save the vectors as npy",
            )
