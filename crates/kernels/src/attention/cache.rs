//! Keys and values of sequences being generated.
//!
//! On the CPU one contiguous [rows, g, capacity, e] buffer a layer, written in place; on other
//! devices a tensor a row and layer that grows by concatenation.

use std::ops::Range;

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{Heads, attention, portable};
use crate::host::{on_host, primitive};
use crate::math::{exp_minus, max, sum_of, sum_of2, vectorised};

/// The cache of a batch of rows.
#[derive(Debug)]
pub struct KvCache {
    heads: Heads,
    capacity: usize,
    lengths: Vec<usize>,
    layers: Vec<Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    /// [rows, g, capacity, e]; empty until the first token of a CPU batch.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Keys and values a row, on devices without host access.
    tensors: Vec<Option<(Tensor<2>, Tensor<2>)>>,
}

impl KvCache {
    /// An empty cache for `rows` sequences of at most `capacity` tokens.
    pub fn new(layers: usize, heads: Heads, rows: usize, capacity: usize) -> Self {
        Self {
            heads,
            capacity,
            lengths: vec![0; rows],
            layers: (0..layers).map(|_| Layer::default()).collect(),
        }
    }

    /// Tokens held for a row.
    pub fn length(&self, row: usize) -> usize {
        self.lengths[row]
    }

    /// Most tokens a row can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets a row, so that another sequence can take its place.
    pub fn clear(&mut self, row: usize) {
        self.lengths[row] = 0;
        for layer in &mut self.layers {
            if let Some(slot) = layer.tensors.get_mut(row) {
                *slot = None;
            }
        }
    }

    /// Appends each segment's keys and values to its row, then attends causally over the row.
    /// The new lengths count from the last layer's call on.
    ///
    /// # Shapes
    /// As [`attention`]; `rows[i]` is the cache row of `segments[i]`.
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
        for (segment, &row) in segments.iter().zip(rows) {
            let needed = self.lengths[row] + segment.len();
            assert!(needed <= self.capacity, "row {row} would exceed the cache");
        }
        let result = if on_host(&q) {
            self.attend_host(layer, [q, k, v], segments, rows)
        } else {
            self.attend_portable(layer, [q, k, v], segments, rows)
        };
        if layer + 1 == self.layers.len() {
            for (segment, &row) in segments.iter().zip(rows) {
                self.lengths[row] += segment.len();
            }
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
        let slots = &mut self.layers[layer].tensors;
        slots.resize(self.lengths.len(), None);
        let mut parts = Vec::with_capacity(rows.len());
        for (segment, &row) in segments.iter().zip(rows) {
            let take = |x: &Tensor<2>| x.clone().narrow(0, segment.start, segment.len());
            let (keys, values) = match slots[row].take() {
                Some((keys, values)) => (
                    Tensor::cat(vec![keys, take(&k)], 0),
                    Tensor::cat(vec![values, take(&v)], 0),
                ),
                None => (take(&k), take(&v)),
            };
            slots[row] = Some((keys.clone(), values.clone()));
            let past = self.lengths[row];
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
        self.append(
            layer,
            &primitive(k.clone()),
            &primitive(v.clone()),
            segments,
            rows,
        );
        // Sequences without a past: the packed kernel's matrix products are the faster way.
        if rows.iter().all(|&row| self.lengths[row] == 0) && segments.iter().any(|s| s.len() > 1) {
            return attention(q, k, v, segments, self.heads);
        }
        let q = primitive(q);
        let width = self.heads.query * self.heads.dimension;
        let queries = q.as_slice::<f32>().expect("contiguous f32");
        // (row, number of keys seen) of every token.
        let seen: Vec<(usize, usize)> = segments
            .iter()
            .zip(rows)
            .flat_map(|(s, &row)| (0..s.len()).map(move |t| (row, t)))
            .map(|(row, t)| (row, self.lengths[row] + t + 1))
            .collect();
        let mut out = vec![0.0; queries.len()];
        let this = &*self;
        out.par_chunks_mut(width)
            .zip(queries.par_chunks(width))
            .zip(&seen)
            .for_each(|((out, q), &(row, count))| this.attend_token(layer, row, count, q, out));
        let shape = [seen.len(), width];
        Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(out, shape)))
    }

    fn append(
        &mut self,
        layer: usize,
        k: &FlexTensor,
        v: &FlexTensor,
        segments: &[Range<usize>],
        rows: &[usize],
    ) {
        let (g, e) = (self.heads.key_value, self.heads.dimension);
        let size = self.lengths.len() * g * self.capacity * e;
        let held = &mut self.layers[layer];
        for (buffer, new) in [(&mut held.keys, k), (&mut held.values, v)] {
            buffer.resize(size, 0.0);
            let new = new.as_slice::<f32>().expect("contiguous f32");
            for (segment, &row) in segments.iter().zip(rows) {
                for (t, token) in segment.clone().enumerate() {
                    for head in 0..g {
                        let from = (token * g + head) * e;
                        let position = self.lengths[row] + t;
                        let to = ((row * g + head) * self.capacity + position) * e;
                        buffer[to..to + e].copy_from_slice(&new[from..from + e]);
                    }
                }
            }
        }
    }

    fn attend_token(&self, layer: usize, row: usize, count: usize, q: &[f32], out: &mut [f32]) {
        let (g, e) = (self.heads.key_value, self.heads.dimension);
        let (group, scale) = (self.heads.group(), self.heads.scale());
        let held = &self.layers[layer];
        let mut scores = vec![0.0; count];
        for head in 0..g {
            let start = (row * g + head) * self.capacity * e;
            let keys = &held.keys[start..start + count * e];
            let values = &held.values[start..start + count * e];
            for query in head * group..(head + 1) * group {
                let q = &q[query * e..(query + 1) * e];
                vectorised(
                    #[inline(always)]
                    || {
                        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(e)) {
                            *score = sum_of2(q, key, |a, b| a * b) * scale;
                        }
                    },
                );
                let shift = max(&scores);
                exp_minus(&mut scores, shift);
                let out = &mut out[query * e..(query + 1) * e];
                vectorised(
                    #[inline(always)]
                    || {
                        let inverse = 1.0 / sum_of(&scores, |x| x);
                        out.fill(0.0);
                        for (&weight, value) in scores.iter().zip(values.chunks_exact(e)) {
                            for (out, &value) in out.iter_mut().zip(value) {
                                *out += weight * value;
                            }
                        }
                        for out in out.iter_mut() {
                            *out *= inverse;
                        }
                    },
                );
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // one segment is a range in a slice
mod tests {
    use super::*;
    use crate::force_portable;
    use crate::testing::{SWITCH, close, random};
    use burn::tensor::Device;

    /// A prompt, then tokens one by one and two by two, equals attention over the whole sequence;
    /// a cleared row starts anew.
    #[test]
    fn growing_a_cache_equals_attention_over_the_whole() {
        let _turn = SWITCH.lock().unwrap_or_else(|e| e.into_inner());
        let heads = Heads {
            query: 4,
            key_value: 2,
            dimension: 5,
        };
        let device = Device::flex();
        let whole = [(20, 1), (10, 2), (10, 3)].map(|(width, seed)| {
            let (values, shape) = random([12, width], seed);
            Tensor::<2>::from_data(TensorData::new(values, shape), &device)
        });
        let [q, k, v] = whole.clone();
        let want = crate::to_host(attention(q, k, v, &[0..12], heads));
        for is_portable in [false, true] {
            force_portable(is_portable);
            let mut cache = KvCache::new(1, heads, 3, 12);
            for _round in 0..2 {
                let mut got = Vec::new();
                for (start, length) in [(0, 7), (7, 1), (8, 1), (9, 2), (11, 1)] {
                    let parts = whole.clone().map(|x| x.narrow(0, start, length));
                    got.extend(crate::to_host(cache.attend(0, parts, &[0..length], &[2])));
                }
                close(&got, &want, 1e-5);
                assert_eq!(cache.length(2), 12);
                cache.clear(2);
            }
            force_portable(false);
        }
    }
}
