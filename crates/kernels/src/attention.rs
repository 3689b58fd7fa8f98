//! Causal grouped-query attention over packed segments, and over a key–value cache.
//!
//! For a query at position t of its segment: softmax over j ≤ t of (q · kⱼ / √e), applied to vⱼ.
//! Query head i reads key–value head i / (h/g). The CPU kernel works on blocks of queries and keeps
//! only each row's log-sum-exp; its backward recomputes the probabilities P:
//! dV = Pᵀ dO,   dP = dO Vᵀ,   dS = P ⊙ (dP − Σ P ⊙ dP) / √e,   dQ = dS K,   dK = dSᵀ Q.

use std::ops::Range;

use burn::tensor::{Bool, Tensor, TensorData, activation};
use rayon::prelude::*;

use crate::host::{HostKernel, Output, View, host3, on_host};
use crate::math::{exp_minus, max, sum_of, vectorised};
use crate::matmul::{Into, Matrix, Threads, by_gemm};
use crate::team::map;

mod cache;
pub use cache::KvCache;

/// Queries a block.
const BLOCK: usize = 64;

/// Numbers and size of the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads h.
    pub query: usize,
    /// Key–value heads g; divides `query`.
    pub key_value: usize,
    /// Head dimension e.
    pub dimension: usize,
}

impl Heads {
    fn group(self) -> usize {
        self.query / self.key_value
    }

    fn scale(self) -> f32 {
        1.0 / (self.dimension as f32).sqrt()
    }
}

/// Causal attention within each segment of the packed token axis.
///
/// # Shapes
/// `q` [tokens, h·e], `k`, `v` [tokens, g·e]; `segments` are consecutive ranges that cover the
/// tokens → [tokens, h·e]
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: &[Range<usize>],
    heads: Heads,
) -> Tensor<2> {
    if on_host(&q) {
        let segments = segments.to_vec();
        return host3(q, k, v, Attention { segments, heads });
    }
    let parts = segments.iter().map(|segment| {
        let take = |x: &Tensor<2>| x.clone().narrow(0, segment.start, segment.len());
        portable(take(&q), take(&k), take(&v), heads, 0)
    });
    Tensor::cat(parts.collect(), 0)
}

/// One segment: queries at positions `past`, `past + 1`, … against all keys up to their own.
fn portable(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, heads: Heads, past: usize) -> Tensor<2> {
    let Heads {
        query: h,
        key_value: g,
        dimension: e,
    } = heads;
    let ([n, _], [m, _]) = (q.dims(), k.dims());
    let q = q.reshape([n, h, e]).swap_dims(0, 1);
    // [m, g, e] → [h, m, e]: each key–value head repeated for the query heads of its group.
    let expand = |x: Tensor<2>| -> Tensor<3> {
        x.reshape([m, g, 1, e])
            .expand([m, g, h / g, e])
            .reshape([m, h, e])
            .swap_dims(0, 1)
    };
    let scores = q.matmul(expand(k).swap_dims(1, 2)) * heads.scale();
    let hidden: Vec<bool> = (0..n)
        .flat_map(|t| (0..m).map(move |j| j > past + t))
        .collect();
    let hidden = TensorData::new(hidden, [1, n, m]);
    let hidden = Tensor::<3, Bool>::from_data(hidden, &scores.device()).expand([h, n, m]);
    let weights = activation::softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 2);
    weights
        .matmul(expand(v))
        .swap_dims(0, 1)
        .reshape([n, h * e])
}

/// As [`attention`] on host slices.
pub(crate) fn attend_packed(
    [q, k, v]: [&[f32]; 3],
    segments: &[Range<usize>],
    heads: Heads,
    out: &mut [f32],
) {
    let n = segments.last().map_or(0, |segment| segment.end);
    let view = |data, heads: usize, e| View {
        data,
        shape: [n, heads * e],
    };
    let e = heads.dimension;
    let kernel = Attention {
        segments: segments.to_vec(),
        heads,
    };
    let inputs = [
        view(q, heads.query, e),
        view(k, heads.key_value, e),
        view(v, heads.key_value, e),
    ];
    out.copy_from_slice(&kernel.forward(&inputs, false).data);
}

#[derive(Debug)]
struct Attention {
    segments: Vec<Range<usize>>,
    heads: Heads,
}

/// One segment and one key–value head: the grain of parallel work.
struct Item {
    segment: Range<usize>,
    head: usize,
}

impl Attention {
    fn items(&self) -> Vec<Item> {
        let heads = 0..self.heads.key_value;
        self.segments
            .iter()
            .flat_map(|s| {
                heads.clone().map(|head| Item {
                    segment: s.clone(),
                    head,
                })
            })
            .collect()
    }

    /// The rows of a segment and the columns of one head, inside a [tokens, width] slice.
    fn head<'a>(
        &self,
        x: View<'a>,
        segment: &Range<usize>,
        rows: Range<usize>,
        head: usize,
    ) -> Matrix<'a> {
        let width = x.shape[1];
        let e = self.heads.dimension;
        let start = (segment.start + rows.start) * width + head * e;
        Matrix::new(&x.data[start..], rows.len(), e, width)
    }

    /// Output [length, group·e] and log-sum-exps [group, length] of one item.
    fn forward_item(&self, inputs: &[View<'_>], item: &Item) -> (Vec<f32>, Vec<f32>) {
        let (e, group, length) = (self.heads.dimension, self.heads.group(), item.segment.len());
        let mut out = vec![0.0; length * group * e];
        let mut lse = vec![0.0; group * length];
        let mut scores = vec![0.0; BLOCK * length];
        for within in 0..group {
            let query = item.head * group + within;
            for start in (0..length).step_by(BLOCK) {
                let rows = start..(start + BLOCK).min(length);
                let end = rows.end;
                let q = self.head(inputs[0], &item.segment, rows.clone(), query);
                let k = self.head(inputs[1], &item.segment, 0..end, item.head);
                let v = self.head(inputs[2], &item.segment, 0..end, item.head);
                let scale = self.heads.scale();
                let kt = k.transposed();
                by_gemm(q, kt, &mut scores, end, scale, Into::Replace, Threads::One);
                for (row, t) in scores.chunks_exact_mut(end).zip(rows.clone()) {
                    let (seen, future) = row.split_at_mut(t + 1);
                    let shift = max(seen);
                    exp_minus(seen, shift);
                    let total = vectorised(
                        #[inline(always)]
                        || {
                            let total = sum_of(seen, |x| x);
                            for x in seen.iter_mut() {
                                *x /= total;
                            }
                            total
                        },
                    );
                    future.fill(0.0);
                    lse[within * length + t] = shift + total.ln();
                }
                let p = Matrix::new(&scores, rows.len(), end, end);
                let out = &mut out[start * group * e + within * e..];
                by_gemm(p, v, out, group * e, 1.0, Into::Replace, Threads::One);
            }
        }
        (out, lse)
    }

    /// dQ [length, group·e], dK and dV [length, e] of one item.
    fn backward_item(
        &self,
        inputs: &[View<'_>],
        lse: &[f32],
        grad: View<'_>,
        item: &Item,
    ) -> [Vec<f32>; 3] {
        let (e, group, length) = (self.heads.dimension, self.heads.group(), item.segment.len());
        let mut dq = vec![0.0; length * group * e];
        let mut dk = vec![0.0; length * e];
        let mut dv = vec![0.0; length * e];
        let mut p = vec![0.0; BLOCK * length];
        let mut ds = vec![0.0; BLOCK * length];
        for within in 0..group {
            let query = item.head * group + within;
            for start in (0..length).step_by(BLOCK) {
                let rows = start..(start + BLOCK).min(length);
                let (end, count) = (rows.end, rows.len());
                let q = self.head(inputs[0], &item.segment, rows.clone(), query);
                let d_out = self.head(grad, &item.segment, rows.clone(), query);
                let k = self.head(inputs[1], &item.segment, 0..end, item.head);
                let v = self.head(inputs[2], &item.segment, 0..end, item.head);
                let scale = self.heads.scale();
                let one = Threads::One;
                by_gemm(q, k.transposed(), &mut p, end, scale, Into::Replace, one);
                by_gemm(d_out, v.transposed(), &mut ds, end, 1.0, Into::Replace, one);
                let rows_of = p.chunks_exact_mut(end).zip(ds.chunks_exact_mut(end));
                for ((p, ds), t) in rows_of.zip(rows.clone()) {
                    exp_minus(&mut p[..=t], lse[within * length + t]);
                    p[t + 1..].fill(0.0);
                    let mean = crate::math::dot(&p[..=t], &ds[..=t]);
                    for (ds, &p) in ds.iter_mut().zip(p.iter()) {
                        *ds = p * (*ds - mean) * scale;
                    }
                }
                let p = Matrix::new(&p, count, end, end);
                let ds = Matrix::new(&ds, count, end, end);
                let dq = &mut dq[start * group * e + within * e..];
                by_gemm(ds, k, dq, group * e, 1.0, Into::Replace, one);
                by_gemm(ds.transposed(), q, &mut dk, e, 1.0, Into::Add, one);
                by_gemm(p.transposed(), d_out, &mut dv, e, 1.0, Into::Add, one);
            }
        }
        [dq, dk, dv]
    }
}

/// Writes `part` [segment length, part width] into columns of `whole` from `column` on.
fn scatter(part: &[f32], whole: &mut [f32], width: usize, segment: &Range<usize>, column: usize) {
    let part_width = part.len() / segment.len().max(1);
    let rows = whole[segment.start * width..segment.end * width].chunks_exact_mut(width);
    for (row, part) in rows.zip(part.chunks_exact(part_width.max(1))) {
        row[column..column + part_width].copy_from_slice(part);
    }
}

impl HostKernel for Attention {
    fn forward(&self, inputs: &[View<'_>], track: bool) -> Output {
        let [n, width] = inputs[0].shape;
        let items = self.items();
        let results = map(items.len(), |index| {
            self.forward_item(inputs, &items[index])
        });
        let mut data = vec![0.0; n * width];
        let mut saved = Vec::new();
        let columns = self.heads.group() * self.heads.dimension;
        for (item, (out, lse)) in items.iter().zip(results) {
            scatter(&out, &mut data, width, &item.segment, item.head * columns);
            if track {
                saved.push(lse);
            }
        }
        Output {
            data,
            shape: vec![n, width],
            saved,
        }
    }

    fn backward(
        &self,
        inputs: &[View<'_>],
        saved: &[Vec<f32>],
        grad: &[f32],
        _needs: &[bool],
    ) -> Vec<Vec<f32>> {
        let items = self.items();
        let grad = View {
            data: grad,
            shape: inputs[0].shape,
        };
        let results: Vec<_> = items
            .par_iter()
            .zip(saved)
            .map(|(item, lse)| self.backward_item(inputs, lse, grad, item))
            .collect();
        let mut totals = [0, 1, 2].map(|i| vec![0.0; inputs[i].data.len()]);
        let e = self.heads.dimension;
        let columns = [self.heads.group() * e, e, e];
        for (item, parts) in items.iter().zip(results) {
            for i in 0..3 {
                let column = item.head * columns[i];
                let width = inputs[i].shape[1];
                scatter(&parts[i], &mut totals[i], width, &item.segment, column);
            }
        }
        totals.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both_paths_agree, random};

    const HEADS: Heads = Heads {
        query: 4,
        key_value: 2,
        dimension: 6,
    };

    #[test]
    fn kernel_equals_composition_and_differences() {
        // Segments of one token, of a few, and of more than one block of queries.
        let segments = [0..1, 1..8, 8..80];
        both_paths_agree(
            &[
                random([80, 24], 1),
                random([80, 12], 2),
                random([80, 12], 3),
            ],
            |t| attention(t[0].clone(), t[1].clone(), t[2].clone(), &segments, HEADS),
            2e-3,
        );
    }

    #[test]
    fn a_token_sees_its_own_segment_and_its_past_only() {
        // Bits are compared: all runs have to take one path.
        let _turn = crate::testing::SWITCH
            .lock()
            .unwrap_or_else(|e| e.into_inner());
        let device = burn::tensor::Device::flex();
        let run = |change: usize| {
            let tensor = |([rows, columns], seed): ([usize; 2], u64)| {
                let (mut values, shape) = random([rows, columns], seed);
                if seed > 1 {
                    values[change * columns] += 5.0;
                }
                Tensor::<2>::from_data(TensorData::new(values, shape), &device)
            };
            let (q, k, v) = (
                tensor(([6, 24], 1)),
                tensor(([6, 12], 2)),
                tensor(([6, 12], 3)),
            );
            crate::to_host(attention(q, k, v, &[0..3, 3..6], HEADS))
        };
        let (early, late) = (run(3), run(5));
        assert_eq!(early[..3 * 24], late[..3 * 24], "other segment");
        assert_ne!(early[4 * 24..5 * 24], late[4 * 24..5 * 24], "changed past");
        let (future, none) = (run(2), run(1));
        assert_eq!(future[..24], none[..24], "token 0 sees only itself");
    }
}
