"""The records of a CSV file, looked at before they are parsed: counted, and without those whose quotes are not closed.

To a parser, a quote that is never closed begins a value that goes on for the rest of the file. Here a record ends with
its line, unless values are said to hold line breaks; what is left open there is left out, and known by its number.
"""

import io
import re
from pathlib import Path

from feature_store.contracts.errors import InvalidInput

# As Arrow reads them: a quote opens a value at its beginning, a doubled one within it is a quote, and what follows the
# closing one is plain text up to the comma. Quotes elsewhere are text.
_FIELD = rb'(?:"(?:[^"\r\n]++|"")*+"[^,\r\n]*+|[^",\r\n][^,\r\n]*+|)'
_LINE = _FIELD + rb"(?:," + _FIELD + rb")*+"
_IS_CLOSED = re.compile(_LINE).fullmatch
_ARE_CLOSED = re.compile(rb"(?:" + _LINE + rb"(?:\r\n|\r|\n))*+(?:" + _LINE + rb")?").fullmatch
_CLOSES = re.compile(rb'(?:[^"\r\n]++|"")*+"[^,\r\n]*+(?:,' + _FIELD + rb")*+").fullmatch
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_LINE = 64 << 20  # bytes


class CsvRecords(io.RawIOBase):
    """A CSV file as a parser should read it.

    Raises InvalidInput, naming the line, for text that is not UTF-8, for a header that leaves a quote open, and with
    newlines_in_values for a quote that is not closed until the file ends.
    """

    def __init__(self, path: Path, newlines_in_values: bool) -> None:
        super().__init__()
        self.count = 0  # records so far, without the header and blank lines
        self.unclosed: list[int] = []  # which of them, from 1, were left out
        self.bytes_read = 0
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._newlines = newlines_in_values
        self._line = 0
        self._opened: int | None = None  # the line on which an open value began
        self._header = True
        self._rest = b""  # a line that has not ended yet
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Up to that many bytes (size > 0) of whole records, empty at the end of the file."""
        while not self._ready:
            block = self._file.read(size)
            if not (block or self._rest):
                self._check_end()
                return b""
            self._ready = memoryview(self._sound(self._lines(block)))
        part, self._ready = self._ready[:size], self._ready[size:]
        return bytes(part)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()

    def _lines(self, block: bytes) -> bytes:
        """The lines that are complete with this block; the rest of them with an empty one, which ends the file."""
        if not self.bytes_read:
            block = block.removeprefix(_BYTE_ORDER_MARK)
        self.bytes_read += len(block)
        text = self._rest + block
        end = len(text)
        if block:  # a carriage return at the very end may be half of a line's end
            end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, len(text) - 1)) + 1
        self._rest = text[end:]
        if len(self._rest) > _LONGEST_LINE:
            raise InvalidInput(f"{self._path} has no line break in {len(self._rest)} bytes. Is it a text file?")
        return text[:end]

    def _sound(self, text: bytes) -> bytes:
        """The lines without those that must not be parsed."""
        self._check_encoding(text)
        lines = text.splitlines(keepends=True)
        if self._opened is None and not self._header and (b'"' not in text or _ARE_CLOSED(text)):
            self.count += sum(1 for line in lines if line[0] not in b"\r\n")
            self._line += len(lines)
            return text
        return b"".join(line for line in lines if self._keep(line.rstrip(b"\r\n")))

    def _keep(self, line: bytes) -> bool:
        self._line += 1
        if self._opened is not None:
            if _CLOSES(line):
                self._opened = None
            return True
        if not line:
            return True
        if self._header:
            return self._keep_header(line)
        self.count += 1
        if b'"' not in line or _IS_CLOSED(line):
            return True
        if self._newlines:
            self._opened = self._line
            return True
        self.unclosed.append(self.count)
        return False

    def _keep_header(self, line: bytes) -> bool:
        self._header = False
        if b"\0" in line:
            raise InvalidInput(f"{self._path} holds NUL bytes: is it UTF-16 text? Save it as UTF-8.")
        if not _IS_CLOSED(line):
            if not self._newlines:
                raise InvalidInput(f"{self._path}: a quote in the header, line {self._line}, is not closed. Close it.")
            self._opened = self._line
        return True

    def _check_encoding(self, text: bytes) -> None:
        try:
            text.decode()
        except UnicodeDecodeError as error:
            line = self._line + len(text[: error.start + 1].splitlines())
            raise InvalidInput(
                f"{self._path} is not UTF-8 text (byte 0x{text[error.start]:02x} on line {line}). Save it as UTF-8."
            ) from None

    def _check_end(self) -> None:
        if self._opened is not None:
            raise InvalidInput(
                f"{self._path}: a quote that is opened on line {self._opened} is not closed before the file ends. "
                "Close it; or import without --newlines-in-values, then only the rows with such a quote are left out."
            )
