"""CRC-32C of many pieces of a buffer at once: numpy takes two bytes of every piece in each round."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected (RFC 3720, appendix B.4)

Checksums = NDArray[np.uint32]


def masked_crc32c(buffer: NDArray[np.uint8], starts: NDArray[np.intp], lengths: NDArray[np.intp]) -> Checksums:
    """[n] checksums of the pieces, rotated and shifted as TFRecord files store them."""
    crc = crc32c(buffer, starts, lengths)
    masked: Checksums = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
    return masked


def crc32c(buffer: NDArray[np.uint8], starts: NDArray[np.intp], lengths: NDArray[np.intp]) -> Checksums:
    """[n] checksums of `buffer[start : start + length]` for n starts and lengths."""
    longest_first = np.argsort(-lengths, kind="stable")
    at, left = starts[longest_first], lengths[longest_first]
    crc = np.full(len(at), 0xFFFFFFFF, dtype=np.uint32)
    pairs = buffer[:-1].astype(np.uint16) | (buffer[1:].astype(np.uint16) << np.uint16(8))
    single, double = _table(8), _table(16)
    going = len(at)
    for taken in range(0, int(left[0]) if len(left) else 0, 2):
        while going and left[going - 1] < taken + 2:
            going -= 1
            if left[going] == taken + 1:
                last = int(crc[going]) ^ int(buffer[at[going] + taken])
                crc[going] = single[last & 0xFF] ^ np.uint32(int(crc[going]) >> 8)
        now = crc[:going]
        crc[:going] = double[(now ^ pairs[at[:going] + taken]) & np.uint32(0xFFFF)] ^ (now >> np.uint32(16))
    checksums = np.empty_like(crc)
    checksums[longest_first] = ~crc
    return checksums


@cache
def _table(bits: int) -> Checksums:
    table = np.arange(1 << bits, dtype=np.uint32)
    for _ in range(bits):
        table = (table >> np.uint32(1)) ^ np.where(table & np.uint32(1), np.uint32(_POLYNOMIAL), np.uint32(0))
    return table
