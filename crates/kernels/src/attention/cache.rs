//! Keys and values of sequences being generated.
//!
//! On the CPU two contiguous buffers a row and layer, written in place: values [g, capacity, e], keys
//! [g, capacity / 16, e, 16], 16 tokens side by side, so that their scores are sums of vectors
//! without a sum within one. On other devices a tensor a row and layer that grows by concatenation.
//!
//! A network of bf16 products has keys and values rounded to bf16, too: decoding reads all of them for
//! every token, and half the bytes take half the time. They are rounded before anything attends to
//! them, so that a prompt gives the same numbers in one pass and token by token.

use std::ops::Range;

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};

use super::{Heads, attend_packed, portable};
use crate::host::{on_host, primitive, values};
use crate::layer::Scratch;
use crate::math::{arch, exp, max_inner, sum_of, vectorised};
use crate::packed::round;
use crate::precision::Precision;
use crate::team::for_each_chunk;

/// The cache of a batch of rows.
#[derive(Debug)]
pub struct KvCache {
    heads: Heads,
    capacity: usize,
    precision: Precision,
    layers: usize,
    rows: Vec<Row>,
    /// What the layers' operations of one token leave to those of the next.
    pub(crate) scratch: Scratch,
}

/// One sequence.
#[derive(Debug)]
struct Row {
    /// Tokens held.
    length: usize,
    /// Keys and values of each layer; empty until the first token on the CPU.
    held: Vec<[Numbers; 2]>,
    /// Keys and values of each layer, on devices without host access.
    tensors: Vec<Option<(Tensor<2>, Tensor<2>)>>,
    /// The tokens of a step that continue it.
    segment: Option<Range<usize>>,
    space: Space,
    /// What attention gave, [tokens, h, e].
    out: Vec<f32>,
}

/// Numbers in the cache's format.
#[derive(Clone, Debug)]
enum Numbers {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

/// Tokens whose keys lie side by side.
const SIDE: usize = 16;

impl Numbers {
    fn new(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(Vec::new()),
            Precision::Bf16 | Precision::Int8 => Self::Bf16(Vec::new()),
        }
    }

    /// Makes place for `count` numbers.
    fn fit(&mut self, count: usize) {
        match self {
            Self::F32(numbers) => numbers.resize(count, 0.0),
            Self::Bf16(numbers) => numbers.resize(count, 0),
        }
    }

    /// Writes numbers `step` apart.
    fn write(&mut self, at: usize, step: usize, numbers: &[f32]) {
        match self {
            Self::F32(held) => {
                let held = held[at..].iter_mut().step_by(step);
                held.zip(numbers).for_each(|(held, &number)| *held = number);
            }
            Self::Bf16(held) => {
                let held = held[at..].iter_mut().step_by(step);
                held.zip(numbers)
                    .for_each(|(held, &number)| *held = round(number));
            }
        }
    }

    /// Calls `work` with the numbers of a range, block by block where they have to be widened, and the
    /// number of each block's first token. Every 16 tokens are `side` numbers. `wide` is working space.
    fn blocks(
        &self,
        range: Range<usize>,
        side: usize,
        wide: &mut Vec<f32>,
        mut work: impl FnMut(usize, &[f32]),
    ) {
        match self {
            Self::F32(held) => work(0, &held[range]),
            Self::Bf16(held) => {
                let sides = (WIDENED / side).max(1);
                wide.resize(sides * side, 0.0);
                for (block, held) in held[range].chunks(sides * side).enumerate() {
                    let wide = &mut wide[..held.len()];
                    vectorised(
                        #[inline(always)]
                        || {
                            for (wide, &held) in wide.iter_mut().zip(held) {
                                *wide = f32::from_bits(u32::from(held) << 16);
                            }
                        },
                    );
                    work(block * sides * SIDE, wide);
                }
            }
        }
    }
}

/// Numbers widened at a time: they stay in the first-level cache.
const WIDENED: usize = 4096;

impl KvCache {
    /// An empty cache for `rows` sequences of at most `capacity` tokens, of a network whose products
    /// have this precision.
    pub fn new(
        layers: usize,
        heads: Heads,
        rows: usize,
        capacity: usize,
        precision: Precision,
    ) -> Self {
        let row = |_| Row {
            length: 0,
            held: (0..layers)
                .map(|_| [0, 1].map(|_| Numbers::new(precision)))
                .collect(),
            tensors: vec![None; layers],
            segment: None,
            space: Space::default(),
            out: Vec::new(),
        };
        Self {
            heads,
            capacity: capacity.next_multiple_of(SIDE),
            precision,
            layers,
            rows: (0..rows).map(row).collect(),
            scratch: Scratch::default(),
        }
    }

    /// Sequences that it is for.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Tokens held for a row.
    pub fn length(&self, row: usize) -> usize {
        self.rows[row].length
    }

    /// Forgets a row, so that another sequence can take its place.
    pub fn clear(&mut self, row: usize) {
        let row = &mut self.rows[row];
        row.length = 0;
        row.tensors.fill(None);
    }

    /// Gives row `to` what row `from` holds: two sequences that begin alike.
    pub fn copy(&mut self, from: usize, to: usize) {
        let from = &self.rows[from];
        let (length, held, tensors) = (from.length, from.held.clone(), from.tensors.clone());
        let to = &mut self.rows[to];
        (to.length, to.held, to.tensors) = (length, held, tensors);
    }

    /// Appends each segment's keys and values to its row, then attends causally over the row.
    /// The new lengths count from the last layer's call on.
    ///
    /// # Shapes
    /// As [`super::attention`]; `rows[i]` is the cache row of `segments[i]`.
    ///
    /// # Panics
    /// If a row would exceed the capacity.
    pub fn attend(
        &mut self,
        layer: usize,
        [q, k, v]: [Tensor<2>; 3],
        segments: &[Range<usize>],
        rows: &[usize],
    ) -> Tensor<2> {
        self.check(segments, rows);
        let result = if on_host(&q) {
            self.attend_host(layer, [q, k, v], segments, rows)
        } else {
            self.attend_portable(layer, [q, k, v], segments, rows)
        };
        if layer + 1 == self.layers {
            self.extend(segments, rows);
        }
        result
    }

    fn attend_portable(
        &mut self,
        layer: usize,
        [q, k, v]: [Tensor<2>; 3],
        segments: &[Range<usize>],
        rows: &[usize],
    ) -> Tensor<2> {
        let [k, v] = match self.precision {
            Precision::F32 => [k, v],
            _ => [k, v].map(|x| Precision::Bf16.rounded(x)),
        };
        let mut parts = Vec::with_capacity(rows.len());
        for (segment, &row) in segments.iter().zip(rows) {
            let take = |x: &Tensor<2>| x.clone().narrow(0, segment.start, segment.len());
            let held = &mut self.rows[row];
            let (keys, values) = match held.tensors[layer].take() {
                Some((keys, values)) => (
                    Tensor::cat(vec![keys, take(&k)], 0),
                    Tensor::cat(vec![values, take(&v)], 0),
                ),
                None => (take(&k), take(&v)),
            };
            held.tensors[layer] = Some((keys.clone(), values.clone()));
            let past = held.length;
            parts.push(portable(take(&q), keys, values, self.heads, past));
        }
        Tensor::cat(parts, 0)
    }

    fn attend_host(
        &mut self,
        layer: usize,
        [q, k, v]: [Tensor<2>; 3],
        segments: &[Range<usize>],
        rows: &[usize],
    ) -> Tensor<2> {
        let [q, k, v] = [q, k, v].map(primitive);
        let n = segments.last().map_or(0, |segment| segment.end);
        let width = self.heads.query * self.heads.dimension;
        let mut out = vec![0.0; n * width];
        let qkv = [&q, &k, &v].map(values);
        self.attend_slices(layer, qkv, segments, rows, &mut out);
        Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(out, [n, width])))
    }

    /// As [`KvCache::attend`] on host slices, without moving the lengths on.
    pub(crate) fn attend_slices(
        &mut self,
        layer: usize,
        [q, k, v]: [&[f32]; 3],
        segments: &[Range<usize>],
        rows: &[usize],
        out: &mut [f32],
    ) {
        // Sequences without a past: the packed kernel's matrix products are the faster way.
        let fresh = rows.iter().all(|&row| self.rows[row].length == 0);
        let packed = fresh && segments.iter().any(|segment| segment.len() > 1);
        if packed {
            let rounded = match self.precision {
                Precision::F32 => None,
                Precision::Bf16 | Precision::Int8 => Some([k, v].map(rounded)),
            };
            let [k, v] = rounded
                .as_ref()
                .map_or([k, v], |kv| [&kv[0][..], &kv[1][..]]);
            attend_packed([q, k, v], segments, self.heads, out);
        }
        for row in &mut self.rows {
            row.segment = None;
        }
        for (segment, &row) in segments.iter().zip(rows) {
            self.rows[row].segment = Some(segment.clone());
        }
        let (heads, capacity) = (self.heads, self.capacity);
        let e = heads.dimension;
        let (width, kv_width) = (heads.query * e, heads.key_value * e);
        for_each_chunk(&mut self.rows, 1, |_, row| {
            let Row {
                length,
                held,
                segment,
                space,
                out,
                ..
            } = &mut row[0];
            let Some(segment) = segment.clone() else {
                return;
            };
            let [keys, values] = &mut held[layer];
            keys.fit(capacity * kv_width);
            values.fit(capacity * kv_width);
            let mut continued = Continued {
                heads,
                capacity,
                past: *length,
                keys,
                values,
            };
            let tokens = segment.start * kv_width..segment.end * kv_width;
            continued.append(&k[tokens.clone()], &v[tokens]);
            if !packed {
                out.resize(segment.len() * width, 0.0);
                let q = &q[segment.start * width..segment.end * width];
                continued.attend(q, space, out);
            }
        });
        if !packed {
            for (segment, &row) in segments.iter().zip(rows) {
                let out = &mut out[segment.start * width..segment.end * width];
                out.copy_from_slice(&self.rows[row].out);
            }
        }
    }

    /// The new tokens of a step count as held from now on.
    pub(crate) fn extend(&mut self, segments: &[Range<usize>], rows: &[usize]) {
        for (segment, &row) in segments.iter().zip(rows) {
            self.rows[row].length += segment.len();
        }
    }

    /// Refuses a step that does not fit.
    pub(crate) fn check(&self, segments: &[Range<usize>], rows: &[usize]) {
        for (segment, &row) in segments.iter().zip(rows) {
            let needed = self.rows[row].length + segment.len();
            assert!(needed <= self.capacity, "row {row} would exceed the cache");
        }
    }
}

/// `x` as it is held in bf16.
fn rounded(x: &[f32]) -> Vec<f32> {
    let number = |&x: &f32| f32::from_bits(u32::from(round(x)) << 16);
    x.iter().map(number).collect()
}

/// One row of the cache in one layer, while a step extends it.
struct Continued<'a> {
    heads: Heads,
    capacity: usize,
    /// Tokens held before this step.
    past: usize,
    keys: &'a mut Numbers,
    values: &'a mut Numbers,
}

impl Continued<'_> {
    /// Writes the keys and values [tokens, g, e] of new tokens behind the past.
    fn append(&mut self, k: &[f32], v: &[f32]) {
        let (g, e) = (self.heads.key_value, self.heads.dimension);
        let tokens = k.chunks_exact(g * e).zip(v.chunks_exact(g * e));
        for (t, (k, v)) in tokens.enumerate() {
            let t = self.past + t;
            for (head, (k, v)) in k.chunks_exact(e).zip(v.chunks_exact(e)).enumerate() {
                let start = head * self.capacity * e;
                let side = start + t / SIDE * SIDE * e;
                self.keys.write(side + t % SIDE, SIDE, k);
                self.values.write(start + t * e, 1, v);
            }
        }
    }

    /// Attention of new tokens' queries [tokens, h, e] over all keys up to their own.
    fn attend(&self, q: &[f32], space: &mut Space, out: &mut [f32]) {
        let (group, e) = (self.heads.group(), self.heads.dimension);
        space.scores.resize(MOST_TOGETHER * self.capacity, 0.0);
        let width = self.heads.query * e;
        let tokens = q.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for (t, (q, out)) in tokens.enumerate() {
            // Query heads of a group read the same keys: several at once.
            let groups = q.chunks(group * e).zip(out.chunks_mut(group * e));
            for (head, (q, out)) in groups.enumerate() {
                let start = head * self.capacity * e;
                let held = (start, self.past + t + 1);
                let parts = q
                    .chunks(MOST_TOGETHER * e)
                    .zip(out.chunks_mut(MOST_TOGETHER * e));
                for (q, out) in parts {
                    match q.len() / e {
                        1 => self.attend_together::<1>(q, held, space, out),
                        2 => self.attend_together::<2>(q, held, space, out),
                        3 => self.attend_together::<3>(q, held, space, out),
                        _ => self.attend_together::<MOST_TOGETHER>(q, held, space, out),
                    }
                }
            }
        }
    }

    /// H query heads [H, e] over `count` keys and values from number `start` of this row on, each of which
    /// is read once and in the order in which it lies in memory.
    fn attend_together<const H: usize>(
        &self,
        q: &[f32],
        (start, count): (usize, usize),
        space: &mut Space,
        out: &mut [f32],
    ) {
        let e = q.len() / H;
        let Space { scores, wide } = space;
        let scores = &mut scores[..H * count];
        let keys = start..start + count.next_multiple_of(SIDE) * e;
        self.keys.blocks(keys, SIDE * e, wide, |first, keys| {
            arch().dispatch(Scores::<H> {
                q,
                keys,
                first,
                scores,
            });
        });
        vectorised(
            #[inline(always)]
            || {
                for scores in scores.chunks_exact_mut(count) {
                    let shift = max_inner(scores);
                    for score in scores.iter_mut() {
                        *score = exp(*score - shift);
                    }
                    let inverse = 1.0 / sum_of(scores, |x| x);
                    for score in scores.iter_mut() {
                        *score *= inverse;
                    }
                }
            },
        );
        debug_assert_eq!(out.len(), H * e);
        out.fill(0.0);
        let values = start..start + count * e;
        self.values.blocks(values, SIDE * e, wide, |first, values| {
            arch().dispatch(Mix::<H> {
                weights: scores,
                first,
                values,
                out,
            });
        });
    }
}

/// What attention needs beside its operands.
#[derive(Debug, Default)]
struct Space {
    /// [heads, tokens].
    scores: Vec<f32>,
    /// A block of keys or values in f32.
    wide: Vec<f32>,
}

/// Most query heads that are computed together.
const MOST_TOGETHER: usize = 4;

/// Vectors of a head that are summed together.
const VECTORS: usize = 4;

/// scores [H, count] = q [H, e] · keys / √e, for the keys from number `first` on, 16 side by side.
struct Scores<'a, const H: usize> {
    q: &'a [f32],
    keys: &'a [f32],
    first: usize,
    scores: &'a mut [f32],
}

impl<const H: usize> WithSimd for Scores<'_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            q,
            keys,
            first,
            scores,
        } = self;
        let e = q.len() / H;
        let (scale, count) = (1.0 / (e as f32).sqrt(), scores.len() / H);
        let q: [&[f32]; H] = std::array::from_fn(|h| &q[h * e..(h + 1) * e]);
        for (side, keys) in keys.chunks_exact(SIDE * e).enumerate() {
            let mut sums = [[0.0; SIDE]; H];
            let mut lane = 0;
            // A vector has 1, 4, 8 or 16 numbers.
            while lane < SIDE {
                let lanes = lane..lane + S::F32_LANES;
                // Even and odd numbers apart: sums that do not wait for each other.
                let mut parts = [[simd.splat_f32s(0.0); 2]; H];
                for (pair, keys) in keys.chunks(2 * SIDE).enumerate() {
                    for (i, keys) in keys.chunks_exact(SIDE).enumerate() {
                        let key = S::as_simd_f32s(&keys[lanes.clone()]).0[0];
                        for h in 0..H {
                            let q = simd.splat_f32s(q[h][2 * pair + i]);
                            parts[h][i] = simd.mul_add_f32s(q, key, parts[h][i]);
                        }
                    }
                }
                for h in 0..H {
                    let sum = simd.add_f32s(parts[h][0], parts[h][1]);
                    let sum = simd.mul_f32s(sum, simd.splat_f32s(scale));
                    S::as_mut_simd_f32s(&mut sums[h][lanes.clone()]).0[0] = sum;
                }
                lane += S::F32_LANES;
            }
            let from = first + side * SIDE;
            let kept = SIDE.min(count - from);
            for h in 0..H {
                scores[h * count + from..][..kept].copy_from_slice(&sums[h][..kept]);
            }
        }
    }
}

/// out [H, e] += weights [H, count] · values, for the values from number `first` on.
struct Mix<'a, const H: usize> {
    weights: &'a [f32],
    first: usize,
    values: &'a [f32],
    out: &'a mut [f32],
}

impl<const H: usize> WithSimd for Mix<'_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            weights,
            first,
            values,
            out,
        } = self;
        let (e, count) = (out.len() / H, weights.len() / H);
        let weights: [&[f32]; H] =
            std::array::from_fn(|h| &weights[h * count..(h + 1) * count][first..]);
        let mut column = 0;
        while column < e {
            let vectors = ((e - column) / S::F32_LANES).min(VECTORS);
            let width = match vectors {
                0 => e - column,
                _ => vectors * S::F32_LANES,
            };
            let columns = column..column + width;
            match vectors {
                4 => mix::<S, H, 4>(simd, weights, values, e, columns, out),
                3 => mix::<S, H, 3>(simd, weights, values, e, columns, out),
                2 => mix::<S, H, 2>(simd, weights, values, e, columns, out),
                1 => mix::<S, H, 1>(simd, weights, values, e, columns, out),
                _ => {
                    for (h, weights) in weights.iter().enumerate() {
                        for column in columns.clone() {
                            let products = weights.iter().zip(values.chunks_exact(e));
                            let products = products.map(|(w, value)| w * value[column]);
                            out[h * e + column] += products.sum::<f32>();
                        }
                    }
                }
            }
            column += width;
        }
    }
}

/// V vectors of every value, for H heads: their sums are in registers.
#[inline(always)]
fn mix<S: Simd, const H: usize, const V: usize>(
    simd: S,
    weights: [&[f32]; H],
    values: &[f32],
    e: usize,
    columns: Range<usize>,
    out: &mut [f32],
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; H];
    for h in 0..H {
        let out = &out[h * e..(h + 1) * e][columns.clone()];
        sums[h].copy_from_slice(S::as_simd_f32s(out).0);
    }
    for (t, value) in values.chunks_exact(e).enumerate() {
        let (value, _) = S::as_simd_f32s(&value[columns.clone()]);
        for h in 0..H {
            let weight = simd.splat_f32s(weights[h][t]);
            for v in 0..V {
                sums[h][v] = simd.mul_add_f32s(value[v], weight, sums[h][v]);
            }
        }
    }
    for h in 0..H {
        let out = &mut out[h * e..(h + 1) * e][columns.clone()];
        S::as_mut_simd_f32s(out).0.copy_from_slice(&sums[h]);
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // one segment is a range in a slice
mod tests {
    use super::*;
    use crate::attention::attention;
    use crate::force_portable;
    use crate::testing::{SWITCH, close, random};
    use burn::tensor::Device;

    /// Not a multiple of the tokens that lie side by side.
    const TOKENS: usize = 48 + 5;

    /// A prompt, then tokens one by one and two by two, equals attention over the whole sequence
    /// (of rounded keys and values, in bf16); a cleared row starts anew.
    #[test]
    fn growing_a_cache_equals_attention_over_the_whole() {
        let _turn = SWITCH.lock().unwrap_or_else(|e| e.into_inner());
        let device = Device::flex();
        // Vectors of 480 numbers are widened in more than one block.
        for ((dimension, precision), is_portable) in [5, 480]
            .into_iter()
            .flat_map(|e| [(e, Precision::F32), (e, Precision::Bf16)])
            .flat_map(|case| [(case, false), (case, true)])
        {
            let heads = Heads {
                query: 4,
                key_value: 2,
                dimension,
            };
            let whole = [(4, 1), (2, 2), (2, 3)].map(|(heads, seed)| {
                let (values, shape) = random([TOKENS, heads * dimension], seed);
                Tensor::<2>::from_data(TensorData::new(values, shape), &device)
            });
            let [q, k, v] = whole.clone();
            let [k, v] = [k, v].map(|x| precision.rounded(x));
            let want = crate::to_host(attention(q, k, v, &[0..TOKENS], heads));
            force_portable(is_portable);
            let mut cache = KvCache::new(1, heads, 3, TOKENS, precision);
            for _round in 0..2 {
                let mut got = Vec::new();
                for (start, length) in [(0, 7), (7, 1), (8, 1), (9, 2), (11, 30), (41, 12)] {
                    let parts = whole.clone().map(|x| x.narrow(0, start, length));
                    got.extend(crate::to_host(cache.attend(0, parts, &[0..length], &[2])));
                }
                close(&got, &want, 1e-5);
                assert_eq!(cache.length(2), TOKENS);
                cache.clear(2);
                // A row that begins as a copy of another goes on as that one would.
                let part = |start, length| whole.clone().map(|x| x.narrow(0, start, length));
                cache.attend(0, part(0, 20), &[0..20], &[2]);
                cache.copy(2, 1);
                cache.clear(2);
                let got = crate::to_host(cache.attend(0, part(20, 3), &[0..3], &[1]));
                let width = 4 * dimension;
                close(&got, &want[20 * width..23 * width], 1e-5);
                cache.clear(1);
            }
            force_portable(false);
        }
    }
}
