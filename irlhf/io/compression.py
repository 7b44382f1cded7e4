"""Read and write gzip and zstandard files. Equal rows are compressed to equal bytes."""

import gzip
import shutil
import sys
import zlib
from pathlib import Path
from typing import IO, Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSED_SUFFIXES = (".gz", ".zst")
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)

_CHUNK = 2**20  # bytes
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPED = b"\x2a\x4d\x18"  # bytes 2 to 4 of a skippable frame, such as pzstd writes first


def decompressed(raw: Any, head: bytes) -> tuple[Any, str]:
    """Return the decompressed stream and the name of the format; the raw stream and "" if it is not compressed."""
    if head.startswith(_GZIP):
        return gzip.open(raw, "rb"), "gzip"
    if head.startswith(_ZSTD) or head[1:4] == _SKIPPED:
        return zstd.ZstdFile(raw, "rb"), "zstandard"
    return raw, ""


def compress(source: Path, target: Path) -> None:
    """Compress `source` to `target` by its suffix, without a time stamp, so that equal rows give equal bytes."""
    with source.open("rb") as rows, target.open("wb") as raw, _packer(raw, target.suffix) as packed:
        shutil.copyfileobj(rows, packed, _CHUNK)


def _packer(raw: IO[bytes], suffix: str) -> Any:
    if suffix == ".zst":
        return zstd.ZstdFile(raw, "wb", options={zstd.CompressionParameter.checksum_flag: 1})
    return gzip.GzipFile("", "wb", mtime=0, fileobj=raw)
