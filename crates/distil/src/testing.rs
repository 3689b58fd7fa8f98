//! What this crate's tests share: a small random network.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use distil_kernels::to_host;
use distil_model::config::Config;
use distil_model::{Llama, Parameter};
use serde_json::json;

/// A seeded Llama of 2 layers, width 16, vocabulary 24, context 64, with sharp enough logits that
/// samples differ. Token 0 serves as EOS.
pub(crate) fn tiny_network(seed: u64) -> Llama {
    tiny(seed, true)
}

/// The same with an output head of its own.
pub(crate) fn untied_network(seed: u64) -> Llama {
    tiny(seed, false)
}

fn tiny(seed: u64, tied: bool) -> Llama {
    let json = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 24, "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
    });
    let config = Config::from_json(json, Path::new("tiny")).unwrap();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut read = |name: &str, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            match name.contains("norm") {
                true => 1.0 + 0.2 * x,
                false => 0.6 * x,
            }
        });
        Ok(values.collect())
    };
    Llama::build(config, &mut read, &Device::flex()).unwrap()
}

/// The network with one entry of its parameter number `which` changed by `by`.
pub(crate) fn moved(network: &Llama, which: usize, entry: usize, by: f32) -> Llama {
    let mut network = network.clone();
    let change = |mut values: Vec<f32>| {
        values[entry] += by;
        values
    };
    for (index, (_, parameter)) in network.parameters().into_iter().enumerate() {
        if index != which {
            continue;
        }
        match parameter {
            Parameter::Vector(t) => {
                let data = TensorData::new(change(to_host(t.clone())), t.dims());
                *t = Tensor::from_data(data, &t.device());
            }
            Parameter::Matrix(t) => {
                let data = TensorData::new(change(to_host(t.clone())), t.dims());
                *t = Tensor::from_data(data, &t.device());
            }
        }
    }
    network
}
