//! A whole decoder layer for inference on the CPU, without tensors between its operations:
//! h ← h + O·attention(rope(Q·N(h)), rope(K·N(h)), V·N(h)),  h ← h + down·(silu(gate·N(h)) ⊙ up·N(h)).
//!
//! The same arithmetic as the operations of this crate one by one, which is what training and other
//! devices use: the tests hold them together. What it saves is memory traffic (an operand is packed
//! once for all weights that it meets, residuals are added where they are) and, when few tokens are
//! decoded, the cost of making a tensor for every result.

use std::ops::Range;

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::attention::{Heads, KvCache, attend_packed};
use crate::host::{on_host, primitive, to_host, values};
use crate::matmul::Into;
use crate::rms_norm::normalise;
use crate::rope::RopeTable;
use crate::swiglu::gate;
use crate::team::{for_each_chunk, together};
use crate::weight::{HostWeight, Operand, ProductSpace, Weight};

/// Values a task of an operation by rows works on.
const BLOCK: usize = 32 * 1024;

/// A weight and its bias.
#[derive(Clone, Debug)]
struct HostLinear {
    weight: HostWeight,
    bias: Option<Vec<f32>>,
}

/// The parameters of a decoder layer, as tensors.
#[derive(Clone, Debug)]
pub struct LayerParameters<'a> {
    /// Norm before attention, and before the feed-forward block.
    pub norms: [&'a Tensor<1>; 2],
    /// Query, key, value, output, gate, up and down projection, each with its bias.
    pub linears: [(&'a Weight, Option<&'a Tensor<1>>); 7],
    /// Norms of each query head and each key head (Qwen3).
    pub head_norms: Option<[&'a Tensor<1>; 2]>,
}

/// A decoder layer ready for inference on the CPU. Shares plain and packed weights.
#[derive(Clone, Debug)]
pub struct HostLayer {
    norms: [Vec<f32>; 2],
    linears: [HostLinear; 7],
    head_norms: Option<[Vec<f32>; 2]>,
    heads: Heads,
    epsilon: f32,
}

/// The tokens of a pass, and what they attend to.
pub struct Pass<'a> {
    /// Consecutive ranges of the token axis, one a sequence.
    pub segments: &'a [Range<usize>],
    /// Rotary angles of the tokens.
    pub table: &'a RopeTable,
    /// The cache that the sequences continue, with each one's row; without it they stand alone.
    pub cache: Option<(&'a mut KvCache, &'a [usize])>,
}

impl HostLayer {
    /// The layer, if its parameters are untracked and on the CPU.
    pub fn new(parameters: &LayerParameters<'_>, heads: Heads, epsilon: f32) -> Option<Self> {
        let plain = |tensor: &Tensor<1>| on_host(tensor) && !tensor.is_autodiff();
        let [first, second] = parameters.norms;
        if !plain(first) || !plain(second) {
            return None;
        }
        let values = |tensor: &Tensor<1>| to_host(tensor.clone());
        let linears = parameters.linears.map(|(weight, bias)| HostLinear {
            weight: HostWeight::new(weight),
            bias: bias.map(values),
        });
        Some(Self {
            norms: [first, second].map(values),
            linears,
            head_norms: parameters.head_norms.map(|norms| norms.map(values)),
            heads,
            epsilon,
        })
    }

    /// Carries the tokens through this layer, number `index` of the network.
    fn forward(&self, h: &mut [f32], scratch: &mut Scratch, index: usize, pass: &mut Pass<'_>) {
        let Scratch {
            n,
            x,
            queries,
            keys,
            values,
            mixed,
            gates,
            ups,
            products,
        } = scratch;
        let n = *n;
        let [q, k, v, o, gate_proj, up, down] = &self.linears;
        self.norm(h, &self.norms[0], x);
        let operand = Operand::new(x, n, &q.weight, products);
        for (linear, out) in [(q, &mut *queries), (k, &mut *keys), (v, &mut *values)] {
            linear.apply(&operand, out, Into::Replace, products);
        }
        operand.give_back(products);
        if let Some(norms) = &self.head_norms {
            for (x, norm) in [(&mut *queries, &norms[0]), (&mut *keys, &norms[1])] {
                by_rows(x, norm.len(), |_, rows| {
                    normalise(rows, norm, self.epsilon, |_, _| {});
                });
            }
        }
        let e = self.heads.dimension;
        let widths = [self.heads.query * e, self.heads.key_value * e];
        for (x, width) in [(&mut *queries, widths[0]), (&mut *keys, widths[1])] {
            by_rows(x, width, |first, rows| {
                pass.table.rotate(rows, width, first, 1.0)
            });
        }
        let qkv: [&[f32]; 3] = [queries, keys, values];
        match &mut pass.cache {
            Some((cache, rows)) => cache.attend_slices(index, qkv, pass.segments, rows, mixed),
            None => attend_packed(qkv, pass.segments, self.heads, mixed),
        }
        let operand = Operand::new(mixed, n, &o.weight, products);
        o.apply(&operand, h, Into::Add, products);
        operand.give_back(products);
        self.norm(h, &self.norms[1], x);
        let operand = Operand::new(x, n, &up.weight, products);
        gate_proj.apply(&operand, gates, Into::Replace, products);
        up.apply(&operand, ups, Into::Replace, products);
        operand.give_back(products);
        for_each_chunk(gates, BLOCK, |index, gates| {
            gate(gates, &ups[index * BLOCK..][..gates.len()]);
        });
        let operand = Operand::new(gates, n, &down.weight, products);
        down.apply(&operand, h, Into::Add, products);
        operand.give_back(products);
    }

    fn norm(&self, h: &[f32], weight: &[f32], x: &mut [f32]) {
        x.copy_from_slice(h);
        by_rows(x, weight.len(), |_, rows| {
            normalise(rows, weight, self.epsilon, |_, _| {});
        });
    }
}

impl HostLinear {
    fn apply(&self, operand: &Operand<'_>, out: &mut [f32], into: Into, space: &mut ProductSpace) {
        self.weight.apply(operand, out, into, space);
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(bias.len()) {
                for (out, bias) in row.iter_mut().zip(bias) {
                    *out += bias;
                }
            }
        }
    }
}

/// What is between the operations of a layer. The next layer uses it again, and, where a cache keeps it,
/// the next token.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Tokens.
    n: usize,
    /// [n, width].
    x: Vec<f32>,
    /// [n, query heads · dimension], as `mixed`; keys and values [n, key–value heads · dimension].
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    mixed: Vec<f32>,
    /// [n, feed-forward width].
    gates: Vec<f32>,
    ups: Vec<f32>,
    products: ProductSpace,
}

impl Scratch {
    /// Makes it that of `n` tokens of such a layer; what it held is meaningless.
    fn fit(&mut self, n: usize, width: usize, layer: &HostLayer) {
        let (heads, e) = (layer.heads, layer.heads.dimension);
        let feed_forward = layer.linears[4].weight.rows();
        self.n = n;
        for (space, width) in [
            (&mut self.x, width),
            (&mut self.queries, heads.query * e),
            (&mut self.keys, heads.key_value * e),
            (&mut self.values, heads.key_value * e),
            (&mut self.mixed, heads.query * e),
            (&mut self.gates, feed_forward),
            (&mut self.ups, feed_forward),
        ] {
            space.resize(n * width, 0.0);
        }
    }
}

/// Carries embedded tokens through all layers.
///
/// # Shapes
/// `embedded` [tokens, width], on the CPU and untracked → the same shape, before the last norm
///
/// # Panics
/// If a sequence does not fit the cache.
pub fn run_layers(layers: &[HostLayer], embedded: Tensor<2>, mut pass: Pass<'_>) -> Tensor<2> {
    let shape = embedded.dims();
    let [n, width] = shape;
    let Some(first) = layers.first() else {
        return embedded;
    };
    if let Some((cache, rows)) = &pass.cache {
        cache.check(pass.segments, rows);
    }
    let mut scratch = match &mut pass.cache {
        Some((cache, _)) => std::mem::take(&mut cache.scratch),
        None => Scratch::default(),
    };
    scratch.fit(n, width, first);
    let mut h = values(&primitive(embedded)).to_vec();
    together(|| {
        for (index, layer) in layers.iter().enumerate() {
            layer.forward(&mut h, &mut scratch, index, &mut pass);
        }
    });
    if let Some((cache, rows)) = &mut pass.cache {
        cache.extend(pass.segments, rows);
        // That of prompts is larger than any token needs.
        if n <= cache.rows() {
            cache.scratch = scratch;
        }
    }
    Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(h, shape)))
}

/// Calls `work(first row, rows)` for blocks of whole rows, in parallel where there are several.
fn by_rows(x: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = (BLOCK / width).max(1);
    if x.len() <= rows * width {
        return work(0, x);
    }
    for_each_chunk(x, rows * width, |block, x| work(block * rows, x));
}
