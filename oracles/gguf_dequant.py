"""Blocks of every GGUF tensor type that distil reads, and what the reference makes of them in float32.

Made with gguf==0.19.0 and numpy==2.4.6. Writes crates/model/tests/fixtures/dequant.bin: for each type a
record of little-endian u32 (type number, bytes, weights), the blocks' bytes, and the expected float32
values. The bytes are random, so that every bit of every field is used; only the float16 scales are kept
finite (NaN has no one bit pattern), with zero, subnormals, the largest value and both signs among them.
"""

import os

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

from common import REPOSITORY

BLOCKS = 6
# Where the float16 scales lie in a block.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}
EDGES = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF], dtype=np.uint16)


def finite_halves(random, count):
    """Random float16 bit patterns that are neither infinite nor NaN."""
    bits = random.integers(0, 1 << 16, size=count, dtype=np.uint16)
    return np.where(bits & 0x7C00 == 0x7C00, bits & 0xBFFF, bits).astype(np.uint16)


def example(kind, random):
    """Bytes of a few blocks, as rows of one block each."""
    if kind == Type.F32:
        values = np.concatenate([random.standard_normal(61), [0.0, -0.0, 1e-40]]).astype(np.float32)
        return values.view(np.uint8)
    if kind in (Type.F16, Type.BF16):
        bits = finite_halves(random, 600) if kind == Type.F16 else random.integers(0, 0x7F80, 600, dtype=np.uint16)
        bits[:2] = EDGES[:2]
        return bits.view(np.uint8)
    blocks = random.integers(0, 256, size=(BLOCKS, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for number, at in enumerate(SCALES[kind]):
        halves = finite_halves(random, BLOCKS)
        halves[number] = EDGES[(int(kind) + number) % len(EDGES)]
        blocks[:, at:at + 2] = halves.view(np.uint8).reshape(BLOCKS, 2)
    return blocks.reshape(-1)


def main():
    random = np.random.default_rng(0)
    record = []
    for kind in [Type.F32, Type.F16, *SCALES, Type.BF16]:
        data = example(kind, random)
        expected = np.ascontiguousarray(dequantize(data.reshape(1, -1), kind)).reshape(-1)
        assert expected.dtype == np.float32 and np.isfinite(expected).all(), kind
        record.append(np.array([int(kind), data.size, expected.size], dtype="<u4").tobytes())
        record += [data.tobytes(), expected.astype("<f4").tobytes()]
    path = REPOSITORY / "crates" / "model" / "tests" / "fixtures" / "dequant.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(b"".join(record))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    main()
