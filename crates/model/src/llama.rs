//! The Llama family as one network: Llama, SmolLM, Mistral, Qwen2 (q/k/v bias), Qwen3 (q/k norm).
//!
//! On a packed batch of n tokens, with RMS norm N and rotary embedding R:
//!   h ← embedding of the ids
//!   each layer: h ← h + Attention(R(Wq N(h)), R(Wk N(h)), Wv N(h)) Wo
//!               h ← h + (silu(Wgate N(h)) ⊙ Wup N(h)) Wdown
//!   hidden = N(h);  logits = hidden · headᵀ, with head = embedding where tied.
//! Parameters carry their Hugging Face names.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use distil_kernels::{
    HostLayer, KvCache, LayerParameters, Pass, Precision, RopeTable, Weight, attention, embedding,
    linear, rms_norm, rope, run_layers, swiglu,
};

use crate::config::{Config, Family};
use crate::error::{ModelError, Result};
use crate::weights::{Stored, Weights};

/// A decoder-only language model. Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct Llama {
    config: Config,
    frequencies: Vec<f64>,
    embed_tokens: Tensor<2>,
    layers: Vec<Layer>,
    norm: Tensor<1>,
    lm_head: Option<Weight>,
    tokens: usize,
    precision: Precision,
    /// The head for many products, see [`Llama::packed`]; where the head is tied, the embedding
    /// remains beside it.
    packed_head: Option<Weight>,
    /// The layers for inference, made once by [`Llama::packed`].
    host_layers: Option<Arc<[HostLayer]>>,
    recompute: bool,
}

#[derive(Clone, Debug)]
struct Linear {
    weight: Weight,
    bias: Option<Tensor<1>>,
}

#[derive(Clone, Debug)]
struct Layer {
    input_layernorm: Tensor<1>,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<Tensor<1>>,
    k_norm: Option<Tensor<1>>,
    post_attention_layernorm: Tensor<1>,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// Returns the values of a named tensor of a given shape, row-major.
pub type ReadTensor<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>> + 'a;

/// A parameter, by its rank.
#[derive(Debug)]
pub enum Parameter<'a> {
    /// A norm's weight or a bias.
    Vector(&'a mut Tensor<1>),
    /// A matrix [out, in].
    Matrix(&'a mut Tensor<2>),
}

impl Parameter<'_> {
    /// The parameter to be written; shares its values.
    pub fn stored(self) -> Stored {
        match self {
            Self::Vector(tensor) => Stored::Vector(tensor.clone()),
            Self::Matrix(tensor) => Stored::Matrix(tensor.clone()),
        }
    }
}

/// What a backward pass through the layers needs besides autodiff's record.
#[derive(Debug)]
pub struct Trail {
    /// The tokens.
    pub ids: Vec<u32>,
    segments: Vec<Range<usize>>,
    table: RopeTable,
    /// Where autodiff's record begins: the embedded tokens, or, where layers are recomputed, what the
    /// last of them gave.
    leaf: Tensor<2>,
    /// What went into each layer, where layers are recomputed.
    inputs: Vec<Tensor<2>>,
}

/// Tokens as a network takes them: packed, without padding.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Ids, `[tokens]`.
    pub ids: &'a [u32],
    /// Position of each token in its own sequence, from 0.
    pub positions: &'a [u32],
    /// Consecutive ranges of the token axis, one a sequence.
    pub segments: &'a [Range<usize>],
}

impl Parameter<'_> {
    fn untrack(self) {
        match self {
            Parameter::Vector(t) => t.inplace(|t| t.without_autodiff()),
            Parameter::Matrix(t) => t.inplace(|t| t.without_autodiff()),
        }
    }
}

impl Llama {
    /// Reads the network from `weights` onto `device`.
    ///
    /// # Errors
    /// The configuration is not supported; a tensor is missing, of another shape than the
    /// configuration says, or not part of the architecture.
    pub fn load(weights: &Weights, device: &Device) -> Result<Self> {
        let config = Config::from_json(weights.config_json()?, weights.path())?;
        let mut used = std::collections::BTreeSet::new();
        let mut read = |name: &str, shape: &[usize]| {
            used.insert(name.to_owned());
            read_tensor(weights, name, shape)
        };
        let network = Self::build(config, &mut read, device)?;
        let names = weights.names();
        // Buffers and a tied head's copy carry nothing of their own.
        let tied = network.config.tied;
        let spare = |name: &str| {
            name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight")
        };
        let extra = names
            .iter()
            .find(|name| !used.contains(*name) && !spare(name));
        match extra {
            None => Ok(network),
            Some(name) => Err(ModelError::Tensor {
                path: weights.path().to_owned(),
                name: name.clone(),
                what: "is not part of this architecture, which would ignore it; \
                       check config.json's model_type and bias settings"
                    .into(),
            }),
        }
    }

    /// Reads the output head alone, [vocabulary, width].
    ///
    /// # Errors
    /// As [`Llama::load`].
    pub fn load_head(weights: &Weights, device: &Device) -> Result<Weight> {
        let config = Config::from_json(weights.config_json()?, weights.path())?;
        let name = match config.tied {
            true => "model.embed_tokens.weight",
            false => "lm_head.weight",
        };
        let mut read = |name: &str, shape: &[usize]| read_tensor(weights, name, shape);
        let mut make = Maker {
            read: &mut read,
            device,
        };
        Ok(make.matrix(name, [config.vocabulary, config.width])?.into())
    }

    /// Builds a network of a given shape; `read` returns the values of a named tensor.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn build(config: Config, read: &mut ReadTensor<'_>, device: &Device) -> Result<Self> {
        let c = &config;
        let (d, f, e) = (c.width, c.feed_forward, c.heads.dimension);
        let (queries, keys) = (c.heads.query * e, c.heads.key_value * e);
        let mut make = Maker { read, device };
        let embed_tokens = make.matrix("model.embed_tokens.weight", [c.vocabulary, d])?;
        let mut layers = Vec::with_capacity(c.layers);
        for i in 0..c.layers {
            let at = |name: &str| format!("model.layers.{i}.{name}");
            let head_norm = c.family == Family::Qwen3;
            layers.push(Layer {
                input_layernorm: make.vector(&at("input_layernorm.weight"), d)?,
                q_proj: make.linear(&at("self_attn.q_proj"), [queries, d], c.qkv_bias)?,
                k_proj: make.linear(&at("self_attn.k_proj"), [keys, d], c.qkv_bias)?,
                v_proj: make.linear(&at("self_attn.v_proj"), [keys, d], c.qkv_bias)?,
                o_proj: make.linear(&at("self_attn.o_proj"), [d, queries], c.output_bias)?,
                q_norm: make.optional(head_norm, &at("self_attn.q_norm.weight"), e)?,
                k_norm: make.optional(head_norm, &at("self_attn.k_norm.weight"), e)?,
                post_attention_layernorm: make.vector(&at("post_attention_layernorm.weight"), d)?,
                gate_proj: make.linear(&at("mlp.gate_proj"), [f, d], c.mlp_bias)?,
                up_proj: make.linear(&at("mlp.up_proj"), [f, d], c.mlp_bias)?,
                down_proj: make.linear(&at("mlp.down_proj"), [d, f], c.mlp_bias)?,
            });
        }
        let norm = make.vector("model.norm.weight", d)?;
        let lm_head = match c.tied {
            true => None,
            false => Some(make.matrix("lm_head.weight", [c.vocabulary, d])?.into()),
        };
        Ok(Self {
            frequencies: config.rope_frequencies(),
            tokens: config.vocabulary,
            config,
            embed_tokens,
            layers,
            norm,
            lm_head,
            precision: Precision::F32,
            packed_head: None,
            host_layers: None,
            recompute: false,
        })
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of leading ids that are tokens; the rest of the vocabulary is padding, which is never
    /// sampled.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The same network, told how many of its ids are tokens.
    pub fn with_tokens(mut self, tokens: usize) -> Self {
        self.tokens = tokens.min(self.config.vocabulary);
        self
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.embed_tokens.device()
    }

    /// The output head, [vocabulary, width].
    pub fn head(&self) -> Weight {
        if let Some(packed) = &self.packed_head {
            return packed.clone();
        }
        match &self.lm_head {
            Some(head) => head.clone(),
            None => Weight::Plain(self.embed_tokens.clone(), self.precision),
        }
    }

    /// In which precision its matrix products are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The same network, its matrix products computed in `precision`. The weights stay what they
    /// are; a packed network stays packed.
    pub fn in_precision(mut self, precision: Precision) -> Self {
        if self.packed_head.is_some() {
            return self;
        }
        self.host_layers = None;
        self.precision = precision;
        for weight in self.weights() {
            if let Weight::Plain(_, of) = weight {
                *of = precision;
            }
        }
        self
    }

    /// The network for inference: untracked, and where its products are not in f32, its matrices
    /// rounded and packed once. A packed network has no parameters to train or to save but the
    /// embedding and the vectors.
    pub fn packed(&self) -> Self {
        let mut this = self.frozen();
        if self.host_layers.is_some() {
            return this;
        }
        if self.precision != Precision::F32 {
            let head = this.head().packed();
            this.lm_head = this.lm_head.map(|_| head.clone());
            this.packed_head = Some(head);
            for weight in this.weights() {
                *weight = weight.packed();
            }
        }
        this.host_layers = this.make_host_layers();
        this
    }

    /// The matrices of all layers, and the head's where it is not the embedding.
    fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        self.layers
            .iter_mut()
            .flat_map(Layer::linears_mut)
            .map(|linear| &mut linear.weight)
            .chain(&mut self.lm_head)
    }

    /// Final hidden states of a packed batch, [tokens, width].
    pub fn hidden(&self, tokens: Tokens<'_>) -> Tensor<2> {
        if let Some(layers) = self.host_layers() {
            return self.host_trunk(&layers, tokens, None);
        }
        let heads = self.config.heads;
        self.trunk(tokens, &mut |_, [q, k, v]| {
            attention(q, k, v, tokens.segments, heads)
        })
    }

    /// Final hidden states of a packed batch for training, and what their gradient needs.
    ///
    /// The embedding's gradient is one of few rows, and the head's is known before the backward pass
    /// begins: neither goes through autodiff, see [`Trail`].
    pub fn tracked(&self, tokens: Tokens<'_>) -> (Tensor<2>, Trail) {
        let plain = embedding(self.embed_tokens.clone().inner(), tokens.ids);
        let embedded = Tensor::from_inner(plain).require_grad();
        let table = RopeTable::new(tokens.positions, &self.frequencies);
        let mut trail = Trail {
            ids: tokens.ids.to_vec(),
            segments: tokens.segments.to_vec(),
            table,
            leaf: embedded.clone(),
            inputs: Vec::new(),
        };
        let mut h = embedded;
        for layer in &self.layers {
            if self.recompute {
                // Without a record: the backward pass comes by again.
                let input = h.inner();
                h = Tensor::from_inner(self.frozen_layer(layer, input.clone(), &trail));
                trail.inputs.push(input);
            } else {
                h = self.layer(layer, h, &trail);
            }
        }
        if self.recompute {
            h = h.require_grad();
            trail.leaf = h.clone();
        }
        let hidden = rms_norm(h, self.norm.clone(), self.config.norm_epsilon);
        (hidden, trail)
    }

    fn layer(&self, layer: &Layer, h: Tensor<2>, trail: &Trail) -> Tensor<2> {
        let heads = self.config.heads;
        self.through(layer, h, &trail.table, &mut |[q, k, v]| {
            attention(q, k, v, &trail.segments, heads)
        })
    }

    fn frozen_layer(&self, layer: &Layer, h: Tensor<2>, trail: &Trail) -> Tensor<2> {
        let mut layer = layer.clone();
        let mut list = Vec::new();
        layer.parameters("", &mut list);
        for (_, parameter) in list {
            parameter.untrack();
        }
        self.layer(&layer, h, trail)
    }

    /// Final hidden states of tokens that continue the rows of a cache; `rows[i]` is the row of
    /// segment i. Positions must continue the rows' lengths.
    pub fn hidden_cached(
        &self,
        tokens: Tokens<'_>,
        rows: &[usize],
        cache: &mut KvCache,
    ) -> Tensor<2> {
        if let Some(layers) = self.host_layers() {
            return self.host_trunk(&layers, tokens, Some((cache, rows)));
        }
        self.trunk(tokens, &mut |layer, qkv| {
            cache.attend(layer, qkv, tokens.segments, rows)
        })
    }

    /// An empty cache of this network.
    pub fn cache(&self, rows: usize, capacity: usize) -> KvCache {
        let (layers, heads) = (self.config.layers, self.config.heads);
        KvCache::new(layers, heads, rows, capacity, self.precision())
    }

    /// The layers for inference on the CPU, if that is what this network is for.
    fn host_layers(&self) -> Option<Arc<[HostLayer]>> {
        let Some(kept) = &self.host_layers else {
            return self.make_host_layers();
        };
        match distil_kernels::is_portable() {
            false => Some(kept.clone()),
            true => None,
        }
    }

    fn make_host_layers(&self) -> Option<Arc<[HostLayer]>> {
        let layer = |layer: &Layer| {
            let of = |linear: &'_ Linear| (linear.weight.clone(), linear.bias.clone());
            let linears = layer.linears().map(of);
            let parameters = LayerParameters {
                norms: [&layer.input_layernorm, &layer.post_attention_layernorm],
                linears: linears.each_ref().map(|(w, b)| (w, b.as_ref())),
                head_norms: layer
                    .q_norm
                    .as_ref()
                    .zip(layer.k_norm.as_ref())
                    .map(<[_; 2]>::from),
            };
            HostLayer::new(&parameters, self.config.heads, self.config.norm_epsilon)
        };
        self.layers.iter().map(layer).collect()
    }

    fn host_trunk(
        &self,
        layers: &[HostLayer],
        tokens: Tokens<'_>,
        cache: Option<(&mut KvCache, &[usize])>,
    ) -> Tensor<2> {
        let embedded = embedding(self.embed_tokens.clone(), tokens.ids);
        let pass = Pass {
            segments: tokens.segments,
            table: &RopeTable::new(tokens.positions, &self.frequencies),
            cache,
        };
        let h = run_layers(layers, embedded, pass);
        rms_norm(h, self.norm.clone(), self.config.norm_epsilon)
    }

    fn trunk(
        &self,
        tokens: Tokens<'_>,
        attend: &mut dyn FnMut(usize, [Tensor<2>; 3]) -> Tensor<2>,
    ) -> Tensor<2> {
        let table = RopeTable::new(tokens.positions, &self.frequencies);
        let mut h = embedding(self.embed_tokens.clone(), tokens.ids);
        for (index, layer) in self.layers.iter().enumerate() {
            h = self.through(layer, h, &table, &mut |qkv| attend(index, qkv));
        }
        rms_norm(h, self.norm.clone(), self.config.norm_epsilon)
    }

    /// One layer.
    fn through(
        &self,
        layer: &Layer,
        h: Tensor<2>,
        table: &RopeTable,
        attend: &mut dyn FnMut([Tensor<2>; 3]) -> Tensor<2>,
    ) -> Tensor<2> {
        let epsilon = self.config.norm_epsilon;
        let x = rms_norm(h.clone(), layer.input_layernorm.clone(), epsilon);
        let q = self.head_norm(layer.q_proj.forward(x.clone()), &layer.q_norm);
        let k = self.head_norm(layer.k_proj.forward(x.clone()), &layer.k_norm);
        let v = layer.v_proj.forward(x);
        let mixed = attend([rope(q, table), rope(k, table), v]);
        let h = h + layer.o_proj.forward(mixed);
        let x = rms_norm(h.clone(), layer.post_attention_layernorm.clone(), epsilon);
        let gated = swiglu(layer.gate_proj.forward(x.clone()), layer.up_proj.forward(x));
        h + layer.down_proj.forward(gated)
    }

    /// Qwen3's norm of each head by itself.
    fn head_norm(&self, x: Tensor<2>, weight: &Option<Tensor<1>>) -> Tensor<2> {
        let Some(weight) = weight else { return x };
        let [n, width] = x.dims();
        let e = self.config.heads.dimension;
        let heads = x.reshape([n * width / e, e]);
        rms_norm(heads, weight.clone(), self.config.norm_epsilon).reshape([n, width])
    }

    /// Whether the backward pass computes each layer's activations again instead of keeping them.
    pub fn with_recompute(mut self, recompute: bool) -> Self {
        self.recompute = recompute;
        self
    }

    /// Whether [`Llama::with_recompute`] is in effect.
    pub fn recomputes(&self) -> bool {
        self.recompute
    }

    /// d `loss` / d parameters of a loss on what [`Llama::tracked`] gave. `collect` receives, one or
    /// several times, the gradients that autodiff found, and at the end the embedded tokens' own,
    /// [tokens, width].
    pub fn backward(
        &self,
        loss: Tensor<1>,
        trail: Trail,
        collect: &mut dyn FnMut(&mut burn::tensor::Gradients),
    ) -> Option<Tensor<2>> {
        let mut found = loss.backward();
        let mut d = trail.leaf.grad_remove(&mut found)?;
        collect(&mut found);
        drop(found);
        let mut trail = trail;
        while let Some(input) = trail.inputs.pop() {
            let layer = &self.layers[trail.inputs.len()];
            let leaf = Tensor::from_inner(input).require_grad();
            let out = self.layer(layer, leaf.clone(), &trail);
            let mut found = distil_kernels::attach_gradient(out, 0.0, d).backward();
            d = leaf.grad_remove(&mut found)?;
            collect(&mut found);
        }
        Some(d)
    }

    /// Every parameter with its Hugging Face name, in the order of the forward pass.
    pub fn parameters(&mut self) -> Vec<(String, Parameter<'_>)> {
        let mut list = vec![(
            "model.embed_tokens.weight".to_owned(),
            Parameter::Matrix(&mut self.embed_tokens),
        )];
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.parameters(&format!("model.layers.{i}"), &mut list);
        }
        list.push((
            "model.norm.weight".into(),
            Parameter::Vector(&mut self.norm),
        ));
        if let Some(Weight::Plain(head, _)) = &mut self.lm_head {
            list.push(("lm_head.weight".into(), Parameter::Matrix(head)));
        }
        list
    }

    /// Number of parameters.
    pub fn size(&self) -> usize {
        let mut this = self.clone();
        let parameters = this.parameters().into_iter();
        let count = |(_, p): (_, Parameter)| match p {
            Parameter::Vector(t) => t.shape().num_elements(),
            Parameter::Matrix(t) => t.shape().num_elements(),
        };
        let plain: usize = parameters.map(count).sum();
        let packed = this.weights().filter(|weight| weight.tensor().is_none());
        plain
            + packed
                .map(|w| w.dims().iter().product::<usize>())
                .sum::<usize>()
    }

    /// The same network whose every parameter is tracked by autodiff.
    pub fn trainable(mut self) -> Self {
        self.host_layers = None;
        for (_, parameter) in self.parameters() {
            match parameter {
                Parameter::Vector(t) => t.inplace(tracked),
                Parameter::Matrix(t) => t.inplace(tracked),
            }
        }
        self
    }

    /// The same weights, untracked: what sampling and evaluation use.
    pub fn frozen(&self) -> Self {
        let mut this = self.clone();
        for (_, parameter) in this.parameters() {
            parameter.untrack();
        }
        this
    }

    /// The network that keeps only the layers `keep`, in that order. Weights are shared.
    ///
    /// # Errors
    /// A layer does not exist, is listed twice or out of order, or none is kept.
    pub fn with_layers(&self, keep: &[usize]) -> Result<Self> {
        let total = self.layers.len();
        let ascending = keep.windows(2).all(|pair| pair[0] < pair[1]);
        if keep.is_empty() || !ascending || keep.iter().any(|&i| i >= total) {
            return Err(ModelError::Request {
                what: format!("cannot keep layers {keep:?} of a model with {total} layers"),
                fix: format!("list layers between 0 and {} in ascending order", total - 1),
            });
        }
        Ok(Self {
            config: self.config.with_layers(keep.len()),
            layers: keep.iter().map(|&i| self.layers[i].clone()).collect(),
            host_layers: None,
            ..self.clone()
        })
    }
}

fn tracked<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(tensor.without_autodiff()).require_grad()
}

impl Linear {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, &self.weight, self.bias.clone())
    }

    fn parameters<'a>(&'a mut self, name: String, list: &mut Vec<(String, Parameter<'a>)>) {
        if let Weight::Plain(weight, _) = &mut self.weight {
            list.push((format!("{name}.weight"), Parameter::Matrix(weight)));
        }
        if let Some(bias) = &mut self.bias {
            list.push((format!("{name}.bias"), Parameter::Vector(bias)));
        }
    }
}

impl Layer {
    fn linears_mut(&mut self) -> [&mut Linear; 7] {
        [
            &mut self.q_proj,
            &mut self.k_proj,
            &mut self.v_proj,
            &mut self.o_proj,
            &mut self.gate_proj,
            &mut self.up_proj,
            &mut self.down_proj,
        ]
    }

    fn linears(&self) -> [&Linear; 7] {
        [
            &self.q_proj,
            &self.k_proj,
            &self.v_proj,
            &self.o_proj,
            &self.gate_proj,
            &self.up_proj,
            &self.down_proj,
        ]
    }

    fn parameters<'a>(&'a mut self, at: &str, list: &mut Vec<(String, Parameter<'a>)>) {
        let vector = |name: &str, t| (format!("{at}.{name}"), Parameter::Vector(t));
        list.push(vector("input_layernorm.weight", &mut self.input_layernorm));
        self.q_proj
            .parameters(format!("{at}.self_attn.q_proj"), list);
        self.k_proj
            .parameters(format!("{at}.self_attn.k_proj"), list);
        self.v_proj
            .parameters(format!("{at}.self_attn.v_proj"), list);
        if let Some(norm) = &mut self.q_norm {
            list.push(vector("self_attn.q_norm.weight", norm));
        }
        if let Some(norm) = &mut self.k_norm {
            list.push(vector("self_attn.k_norm.weight", norm));
        }
        self.o_proj
            .parameters(format!("{at}.self_attn.o_proj"), list);
        let norm = &mut self.post_attention_layernorm;
        list.push(vector("post_attention_layernorm.weight", norm));
        self.gate_proj
            .parameters(format!("{at}.mlp.gate_proj"), list);
        self.up_proj.parameters(format!("{at}.mlp.up_proj"), list);
        self.down_proj
            .parameters(format!("{at}.mlp.down_proj"), list);
    }
}

/// Makes tensors of a known name and shape.
struct Maker<'a> {
    read: &'a mut ReadTensor<'a>,
    device: &'a Device,
}

impl Maker<'_> {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        let values = (self.read)(name, &shape)?;
        Ok(Tensor::from_data(
            TensorData::new(values, shape),
            self.device,
        ))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>> {
        let values = (self.read)(name, &[length])?;
        Ok(Tensor::from_data(
            TensorData::new(values, [length]),
            self.device,
        ))
    }

    fn optional(&mut self, is: bool, name: &str, length: usize) -> Result<Option<Tensor<1>>> {
        is.then(|| self.vector(name, length)).transpose()
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), shape)?.into(),
            bias: self.optional(bias, &format!("{name}.bias"), shape[0])?,
        })
    }
}

fn read_tensor(weights: &Weights, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let wrong = |what: String| ModelError::Tensor {
        path: weights.path().to_owned(),
        name: name.to_owned(),
        what,
    };
    match weights.shape(name) {
        None => Err(wrong(
            "is missing; the file is incomplete or its config.json is of another model".into(),
        )),
        Some(found) if found != shape => Err(wrong(format!(
            "has shape {found:?} where config.json asks for {shape:?}; \
             the weights and the configuration are of different models"
        ))),
        Some(_) => weights.load_f32(name),
    }
}
