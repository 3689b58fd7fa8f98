//! Tensors of a GGUF file under the names, and with the rows, that they have in Hugging Face's files.
//!
//! | GGUF | Hugging Face |
//! |---|---|
//! | `token_embd`, `output_norm`, `output` | `model.embed_tokens`, `model.norm`, `lm_head` |
//! | `blk.N.attn_norm`, `blk.N.ffn_norm` | `model.layers.N.input_layernorm`, `.post_attention_layernorm` |
//! | `blk.N.attn_q`, `attn_k`, `attn_v`, `attn_output` | `.self_attn.q_proj`, `k_proj`, `v_proj`, `o_proj` |
//! | `blk.N.attn_q_norm`, `attn_k_norm` | `.self_attn.q_norm`, `k_norm` |
//! | `blk.N.ffn_gate`, `ffn_up`, `ffn_down` | `.mlp.gate_proj`, `up_proj`, `down_proj` |
//!
//! Rotary embeddings turn pairs of rows of a head: Hugging Face pairs row i with row i + d/2, and llama.cpp's
//! `llama` architecture row 2i with row 2i + 1. Its converter therefore permutes the rows of q and k, weights
//! and biases alike; this is undone here. Qwen2 and Qwen3 pair as Hugging Face does and are not permuted.

use std::collections::BTreeMap;

use super::gguf::GgufFile;
use super::gguf_value::GgufValue;
use crate::error::{ModelError, Result};

/// The factors that llama.cpp's converter makes of Llama 3's rotary scaling. Not a weight: it becomes
/// `rope_scaling` of the configuration.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Values of `general.architecture` that can be read. Mistral's models are of architecture `llama`.
const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// Refuses a file whose architecture is not one of ours, or with a tensor that has no place in it.
///
/// # Errors
/// [`ModelError::Unsupported`] with the architecture or the tensor's name.
pub(crate) fn check(file: &GgufFile) -> Result<()> {
    let architecture = file.architecture();
    let unsupported = |feature| ModelError::Unsupported {
        path: file.path().to_owned(),
        feature,
        fix: "GGUF models of the architectures llama (with Mistral), qwen2 and qwen3 can be read"
            .to_owned(),
    };
    if !ARCHITECTURES.contains(&architecture) {
        return Err(unsupported(format!("architecture `{architecture}`")));
    }
    let mut unknown: Vec<_> = file
        .tensor_names()
        .filter(|name| *name != ROPE_FACTORS && hugging_face_name(architecture, name).is_none())
        .collect();
    unknown.sort_unstable();
    match unknown.first() {
        None => Ok(()),
        Some(name) => Err(unsupported(format!(
            "tensor `{name}` in a model of architecture `{architecture}`"
        ))),
    }
}

/// Hugging Face name → GGUF name, for all tensors of `file` that have one.
pub(crate) fn by_hugging_face_name(file: &GgufFile) -> BTreeMap<String, String> {
    let pair =
        |name: &str| hugging_face_name(file.architecture(), name).map(|new| (new, name.to_owned()));
    file.tensor_names().filter_map(pair).collect()
}

/// The Hugging Face name of a GGUF tensor.
fn hugging_face_name(architecture: &str, name: &str) -> Option<String> {
    let name = match name {
        "token_embd.weight" => "model.embed_tokens.weight",
        "output_norm.weight" => "model.norm.weight",
        "output.weight" => "lm_head.weight",
        _ => return layer_tensor_name(architecture, name.strip_prefix("blk.")?),
    };
    Some(name.to_owned())
}

/// The same for what follows `blk.`, for example `3.attn_q.weight`.
fn layer_tensor_name(architecture: &str, name: &str) -> Option<String> {
    let (layer, rest) = name.split_once('.')?;
    let (module, kind) = rest.split_once('.')?;
    // Only the plain spelling of a number, so that two tensors cannot get one name.
    let layer = layer
        .parse::<u32>()
        .ok()
        .filter(|number| number.to_string() == layer)?;
    let (module, may_have_bias) = match module {
        "attn_norm" => ("input_layernorm", false),
        "ffn_norm" => ("post_attention_layernorm", false),
        "attn_q" => ("self_attn.q_proj", true),
        "attn_k" => ("self_attn.k_proj", true),
        "attn_v" => ("self_attn.v_proj", true),
        "attn_output" => ("self_attn.o_proj", true),
        "attn_q_norm" if architecture == "qwen3" => ("self_attn.q_norm", false),
        "attn_k_norm" if architecture == "qwen3" => ("self_attn.k_norm", false),
        "ffn_gate" => ("mlp.gate_proj", true),
        "ffn_up" => ("mlp.up_proj", true),
        "ffn_down" => ("mlp.down_proj", true),
        _ => return None,
    };
    (kind == "weight" || kind == "bias" && may_have_bias)
        .then(|| format!("model.layers.{layer}.{module}.{kind}"))
}

/// `weights` of a tensor with its rows in Hugging Face's order.
///
/// # Errors
/// The metadata does not say how many heads there are, or the rows do not divide into them.
pub(crate) fn hugging_face_rows(
    file: &GgufFile,
    name: &str,
    gguf_name: &str,
    weights: Vec<f32>,
) -> Result<Vec<f32>> {
    let architecture = file.architecture();
    let key = match gguf_name.split('.').nth(2) {
        Some("attn_q") => "attention.head_count",
        Some("attn_k") => "attention.head_count_kv",
        _ => return Ok(weights),
    };
    if architecture != "llama" {
        return Ok(weights);
    }
    let count = |key: &str| uniform(file.metadata(&format!("{architecture}.{key}"))?);
    // Files of models whose query heads each have their own key head may leave the second number out.
    let heads = count(key).or_else(|| count("attention.head_count"));
    let rows = file
        .tensor(gguf_name)
        .and_then(|tensor| tensor.shape.first().copied())
        .unwrap_or(0);
    let head_dim = heads
        .and_then(|heads| usize::try_from(heads).ok())
        .filter(|heads| *heads > 0)
        .and_then(|heads| rows.is_multiple_of(heads).then_some(rows / heads));
    match head_dim {
        Some(head_dim) if head_dim > 0 && head_dim.is_multiple_of(2) => Ok(split_pairs(&weights, rows, head_dim)),
        _ => Err(file.tensor_error(
            name,
            format!("has {rows} rows, which do not divide into heads of an even size (`{architecture}.{key}`)"),
        )),
    }
}

/// Moves row 2i + s of every head to row i + s · `head_dim` / 2.
fn split_pairs(weights: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let width = weights.len() / rows;
    let mut moved = Vec::with_capacity(weights.len());
    for head in weights.chunks(head_dim * width) {
        for side in 0..2 {
            head.chunks(width)
                .skip(side)
                .step_by(2)
                .for_each(|row| moved.extend_from_slice(row));
        }
    }
    moved
}

/// An integer, given once or as an array with the same value for every layer.
pub(crate) fn uniform(value: &GgufValue) -> Option<u64> {
    let Some(values) = value.as_array() else {
        return value.as_u64();
    };
    let first = values.first()?.as_u64()?;
    values
        .iter()
        .all(|value| value.as_u64() == Some(first))
        .then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::testing::GgufWriter;

    #[test]
    fn every_tensor_gets_its_hugging_face_name() {
        let file = GgufWriter::model("llama").read().unwrap();
        check(&file).unwrap();
        let layer = |rest: &str| format!("model.layers.0.{rest}.weight");
        let expected = [
            "model.embed_tokens.weight".to_owned(),
            layer("input_layernorm"),
            layer("mlp.down_proj"),
            layer("mlp.gate_proj"),
            layer("mlp.up_proj"),
            layer("post_attention_layernorm"),
            layer("self_attn.k_proj"),
            layer("self_attn.o_proj"),
            layer("self_attn.q_proj"),
            layer("self_attn.v_proj"),
            "model.norm.weight".to_owned(),
        ];
        assert_eq!(file.names(), expected);
        let named = |name| hugging_face_name("qwen3", name);
        assert_eq!(
            named("blk.11.attn_q.bias").unwrap(),
            "model.layers.11.self_attn.q_proj.bias"
        );
        assert_eq!(
            named("blk.2.attn_q_norm.weight").unwrap(),
            "model.layers.2.self_attn.q_norm.weight"
        );
        assert_eq!(
            named("blk.2.attn_k_norm.weight").unwrap(),
            "model.layers.2.self_attn.k_norm.weight"
        );
        assert_eq!(named("output.weight").unwrap(), "lm_head.weight");
    }

    #[test]
    fn tensors_without_a_place_are_refused_by_name() {
        for name in [
            "blk.0.attn_q_norm.weight",
            "blk.0.ffn_gate_exps.weight",
            "blk.0.attn_norm.bias",
            "blk.00.attn_v.bias",
            "blk.x.attn_v.bias",
            "blk.0.attn_q.scale",
            "blk.0",
            "output.bias",
        ] {
            let mut writer = GgufWriter::model("llama");
            writer.tensor(name, &[8], &[0.0; 8]);
            let message = check(&writer.read().unwrap()).unwrap_err().to_string();
            assert!(message.contains(&format!("tensor `{name}`")), "{message}");
        }
        let message = check(&GgufWriter::model("gemma2").read().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("architecture `gemma2`") && message.contains("qwen3"),
            "{message}"
        );
    }

    /// A model whose query weight and bias are the numbers of their rows, with two heads of `head_dim`.
    fn numbered(architecture: &str, head_dim: u64) -> GgufWriter {
        let mut writer = GgufWriter::new(architecture);
        writer.set(
            &format!("{architecture}.attention.head_count"),
            GgufValue::U32(2),
        );
        let rows = 2 * head_dim;
        let twice: Vec<f32> = (0..rows)
            .flat_map(|row| [row as f32, row as f32 + 0.5])
            .collect();
        let once: Vec<f32> = (0..rows).map(|row| row as f32).collect();
        writer.tensor("blk.0.attn_q.weight", &[2, rows], &twice);
        writer.tensor("blk.0.attn_q.bias", &[rows], &once);
        writer.tensor("blk.0.attn_k.bias", &[rows], &once);
        writer.tensor("blk.0.attn_v.bias", &[rows], &once);
        writer
    }

    #[test]
    fn llamas_rotary_pairs_move_back() {
        // llama.cpp's converter writes rows 0 1 2 | 3 4 5 of a head as the pairs 0 3, 1 4, 2 5. So where the
        // file has 0 1 2 3 4 5, Hugging Face has the first of each pair, 0 2 4, and then the second, 1 3 5.
        let file = numbered("llama", 6).read().unwrap();
        let order = [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0];
        let load = |part: &str| {
            file.load_f32(&format!("model.layers.0.self_attn.{part}"))
                .unwrap()
        };
        assert_eq!(load("q_proj.bias"), order);
        assert_eq!(load("k_proj.bias"), order);
        assert_eq!(
            load("q_proj.weight"),
            order.map(|row| [row, row + 0.5]).concat()
        );
        assert_eq!(
            load("v_proj.bias"),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
        );
        let file = numbered("qwen2", 2).read().unwrap();
        let bias = file
            .load_f32("model.layers.0.self_attn.q_proj.bias")
            .unwrap();
        assert_eq!(bias, [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn key_heads_have_their_own_number() {
        let mut writer = numbered("llama", 6);
        writer.set(
            "llama.attention.head_count_kv",
            GgufValue::Array(vec![GgufValue::I32(3); 2]),
        );
        let keys = writer
            .read()
            .unwrap()
            .load_f32("model.layers.0.self_attn.k_proj.bias")
            .unwrap();
        assert_eq!(
            keys,
            [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0, 8.0, 10.0, 9.0, 11.0]
        );
    }

    #[test]
    fn rows_that_do_not_divide_into_heads_are_refused() {
        for heads in [0, 5, 12, u32::MAX] {
            let mut writer = numbered("llama", 6);
            writer.set("llama.attention.head_count", GgufValue::U32(heads));
            let error = writer
                .read()
                .unwrap()
                .load_f32("model.layers.0.self_attn.q_proj.weight")
                .unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("q_proj.weight") && message.contains("head_count"),
                "{message}"
            );
        }
    }
}
