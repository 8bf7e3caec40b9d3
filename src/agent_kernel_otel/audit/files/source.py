# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of an audit file come from: a file, or a stream that can be read only once."""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from agent_kernel_otel.audit.files.entries import AuditFileError, ChangedFileError, Position

if TYPE_CHECKING:
    from typing import BinaryIO

    from typing_extensions import Buffer

STANDARD_INPUT: Final = Path("-")
_BUFFER: Final = 256 * 1024


class Source:
    """A file or a stream: ``-`` is standard input, and a named pipe is a stream as well.

    Args:
        path: Where it is.

    Raises:
        AuditFileError: It is a directory, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = "standard input" if path == STANDARD_INPUT else str(path)
        self._stream: BinaryIO | None = None
        self._head = b""
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                self.fail("it is closed")
            self._stream = sys.stdin.buffer
            self.is_stream = True
            return
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                self.fail("it is a directory; name the files in it")
            self.is_stream = not stat.S_ISREG(mode)
            if self.is_stream:
                self._stream = path.open("rb")
        except OSError as error:
            self._fail_for(error)

    def fail(self, problem: str) -> NoReturn:
        """Say what is wrong with it.

        Raises:
            AuditFileError: Always.
        """
        raise AuditFileError(f"{self.name}: {problem}")

    def _fail_for(self, error: OSError) -> NoReturn:
        self.fail(f"it cannot be read: {error.strerror or type(error).__name__}")

    def look(self, size: int) -> tuple[bytes, bool]:
        """Its first bytes, which are still there for whoever opens it.

        Args:
            size: How many at most. Of a stream it is what one more read gives, which waits for
                the writer only as long as it has to.

        Returns:
            The bytes, and whether they are all there are.
        """
        try:
            if self._stream is not None:
                more = self._stream.read1(size)  # type: ignore[attr-defined]
                self._head += more
                return self._head, not more
            with self.path.open("rb") as file:
                head = file.read(size)
                return head, len(head) < size
        except OSError as error:
            self._fail_for(error)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it at its beginning; a stream only once.

        Raises:
            AuditFileError: It cannot be opened, or not be read any further.
        """
        try:
            with self._open() as file:
                yield file
        except OSError as error:
            self._fail_for(error)

    def _open(self) -> BinaryIO:
        if not self.is_stream:
            return self.path.open("rb", buffering=_BUFFER)
        stream, self._stream = self._stream, None
        if stream is None:
            self.fail("it is no file, and can be read only once")
        unread = _Unread(self._head, stream, is_shared=self.path == STANDARD_INPUT)
        return io.BufferedReader(unread, _BUFFER)

    def close(self) -> None:
        """Give a stream up that was not opened."""
        if self._stream is not None and self.path != STANDARD_INPUT:
            self._stream.close()
        self._stream = None

    def size(self) -> int | None:
        """How many bytes it has; ``None`` for a stream."""
        return None if self.is_stream else self.path.stat().st_size

    def position(self, offset: int, last: bytes, **where: int) -> Position:
        """A position by which the place is found again, and a changed file out.

        Args:
            offset: Byte at which to go on.
            last: The bytes just before it.
            where: How the format counts.
        """
        return {"offset": offset, **where, "length": len(last), "hash": _digest(last)}

    def check(self, file: BinaryIO, position: Position) -> bytes:
        """Go to a position.

        Args:
            file: The open file.
            position: Where to go.

        Returns:
            The bytes just before it that were read when it was taken.

        Raises:
            ChangedFileError: Something else is there now.
        """
        if self.is_stream:
            self.fail("it is no file, so that it cannot be gone on with from where it was left")
        offset, length = integer(self, position, "offset"), integer(self, position, "length")
        file.seek(max(0, offset - length))
        last = file.read(length)
        if len(last) < length:
            raise ChangedFileError(
                f"{self.name}: it is shorter than when it was last read; it was rotated, cut or "
                "written anew"
            )
        if _digest(last) != position.get("hash"):
            raise ChangedFileError(
                f"{self.name}: it no longer holds the record that was last read of it; it was "
                "rotated or written anew"
            )
        return last


def integer(source: Source, position: Position, name: str) -> int:
    """A number of a position.

    Raises:
        ChangedFileError: It has none by this name, so that it is of a file of another format.
    """
    value = position.get(name)
    if not isinstance(value, int) or value < 0:
        raise ChangedFileError(f"{source.name}: its format is another than when it was last read")
    return value


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


class _Unread(io.RawIOBase):
    """A stream with what was read of it already put back."""

    def __init__(self, head: bytes, stream: BinaryIO, *, is_shared: bool) -> None:
        self._head = io.BytesIO(head)
        self._stream = stream
        self._is_shared = is_shared

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        count = self._head.readinto(view)
        if count == 0:
            data: bytes = self._stream.read1(len(view))  # type: ignore[attr-defined]
            count = len(data)
            view[:count] = data
        return count

    def close(self) -> None:
        if not self._is_shared:
            self._stream.close()
        super().close()
