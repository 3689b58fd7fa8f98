//! The `config.json` and `generation_config.json` that a GGUF file's metadata amounts to.
//!
//! Sizes come from the metadata and are held against the tensors' shapes. What the metadata says and no
//! configuration here can express is refused: a model computed in another way than it was trained is worse
//! than none.

use serde_json::{Map, Value, json};

use super::gguf::GgufFile;
use super::gguf_metadata::Reader;
use super::gguf_names::{self, ROPE_FACTORS};
use super::gguf_rope;
use super::gguf_value::GgufValue;
use crate::error::Result;

/// Keys below the architecture's name that are read here, or change nothing for these architectures.
const KNOWN_KEYS: [&str; 21] = [
    "vocab_size",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "expert_count",
    "expert_used_count",
    "tensor_data_layout",
];

/// The Hugging Face configuration of a GGUF model.
///
/// # Errors
/// The architecture or a feature that the metadata asks for is not supported; a key is missing, or says
/// something else than the tensors.
pub(crate) fn config_json(file: &GgufFile) -> Result<Value> {
    gguf_names::check(file)?;
    let reader = Reader {
        file,
        architecture: file.architecture(),
    };
    refuse_unknown_keys(&reader)?;
    let hidden = reader.size("embedding_length")?;
    let intermediate = reader.size("feed_forward_length")?;
    let heads = reader.size("attention.head_count")?;
    let key_value_heads = reader
        .optional_size("attention.head_count_kv")?
        .unwrap_or(heads);
    reader.check_dimension("token_embd.weight", 1, hidden)?;
    reader.check_dimension("blk.0.ffn_up.weight", 0, intermediate)?;
    let head_dim = head_dim(&reader, hidden, heads)?;
    let epsilon = reader.optional_number("attention.layer_norm_rms_epsilon")?;
    let epsilon = epsilon.ok_or_else(|| {
        reader.format(format!(
            "metadata `{}` is missing",
            reader.key("attention.layer_norm_rms_epsilon")
        ))
    })?;
    let theta = reader.optional_number("rope.freq_base")?.unwrap_or(10000.0);

    let (class, model_type) = family(&reader);
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
    set("architectures", json!([class]));
    set("model_type", json!(model_type));
    set(
        "vocab_size",
        json!(reader.dimension("token_embd.weight", 0)?),
    );
    set("hidden_size", json!(hidden));
    set("intermediate_size", json!(intermediate));
    set("num_hidden_layers", json!(reader.size("block_count")?));
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(key_value_heads));
    set("head_dim", json!(head_dim));
    set("hidden_act", json!("silu"));
    set(
        "max_position_embeddings",
        json!(reader.size("context_length")?),
    );
    set("rms_norm_eps", json!(epsilon));
    set("rope_theta", json!(theta));
    set("rope_scaling", rope_scaling(&reader, head_dim, theta)?);
    set(
        "tie_word_embeddings",
        json!(file.tensor("output.weight").is_none()),
    );
    let has_bias = |part: &str| {
        file.tensor_names()
            .any(|name| name.contains(part) && name.ends_with(".bias"))
    };
    // Qwen2 always has the three biases and no key for them; Mistral has neither.
    if matches!(model_type, "llama" | "qwen3") {
        set("attention_bias", json!(has_bias(".attn_")));
    }
    if model_type == "llama" {
        set("mlp_bias", json!(has_bias(".ffn_")));
    }
    if model_type == "mistral" {
        // Left out, transformers would take 4096.
        set(
            "sliding_window",
            json!(reader.optional_size("attention.sliding_window")?),
        );
    } else if reader.optional("attention.sliding_window").is_some() {
        return Err(reader.unsupported(
            format!("metadata `{}`", reader.key("attention.sliding_window")),
            "only Mistral's sliding windows can be read",
        ));
    }
    for (key, metadata) in TOKEN_IDS {
        if let Some(id) = token_id(file, metadata) {
            set(key, json!(id));
        }
    }
    Ok(Value::Object(config))
}

/// Keys of the configuration with those of the metadata.
const TOKEN_IDS: [(&str, &str); 3] = [
    ("bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("eos_token_id", "tokenizer.ggml.eos_token_id"),
    ("pad_token_id", "tokenizer.ggml.padding_token_id"),
];

fn token_id(file: &GgufFile, key: &str) -> Option<u64> {
    // llama.cpp writes −1, also as an unsigned number, for a token that the model does not have.
    file.metadata(key)?
        .as_u64()
        .filter(|id| *id < u64::from(u32::MAX))
}

/// The generation configuration of a GGUF model: which tokens begin, end and pad a text. Ends of a turn and
/// of a message end it too.
pub(crate) fn generation_config_json(file: &GgufFile) -> Option<Value> {
    let mut config = Map::new();
    for (key, metadata) in TOKEN_IDS {
        if let Some(id) = token_id(file, metadata) {
            config.insert(key.to_owned(), json!(id));
        }
    }
    let mut stops = Vec::new();
    for kind in ["eos", "eot", "eom"] {
        match token_id(file, &format!("tokenizer.ggml.{kind}_token_id")) {
            Some(id) if !stops.contains(&id) => stops.push(id),
            _ => {}
        }
    }
    if stops.len() > 1 {
        config.insert("eos_token_id".to_owned(), json!(stops));
    }
    (!config.is_empty()).then_some(Value::Object(config))
}

/// A key that this reader does not know may change what the model computes.
fn refuse_unknown_keys(reader: &Reader<'_>) -> Result<()> {
    let prefix = reader.key("");
    let keys = reader
        .file
        .metadata_keys()
        .filter_map(|key| key.strip_prefix(&prefix));
    let mut unknown: Vec<_> = keys.filter(|key| !KNOWN_KEYS.contains(key)).collect();
    unknown.sort_unstable();
    let experts = || {
        reader
            .optional("expert_count")
            .is_some_and(|count| count.as_u64() != Some(0))
    };
    let key = match unknown.first() {
        Some(key) => key,
        None if experts() => "expert_count",
        None => return Ok(()),
    };
    Err(reader.unsupported(
        format!("metadata `{}`", reader.key(key)),
        "plain dense models of the architectures llama, qwen2 and qwen3 can be read",
    ))
}

/// Class and model type in transformers. Mistral's models are `llama` in GGUF and the same arithmetic, but
/// for a sliding window, which Llama's class would ignore. Mistral's class has no biases.
fn family(reader: &Reader<'_>) -> (&'static str, &'static str) {
    let named = |key: &str| {
        let name = reader
            .file
            .metadata(key)
            .and_then(GgufValue::as_str)
            .unwrap_or_default();
        name.to_lowercase().contains("mistral")
    };
    let has_bias = || {
        reader
            .file
            .tensor_names()
            .any(|name| name.ends_with(".bias"))
    };
    match reader.architecture {
        "qwen2" => ("Qwen2ForCausalLM", "qwen2"),
        "qwen3" => ("Qwen3ForCausalLM", "qwen3"),
        _ if reader.optional("attention.sliding_window").is_some()
            || (named("general.name") || named("general.basename")) && !has_bias() =>
        {
            ("MistralForCausalLM", "mistral")
        }
        _ => ("LlamaForCausalLM", "llama"),
    }
}

/// The width of a head, which the query projection must confirm, and which all of the head must rotate.
fn head_dim(reader: &Reader<'_>, hidden: u64, heads: u64) -> Result<u64> {
    let key_length = reader.optional_size("attention.key_length")?;
    let head_dim = match key_length {
        Some(length) => length,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(reader.format(format!("{heads} heads do not divide a width of {hidden}")));
        }
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(length) = reader
            .optional_size(key)?
            .filter(|length| *length != head_dim)
        {
            return Err(reader.unsupported(
                format!(
                    "metadata `{}` = {length} with heads of {head_dim}",
                    reader.key(key)
                ),
                "keys, values and their rotated part must have one width",
            ));
        }
    }
    let rows = heads
        .checked_mul(head_dim)
        .ok_or_else(|| reader.format("the heads are impossibly wide".to_owned()))?;
    reader.check_dimension("blk.0.attn_q.weight", 0, rows)?;
    Ok(head_dim)
}

/// `rope_scaling`: null, linear, or llama3.
fn rope_scaling(reader: &Reader<'_>, head_dim: u64, theta: f64) -> Result<Value> {
    let kind = reader
        .optional("rope.scaling.type")
        .map(|kind| kind.as_str().unwrap_or("(not text)"));
    let linear = match kind {
        // Files from before the type had a key give the factor alone.
        None => match reader.optional_number("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => reader.optional_number("rope.scale_linear")?,
        },
        Some("none") => None,
        Some("linear") => Some(reader.optional_number("rope.scaling.factor")?.ok_or_else(
            || {
                reader.format(format!(
                    "metadata `{}` is missing",
                    reader.key("rope.scaling.factor")
                ))
            },
        )?),
        Some(other) => {
            return Err(reader.unsupported(
                format!("`{}` = `{other}`", reader.key("rope.scaling.type")),
                "the rotary scalings linear and llama3 can be read",
            ));
        }
    };
    let linear = linear.filter(|factor| *factor != 1.0);
    let Some(tensor) = reader.file.tensor(ROPE_FACTORS) else {
        return Ok(linear.map_or(
            Value::Null,
            |factor| json!({"rope_type": "linear", "factor": factor}),
        ));
    };
    let factors = reader.file.dequantize(ROPE_FACTORS, tensor)?;
    match (linear, gguf_rope::llama3_scaling(&factors, head_dim, theta)) {
        (None, Some(scaling)) => Ok(scaling),
        _ => Err(reader.unsupported(
            format!("the rotary scaling in tensor `{ROPE_FACTORS}`"),
            "its factors must be those of Llama 3's scaling, and no other scaling may be given beside them; \
             use the model's Hugging Face directory",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::testing::GgufWriter;

    fn config(writer: &GgufWriter) -> Value {
        config_json(&writer.read().unwrap()).unwrap()
    }

    fn refused(writer: &GgufWriter) -> String {
        config_json(&writer.read().unwrap())
            .unwrap_err()
            .to_string()
    }

    fn text(text: &str) -> GgufValue {
        GgufValue::String(text.to_owned())
    }

    #[test]
    fn a_llama_has_all_keys() {
        let mut writer = GgufWriter::model("llama");
        writer.set("tokenizer.ggml.bos_token_id", GgufValue::U32(1));
        writer.set("tokenizer.ggml.eos_token_id", GgufValue::U32(2));
        writer.set("tokenizer.ggml.padding_token_id", GgufValue::U32(u32::MAX));
        let expected = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": 5,
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 4,
            "hidden_act": "silu",
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": null,
            "tie_word_embeddings": true,
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": 1,
            "eos_token_id": 2,
        });
        assert_eq!(config(&writer), expected);
    }

    #[test]
    fn biases_heads_and_theta_follow_the_file() {
        let mut writer = GgufWriter::model("qwen2");
        writer.set("qwen2.rope.freq_base", GgufValue::F32(1e6));
        writer.tensor("blk.0.attn_q.bias", &[8], &[0.0; 8]);
        writer.tensor("output.weight", &[8, 5], &[0.0; 40]);
        let qwen = config(&writer);
        assert_eq!(
            (&qwen["model_type"], &qwen["rope_theta"]),
            (&json!("qwen2"), &json!(1e6))
        );
        assert_eq!(
            (&qwen["tie_word_embeddings"], qwen.get("attention_bias")),
            (&json!(false), None)
        );
        // Heads that are wider than the width divided by their number.
        let mut writer = GgufWriter::model("qwen3");
        writer.set("qwen3.attention.head_count", GgufValue::U32(1));
        writer.set("qwen3.attention.key_length", GgufValue::U32(8));
        writer.set("qwen3.attention.value_length", GgufValue::U32(8));
        let qwen = config(&writer);
        assert_eq!(
            (&qwen["architectures"], &qwen["head_dim"]),
            (&json!(["Qwen3ForCausalLM"]), &json!(8))
        );
        let mut writer = GgufWriter::model("llama");
        writer.tensor("blk.0.attn_v.bias", &[4], &[0.0; 4]);
        assert_eq!(config(&writer)["attention_bias"], json!(true));
        writer.tensor("blk.0.ffn_up.bias", &[12], &[0.0; 12]);
        assert_eq!(config(&writer)["mlp_bias"], json!(true));
    }

    #[test]
    fn mistral_is_known_by_its_name_or_its_window() {
        let mut writer = GgufWriter::model("llama");
        writer.set("general.basename", text("Mistral-7B"));
        let mistral = config(&writer);
        assert_eq!(mistral["architectures"], json!(["MistralForCausalLM"]));
        assert_eq!(
            (&mistral["sliding_window"], mistral.get("attention_bias")),
            (&Value::Null, None)
        );
        let mut writer = GgufWriter::model("llama");
        writer.set("llama.attention.sliding_window", GgufValue::U32(32));
        assert_eq!(config(&writer)["model_type"], json!("mistral"));
        assert_eq!(config(&writer)["sliding_window"], json!(32));
        let mut writer = GgufWriter::model("qwen2");
        writer.set("qwen2.attention.sliding_window", GgufValue::U32(32));
        assert!(refused(&writer).contains("qwen2.attention.sliding_window"));
    }

    #[test]
    fn rotary_scalings_are_linear_llama3_or_refused() {
        let linear = json!({"rope_type": "linear", "factor": 2.5});
        let mut writer = GgufWriter::model("llama");
        writer.set("llama.rope.scaling.factor", GgufValue::F32(2.5));
        assert_eq!(config(&writer)["rope_scaling"], linear);
        writer.set("llama.rope.scaling.type", text("linear"));
        assert_eq!(config(&writer)["rope_scaling"], linear);
        writer.set("llama.rope.scaling.type", text("none"));
        assert_eq!(config(&writer)["rope_scaling"], Value::Null);
        writer.set("llama.rope.scaling.type", text("yarn"));
        assert!(refused(&writer).contains("`llama.rope.scaling.type` = `yarn`"));
        writer.set("llama.rope.scaling.type", text("linear"));
        writer.remove("llama.rope.scaling.factor");
        assert!(refused(&writer).contains("`llama.rope.scaling.factor` is missing"));

        // Heads of 4 with θ = 10 million: waves of 6 and 19 869 tokens, one under 8192 / 4 and one over 8192.
        let mut writer = GgufWriter::model("llama");
        writer.set("llama.rope.freq_base", GgufValue::F32(10_000_000.0));
        writer.tensor("rope_freqs.weight", &[2], &[1.0, 32.0]);
        assert_eq!(config(&writer)["rope_scaling"]["factor"], json!(32.0));
        assert_eq!(
            config(&writer)["rope_scaling"]["rope_type"],
            json!("llama3")
        );
        assert!(
            !writer
                .read()
                .unwrap()
                .names()
                .iter()
                .any(|name| name.contains("rope"))
        );
        writer.set("llama.rope.scaling.factor", GgufValue::F32(2.0));
        assert!(refused(&writer).contains("rope_freqs.weight"));
        let mut writer = GgufWriter::model("llama");
        writer.tensor("rope_freqs.weight", &[2], &[1.5, 32.0]);
        assert!(refused(&writer).contains("rope_freqs.weight"));
    }

    #[test]
    fn what_a_configuration_cannot_say_is_refused() {
        let with = |change: &dyn Fn(&mut GgufWriter)| {
            let mut writer = GgufWriter::model("llama");
            change(&mut writer);
            refused(&writer)
        };
        assert!(
            with(&|w| w.set("llama.logit_scale", GgufValue::F32(2.0)))
                .contains("llama.logit_scale")
        );
        assert!(
            with(&|w| w.set("llama.expert_count", GgufValue::U32(8)))
                .contains("llama.expert_count")
        );
        assert!(
            with(&|w| w.set("llama.rope.dimension_count", GgufValue::U32(2)))
                .contains("rope.dimension_count")
        );
        assert!(
            with(&|w| w.remove("llama.block_count")).contains("`llama.block_count` is missing")
        );
        assert!(
            with(&|w| w.remove("llama.attention.layer_norm_rms_epsilon"))
                .contains("rms_epsilon` is missing")
        );
        assert!(
            with(&|w| w.set("llama.block_count", GgufValue::I32(-1))).contains("positive integer")
        );
        assert!(
            with(&|w| w.set("llama.rope.freq_base", GgufValue::F32(f32::NAN)))
                .contains("positive number")
        );
        assert!(
            with(&|w| w.set("llama.embedding_length", GgufValue::U32(16))).contains("token_embd")
        );
        assert!(
            with(&|w| w.set("llama.feed_forward_length", GgufValue::U32(13))).contains("ffn_up")
        );
        assert!(
            with(&|w| w.set("llama.attention.key_length", GgufValue::U64(u64::MAX)))
                .contains("impossibly wide")
        );
        assert!(
            with(&|w| w.set("llama.attention.head_count", GgufValue::U32(3)))
                .contains("do not divide")
        );
        assert!(
            with(&|w| w
                .tensors
                .retain(|tensor| tensor.name != "token_embd.weight"))
            .contains("is missing")
        );
        let sizes = GgufValue::Array(vec![GgufValue::U32(1), GgufValue::U32(2)]);
        assert!(
            with(&|w| w.set("llama.attention.head_count_kv", sizes.clone()))
                .contains("from layer to layer")
        );
    }

    #[test]
    fn generation_stops_at_every_end() {
        let mut writer = GgufWriter::model("llama");
        assert_eq!(generation_config_json(&writer.read().unwrap()), None);
        writer.set("tokenizer.ggml.eos_token_id", GgufValue::U32(7));
        assert_eq!(
            generation_config_json(&writer.read().unwrap()),
            Some(json!({"eos_token_id": 7}))
        );
        writer.set("tokenizer.ggml.bos_token_id", GgufValue::U32(6));
        writer.set("tokenizer.ggml.eot_token_id", GgufValue::U32(9));
        writer.set("tokenizer.ggml.eom_token_id", GgufValue::U32(7));
        let expected = json!({"bos_token_id": 6, "eos_token_id": [7, 9]});
        assert_eq!(
            generation_config_json(&writer.read().unwrap()),
            Some(expected)
        );
    }
}
