//! The tensor types of GGUF, widened to f32.
//!
//! A quantized tensor is a row of blocks, each of `block_len` weights in `block_bytes` bytes: one or two f16
//! scales (`d`, and `m` or `dmin` for types with an offset) and small integers `q`. A weight is
//!
//! - Q4_0, Q5_0, Q8_0: `d · q`, q signed;
//! - Q4_1, Q5_1: `d · q + m`, q unsigned;
//! - Q3_K, Q6_K: `(d · scale) · q`, one integer scale for 16 weights;
//! - Q2_K, Q4_K, Q5_K: `(d · scale) · q − (dmin · minimum)`, one scale and minimum for 16, 32 and 32 weights.
//!
//! Integers that are not whole bytes are split: the low bits of many weights share bytes, and so do the high
//! bits. The layouts are those of ggml (`ggml-quants.c`); the operations are in the order of the Python
//! package `gguf`, so that results are equal bit by bit.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Weights in a block of the `K` types.
const K: usize = 256;

/// Blocks that one task of the thread pool widens; a few hundred microseconds of work.
const BLOCKS_PER_TASK: usize = 1 << 12;

/// A tensor type this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl TensorType {
    /// All of them with their number in the file, name, weights in a block and bytes of a block.
    const ALL: [(Self, u32, &'static str, usize, usize); 13] = [
        (Self::F32, 0, "F32", 1, 4),
        (Self::F16, 1, "F16", 1, 2),
        (Self::Q4_0, 2, "Q4_0", 32, 18),
        (Self::Q4_1, 3, "Q4_1", 32, 20),
        (Self::Q5_0, 6, "Q5_0", 32, 22),
        (Self::Q5_1, 7, "Q5_1", 32, 24),
        (Self::Q8_0, 8, "Q8_0", 32, 34),
        (Self::Q2K, 10, "Q2_K", K, 84),
        (Self::Q3K, 11, "Q3_K", K, 110),
        (Self::Q4K, 12, "Q4_K", K, 144),
        (Self::Q5K, 13, "Q5_K", K, 176),
        (Self::Q6K, 14, "Q6_K", K, 210),
        (Self::Bf16, 30, "BF16", 1, 2),
    ];

    /// The type with this number in a GGUF file, if it is one this crate reads.
    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// The names of all types this crate reads, for messages.
    pub(crate) fn supported() -> String {
        Self::ALL.map(|row| row.2).join(", ")
    }

    /// Weights in a block and bytes of a block.
    pub(crate) fn block(self) -> (usize, usize) {
        Self::ALL
            .iter()
            .find(|row| row.0 == self)
            .map_or((1, 4), |row| (row.3, row.4))
    }

    /// Widens whole blocks. `out` is as long as the blocks of `bytes` say; what is longer stays as it is.
    pub(crate) fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => f32_from_le(bytes, out),
            Self::F16 => f16_from_le(bytes, out),
            Self::Bf16 => bf16_from_le(bytes, out),
            Self::Q4_0 => blocks(bytes, out, q4_0),
            Self::Q4_1 => blocks(bytes, out, q4_1),
            Self::Q5_0 => blocks(bytes, out, q5_0),
            Self::Q5_1 => blocks(bytes, out, q5_1),
            Self::Q8_0 => blocks(bytes, out, q8_0),
            Self::Q2K => blocks(bytes, out, q2_k),
            Self::Q3K => blocks(bytes, out, q3_k),
            Self::Q4K => blocks(bytes, out, q4_k),
            Self::Q5K => blocks(bytes, out, q5_k),
            Self::Q6K => blocks(bytes, out, q6_k),
        }
    }
}

/// What ggml calls the type with this number; the number itself if it is not known.
pub(crate) fn type_name(id: u32) -> String {
    let known = match id {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => {
            return TensorType::ALL
                .iter()
                .find(|row| row.1 == id)
                .map_or(id.to_string(), |row| row.2.to_owned());
        }
    };
    known.to_owned()
}

/// Little-endian f32.
pub(crate) fn f32_from_le(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}

/// Little-endian IEEE half precision. The pieces let `half` use the processor's conversion, where it has one.
pub(crate) fn f16_from_le(bytes: &[u8], out: &mut [f32]) {
    let mut piece = [f16::ZERO; 256];
    for (bytes, out) in bytes.chunks(512).zip(out.chunks_mut(256)) {
        for (bytes, value) in bytes.as_chunks::<2>().0.iter().zip(&mut piece) {
            *value = f16::from_le_bytes(*bytes);
        }
        if let Some(piece) = piece.get(..out.len()) {
            piece.convert_to_f32_slice(out);
        }
    }
}

/// Little-endian bfloat16: the upper half of an f32.
pub(crate) fn bf16_from_le(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = bf16::from_le_bytes(*bytes).to_f32();
    }
}

/// Widens `B`-byte blocks of `N` weights each, on all cores.
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    widen: impl Fn(&[u8; B], &mut [f32; N]) + Sync,
) {
    let (blocks, _) = bytes.as_chunks::<B>();
    let (out, _) = out.as_chunks_mut::<N>();
    blocks
        .par_chunks(BLOCKS_PER_TASK)
        .zip(out.par_chunks_mut(BLOCKS_PER_TASK))
        .for_each(|(blocks, out)| {
            for (block, out) in blocks.iter().zip(out) {
                widen(block, out);
            }
        });
}

/// The f16 whose low byte is at `at`.
fn half_at<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// d, 16 bytes of 4-bit q + 8: low halves are weights 0–15, high halves 16–31.
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for i in 0..16 {
        let q = block[2 + i];
        out[i] = d * (f32::from(q & 15) - 8.0);
        out[i + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

/// d, m, then q as in Q4_0 without the 8.
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for i in 0..16 {
        let q = block[4 + i];
        out[i] = d * f32::from(q & 15) + m;
        out[i + 16] = d * f32::from(q >> 4) + m;
    }
}

/// The 5-bit integers of Q5_0 and Q5_1: a u32 with one fifth bit a weight at `at`, then as Q4_0.
fn five_bits<const B: usize>(block: &[u8; B], at: usize, i: usize) -> (u8, u8) {
    let high = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let bit = |shift: usize| ((high >> shift & 1) as u8) << 4;
    let low = block[at + 4 + i];
    (low & 15 | bit(i), low >> 4 | bit(i + 16))
}

/// d, fifth bits, 4-bit halves of q + 16.
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for i in 0..16 {
        let (first, second) = five_bits(block, 2, i);
        out[i] = d * (f32::from(first) - 16.0);
        out[i + 16] = d * (f32::from(second) - 16.0);
    }
}

/// d, m, fifth bits, 4-bit halves of q.
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for i in 0..16 {
        let (first, second) = five_bits(block, 4, i);
        out[i] = d * f32::from(first) + m;
        out[i + 16] = d * f32::from(second) + m;
    }
}

/// d, 32 signed bytes.
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for i in 0..32 {
        out[i] = f32::from(block[2 + i] as i8) * d;
    }
}

/// 16 bytes of scale (low half) and minimum (high half), 64 bytes of 2-bit q, d, dmin.
/// Of the 128 weights of a half block, byte `i` holds weights i, i + 32, i + 64 and i + 96.
fn q2_k(block: &[u8; 84], out: &mut [f32; K]) {
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for group in 0..16 {
        let (half, shift, side) = (group / 8, group % 8 / 2 * 2, group % 2);
        let scale = d * f32::from(block[group] & 15);
        let minimum = dmin * f32::from(block[group] >> 4);
        for i in 0..16 {
            let q = block[16 + 32 * half + 16 * side + i] >> shift & 3;
            out[16 * group + i] = scale * f32::from(q) - minimum;
        }
    }
}

/// 32 bytes of third bits (set: nothing is subtracted; clear: 4 is), 64 bytes of low 2 bits as in Q2_K,
/// 12 bytes of 6-bit scales + 32, d.
fn q3_k(block: &[u8; 110], out: &mut [f32; K]) {
    let d = half_at(block, 108);
    for group in 0..16 {
        let (half, shift, side) = (group / 8, group % 8 / 2 * 2, group % 2);
        // Scales 0–7 have their low 4 bits in the low halves of the first 8 bytes, 8–15 in the high halves;
        // their upper 2 bits are in the last 4 bytes, four scales a byte.
        let low = block[96 + group % 8] >> (4 * (group / 8)) & 15;
        let high = block[104 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        for i in 0..16 {
            let q = block[32 + 32 * half + 16 * side + i] >> shift & 3;
            let third = block[16 * side + i] >> (group / 2) & 1;
            out[16 * group + i] = scale * (f32::from(q) - if third == 1 { 0.0 } else { 4.0 });
        }
    }
}

/// Scale and minimum `group` (0–7) of Q4_K and Q5_K, 6 bits each, of the 12 bytes from byte 4 of the block.
fn scale_and_minimum<const B: usize>(block: &[u8; B], group: usize) -> (f32, f32) {
    let at = |i: usize| block[4 + i];
    let (scale, minimum) = if group < 4 {
        (at(group) & 63, at(group + 4) & 63)
    } else {
        let low = at(group + 4);
        (
            low & 15 | at(group - 4) >> 6 << 4,
            low >> 4 | at(group) >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

/// d, dmin, 12 bytes of scales and minima, 128 bytes of 4-bit q: each 32 bytes hold 64 weights, low halves
/// first.
fn q4_k(block: &[u8; 144], out: &mut [f32; K]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for group in 0..8 {
        let (scale, minimum) = scale_and_minimum(block, group);
        let (scale, minimum) = (d * scale, dmin * minimum);
        for i in 0..32 {
            let q = block[16 + group / 2 * 32 + i] >> (4 * (group % 2)) & 15;
            out[32 * group + i] = scale * f32::from(q) - minimum;
        }
    }
}

/// As Q4_K, with 32 bytes of fifth bits (bit `group` of byte `i`) before the 4-bit halves.
fn q5_k(block: &[u8; 176], out: &mut [f32; K]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for group in 0..8 {
        let (scale, minimum) = scale_and_minimum(block, group);
        let (scale, minimum) = (d * scale, dmin * minimum);
        for i in 0..32 {
            let low = block[48 + group / 2 * 32 + i] >> (4 * (group % 2)) & 15;
            let fifth = block[16 + i] >> group & 1;
            out[32 * group + i] = scale * f32::from(low | fifth << 4) - minimum;
        }
    }
}

/// 128 bytes of low 4 bits, 64 bytes of high 2 bits, 16 signed scales, d; q is stored + 32.
/// Of the 128 weights of a half block: low halves of 64 bytes, then their high halves; the high bits lie as
/// the 2-bit integers of Q2_K.
fn q6_k(block: &[u8; 210], out: &mut [f32; K]) {
    let d = half_at(block, 208);
    for group in 0..16 {
        let (half, quarter, side) = (group / 8, group % 8 / 2, group % 2);
        let scale = d * f32::from(block[192 + group] as i8);
        for i in 0..16 {
            let low =
                block[64 * half + 32 * (quarter % 2) + 16 * side + i] >> (4 * (quarter / 2)) & 15;
            let high = block[128 + 32 * half + 16 * side + i] >> (2 * quarter) & 3;
            out[16 * group + i] = scale * (f32::from(low | high << 4) - 32.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fixture of `oracles/gguf_dequant.py`: records of type number, blocks' byte length, bytes, expected f32,
    /// all little-endian.
    fn records() -> Vec<(u32, Vec<u8>, Vec<u32>)> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dequant.bin");
        let file = std::fs::read(path).unwrap();
        let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let (mut at, mut records) = (0, Vec::new());
        while at < file.len() {
            let (id, bytes, weights) =
                (number(at), number(at + 4) as usize, number(at + 8) as usize);
            let data = file[at + 12..at + 12 + bytes].to_vec();
            let expected = (0..weights)
                .map(|i| number(at + 12 + bytes + 4 * i))
                .collect();
            records.push((id, data, expected));
            at += 12 + bytes + 4 * weights;
        }
        records
    }

    #[test]
    fn every_type_equals_the_reference_bit_by_bit() {
        let records = records();
        let ids: Vec<u32> = records.iter().map(|record| record.0).collect();
        assert_eq!(ids, [0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 30]);
        for (id, bytes, expected) in records {
            let kind = TensorType::from_id(id).unwrap();
            let (block_len, block_bytes) = kind.block();
            assert_eq!(
                bytes.len() / block_bytes * block_len,
                expected.len(),
                "{kind:?}"
            );
            let mut out = vec![f32::NAN; expected.len()];
            kind.dequantize(&bytes, &mut out);
            for (i, (got, want)) in out.iter().zip(&expected).enumerate() {
                let want = f32::from_bits(*want);
                assert_eq!(
                    got.to_bits(),
                    want.to_bits(),
                    "{kind:?} weight {i}: {got} instead of {want}"
                );
            }
        }
    }

    #[test]
    fn pieces_of_half_floats_join_without_a_seam() {
        // 1.0 in f16 is 0x3c00; 600 values are two pieces and a bit.
        let bytes: Vec<u8> = (0..600u16)
            .flat_map(|i| (0x3c00 + i).to_le_bytes())
            .collect();
        let mut out = vec![0.0; 600];
        f16_from_le(&bytes, &mut out);
        for (i, value) in out.iter().enumerate() {
            assert_eq!(*value, 1.0 + i as f32 / 1024.0);
        }
    }

    #[test]
    fn types_that_are_not_read_have_names() {
        assert!(TensorType::from_id(23).is_none());
        assert_eq!(type_name(23), "IQ4_XS");
        assert_eq!(type_name(12), "Q4_K");
        assert_eq!(type_name(77), "77");
    }
}
