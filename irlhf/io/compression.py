"""Read and write gzip, zstandard, bzip2 and xz files. Equal rows are compressed to equal bytes."""

import bz2
import gzip
import io
import lzma
import shutil
import sys
import zlib
from pathlib import Path
from typing import IO, Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError, lzma.LZMAError)

_CHUNK = 2**20  # bytes
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zX"
_SKIPPED = b"\x2a\x4d\x18"  # bytes 2 to 4 of a skippable frame, such as pzstd writes first


def decompressed(raw: Any, head: bytes) -> tuple[Any, str]:
    """Return the decompressed stream and the name of the format; the raw stream and "" if it is not compressed."""
    if head.startswith(_GZIP):
        return gzip.open(raw, "rb"), "gzip"
    if head.startswith(_ZSTD) or head[1:4] == _SKIPPED:
        return zstd.ZstdFile(raw, "rb"), "zstandard"
    if head.startswith(_BZIP2):
        return io.BufferedReader(_Bzip2(raw)), "bzip2"
    if head.startswith(_XZ):
        return lzma.LZMAFile(raw, "rb"), "xz"
    return raw, ""


class _Bzip2(io.RawIOBase):
    """A bzip2 file whose damage is an EOFError, not an OSError without a number as in the standard library."""

    def __init__(self, raw: Any) -> None:
        self._file = bz2.BZ2File(raw, "rb")

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return whether the file can be read again."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer. Raises EOFError if the file is damaged."""
        try:
            return self._file.readinto(buffer)
        except OSError as error:
            if error.errno is None:
                raise EOFError("invalid data") from error
            raise


def compress(source: Path, target: Path) -> None:
    """Compress `source` to `target` by its suffix, without a time stamp, so that equal rows give equal bytes."""
    with source.open("rb") as rows, target.open("wb") as raw, _packer(raw, target.suffix) as packed:
        shutil.copyfileobj(rows, packed, _CHUNK)


def _packer(raw: IO[bytes], suffix: str) -> Any:
    if suffix == ".zst":
        return zstd.ZstdFile(raw, "wb", options={zstd.CompressionParameter.checksum_flag: 1})
    if suffix == ".bz2":
        return bz2.BZ2File(raw, "wb")
    if suffix == ".xz":
        return lzma.LZMAFile(raw, "wb")
    return gzip.GzipFile("", "wb", mtime=0, fileobj=raw)
