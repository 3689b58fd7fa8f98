//! A model's shape, read from Hugging Face's `config.json`.
//!
//! Every key that changes what the network computes is either implemented or refused by name. Both
//! spellings of rotary settings are read: `rope_theta` + `rope_scaling` (transformers 4) and
//! `rope_parameters` (transformers 5).

use std::path::Path;

use distil_kernels::Heads;
use serde_json::Value;

use crate::error::{ModelError, Result};

/// Which of the Llama-shaped families a model belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama and SmolLM.
    Llama,
    /// Mistral: Llama without biases.
    Mistral,
    /// Qwen2: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMS norm on each query and key head.
    Qwen3,
}

/// How rotary frequencies are stretched beyond the context a model was first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are short.
        high_freq_factor: f64,
        /// The context of the first training, in tokens.
        original: f64,
    },
}

/// The shape of a Llama-family network.
#[derive(Clone, Debug)]
pub struct Config {
    /// The family.
    pub family: Family,
    /// Vocabulary v, padding included.
    pub vocabulary: usize,
    /// Width d.
    pub width: usize,
    /// Feed-forward width f.
    pub feed_forward: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: Heads,
    /// ε of every RMS norm.
    pub norm_epsilon: f32,
    /// Rotary base θ.
    pub rope_theta: f64,
    /// Rotary scaling.
    pub rope_scaling: RopeScaling,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the feed-forward block.
    pub mlp_bias: bool,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// The file's own content, kept so that exporting loses nothing.
    json: Value,
}

/// Keys that change the computation and are not implemented, with the value that means "off".
const FEATURES_OFF: &[(&str, &[f64])] = &[
    ("attn_logit_softcapping", &[0.0]),
    ("final_logit_softcapping", &[0.0]),
    ("logit_scale", &[1.0]),
    ("logits_scaling", &[1.0]),
    ("residual_multiplier", &[1.0]),
    ("embedding_multiplier", &[1.0]),
    ("attention_multiplier", &[]),
    ("query_pre_attn_scalar", &[]),
    ("partial_rotary_factor", &[1.0]),
    ("num_local_experts", &[0.0]),
    ("num_experts", &[0.0]),
    ("no_rope_layer_interval", &[]),
];

impl Config {
    /// Reads a configuration; `path` is where it came from, for messages.
    ///
    /// # Errors
    /// A key is missing or out of range, or asks for something that is not implemented.
    pub fn from_json(json: Value, path: &Path) -> Result<Self> {
        let reader = Reader { json: &json, path };
        let family = reader.family()?;
        reader.refuse_features()?;
        let width = reader.positive("hidden_size")?;
        let query = reader.positive("num_attention_heads")?;
        let key_value = reader
            .optional_positive("num_key_value_heads")?
            .unwrap_or(query);
        if query % key_value != 0 {
            return Err(reader.wrong(format!(
                "num_attention_heads {query} is not a multiple of num_key_value_heads {key_value}"
            )));
        }
        let dimension = match reader.optional_positive("head_dim")? {
            Some(dimension) => dimension,
            None if width % query == 0 => width / query,
            None => return Err(reader.wrong("hidden_size is not a multiple of the heads".into())),
        };
        if dimension % 2 != 0 {
            return Err(reader.wrong(format!("head_dim {dimension} is odd")));
        }
        let attention_bias = reader.flag("attention_bias");
        let llama_bias = matches!(family, Family::Llama) && attention_bias;
        if !llama_bias && attention_bias && family != Family::Qwen2 {
            return Err(reader.unsupported("attention_bias in this architecture"));
        }
        let (rope_theta, rope_scaling) = reader.rope()?;
        let norm_epsilon = reader.number(reader.json, "rms_norm_eps")?.unwrap_or(1e-6);
        let mut context = reader.positive("max_position_embeddings")?;
        if let Some(window) = reader.sliding_window()? {
            // Within the window full and sliding attention are the same.
            context = context.min(window);
        }
        Ok(Self {
            family,
            vocabulary: reader.positive("vocab_size")?,
            width,
            feed_forward: reader.positive("intermediate_size")?,
            layers: reader.positive("num_hidden_layers")?,
            heads: Heads {
                query,
                key_value,
                dimension,
            },
            norm_epsilon: norm_epsilon as f32,
            rope_theta,
            rope_scaling,
            tied: reader.flag("tie_word_embeddings"),
            qkv_bias: llama_bias || family == Family::Qwen2,
            output_bias: llama_bias,
            mlp_bias: family == Family::Llama && reader.flag("mlp_bias"),
            context,
            json,
        })
    }

    /// Angular frequency of each pair of a head's dimensions, in radians a position.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let e = self.heads.dimension;
        (0..e / 2)
            .map(|i| self.rope_theta.powf(-2.0 * i as f64 / e as f64))
            .map(|frequency| self.rope_scaling.apply(frequency))
            .collect()
    }

    /// This configuration with another number of layers.
    pub fn with_layers(&self, layers: usize) -> Self {
        let mut config = self.clone();
        config.layers = layers;
        config
    }

    /// Number of parameters of a network of this shape.
    pub fn parameters(&self) -> usize {
        let (d, f, e) = (self.width, self.feed_forward, self.heads.dimension);
        let (queries, keys) = (self.heads.query * e, self.heads.key_value * e);
        let if_any = |is: bool, count: usize| if is { count } else { 0 };
        let matrices = 2 * queries * d + 2 * keys * d + 3 * f * d;
        let biases = if_any(self.qkv_bias, queries + 2 * keys)
            + if_any(self.output_bias, d)
            + if_any(self.mlp_bias, 2 * f + d);
        let norms = 2 * d + if_any(self.family == Family::Qwen3, 2 * e);
        let heads = self.vocabulary * d * if self.tied { 1 } else { 2 };
        heads + self.layers * (matrices + biases + norms) + d
    }

    /// `config.json` of a model of this shape with f32 weights.
    pub fn to_json(&self) -> Value {
        let mut json = self.json.clone();
        if let Some(object) = json.as_object_mut() {
            object.insert("num_hidden_layers".into(), self.layers.into());
            let key = match object.contains_key("dtype") {
                true => "dtype",
                false => "torch_dtype",
            };
            object.insert(key.into(), "float32".into());
            if let Some(types) = object.get_mut("layer_types").and_then(Value::as_array_mut) {
                types.truncate(self.layers);
            }
        }
        json
    }
}

impl RopeScaling {
    fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original,
            } => {
                let wavelength = std::f64::consts::TAU / frequency;
                if wavelength < original / high_freq_factor {
                    return frequency;
                }
                if wavelength > original / low_freq_factor {
                    return frequency / factor;
                }
                let ramp = (original / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - ramp) * frequency / factor + ramp * frequency
            }
        }
    }
}

/// Reads keys and says where they are wrong.
struct Reader<'a> {
    json: &'a Value,
    path: &'a Path,
}

impl Reader<'_> {
    fn wrong(&self, what: String) -> ModelError {
        ModelError::Format {
            path: self.path.to_owned(),
            what,
            fix: "use the configuration the model was published with".into(),
        }
    }

    fn unsupported(&self, feature: &str) -> ModelError {
        ModelError::Unsupported {
            path: self.path.to_owned(),
            feature: feature.to_owned(),
            fix: "supported are the Llama, SmolLM, Mistral, Qwen2 and Qwen3 architectures with \
                  full attention, SiLU, and default, linear or llama3 rotary scaling"
                .into(),
        }
    }

    fn family(&self) -> Result<Family> {
        let model_type = self.json.get("model_type").and_then(Value::as_str);
        let architecture = self
            .json
            .get("architectures")
            .and_then(|list| list.get(0))
            .and_then(Value::as_str);
        if let Some(name) = architecture
            && !name.ends_with("ForCausalLM")
        {
            return Err(self.unsupported(&format!("architecture `{name}`")));
        }
        match model_type {
            Some("llama") => Ok(Family::Llama),
            Some("mistral") => Ok(Family::Mistral),
            Some("qwen2") => Ok(Family::Qwen2),
            Some("qwen3") => Ok(Family::Qwen3),
            Some(other) => Err(self.unsupported(&format!("architecture `{other}`"))),
            None => Err(self.wrong("key `model_type` is missing".into())),
        }
    }

    fn refuse_features(&self) -> Result<()> {
        for (key, off) in FEATURES_OFF {
            match self.json.get(*key) {
                None | Some(Value::Null) => {}
                Some(value) if value.as_f64().is_some_and(|v| off.contains(&v)) => {}
                Some(value) => return Err(self.unsupported(&format!("`{key}` = {value}"))),
            }
        }
        if self
            .json
            .get("quantization_config")
            .is_some_and(|v| !v.is_null())
        {
            return Err(self.unsupported("`quantization_config` (pre-quantized weights)"));
        }
        match self.json.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu" | "swish") => {}
            Some(other) => return Err(self.unsupported(&format!("`hidden_act` = {other:?}"))),
        }
        let types = self.json.get("layer_types").and_then(Value::as_array);
        let mut types = types.into_iter().flatten().filter_map(Value::as_str);
        match types.find(|t| *t != "full_attention") {
            Some(other) => Err(self.unsupported(&format!("layer type `{other}`"))),
            None => Ok(()),
        }
    }

    /// The window of sliding attention where it is switched on.
    fn sliding_window(&self) -> Result<Option<usize>> {
        // Qwen states a window and a switch that is off; Mistral states only the window.
        if self.json.get("use_sliding_window").and_then(Value::as_bool) == Some(false) {
            return Ok(None);
        }
        self.optional_positive("sliding_window")
    }

    fn rope(&self) -> Result<(f64, RopeScaling)> {
        let null = Value::Null;
        let parameters = self.json.get("rope_parameters").unwrap_or(&null);
        let scaling = match self.json.get("rope_scaling") {
            Some(Value::Null) | None => parameters,
            Some(scaling @ Value::Object(_)) => scaling,
            Some(other) => return Err(self.wrong(format!("`rope_scaling` = {other} is no table"))),
        };
        let theta = match self.number(parameters, "rope_theta")? {
            Some(theta) => theta,
            None => self.number(self.json, "rope_theta")?.unwrap_or(10_000.0),
        };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        let value = |key: &str| {
            let found = scaling.get(key).and_then(Value::as_f64);
            found
                .filter(|v| *v > 0.0)
                .ok_or_else(|| self.wrong(format!("rope scaling lacks a positive `{key}`")))
        };
        let scaling = match kind.and_then(Value::as_str) {
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear {
                factor: value("factor")?,
            },
            Some("llama3") => RopeScaling::Llama3 {
                factor: value("factor")?,
                low_freq_factor: value("low_freq_factor")?,
                high_freq_factor: value("high_freq_factor")?,
                original: value("original_max_position_embeddings")?,
            },
            Some(other) => return Err(self.unsupported(&format!("rope scaling `{other}`"))),
        };
        Ok((theta, scaling))
    }

    /// A positive number of a table, if the table has it.
    fn number(&self, table: &Value, key: &str) -> Result<Option<f64>> {
        match table.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 => Ok(Some(number)),
                _ => Err(self.wrong(format!("`{key}` = {value} is no positive number"))),
            },
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.json.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn positive(&self, key: &str) -> Result<usize> {
        self.optional_positive(key)?
            .ok_or_else(|| self.wrong(format!("key `{key}` is missing")))
    }

    fn optional_positive(&self, key: &str) -> Result<Option<usize>> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                // Sizes are multiplied later; this bound keeps products far from overflow.
                Some(v) if (1..=1 << 28).contains(&v) => Ok(Some(v as usize)),
                _ => Err(self.wrong(format!("`{key}` = {value} is not a usable size"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
            "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 64,
        })
    }

    fn with(key: &str, value: Value) -> Result<Config> {
        let mut json = base();
        json[key] = value;
        Config::from_json(json, Path::new("config.json"))
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (key, value, named) in [
            ("model_type", json!("gemma3"), "gemma3"),
            ("hidden_act", json!("gelu"), "gelu"),
            (
                "rope_scaling",
                json!({"rope_type": "yarn", "factor": 4.0}),
                "yarn",
            ),
            (
                "final_logit_softcapping",
                json!(30.0),
                "final_logit_softcapping",
            ),
            (
                "layer_types",
                json!(["sliding_attention"]),
                "sliding_attention",
            ),
            (
                "quantization_config",
                json!({"bits": 4}),
                "quantization_config",
            ),
            (
                "architectures",
                json!(["LlamaForSequenceClassification"]),
                "LlamaForSequence",
            ),
            ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ] {
            let error = with(key, value).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn nonsense_sizes_are_refused() {
        for (key, value) in [
            ("hidden_size", json!(0)),
            ("num_hidden_layers", json!(-1)),
            ("vocab_size", json!(u64::MAX)),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(7)),
            ("rope_scaling", json!({"rope_type": "linear"})),
            ("rope_scaling", json!(3)),
            ("rope_theta", json!(-5)),
            ("rope_theta", json!("x")),
            ("rope_parameters", json!({"rope_theta": 0})),
            ("rms_norm_eps", json!("x")),
            ("rms_norm_eps", json!(-1)),
        ] {
            assert!(with(key, value).is_err(), "{key}");
        }
    }

    #[test]
    fn a_sliding_window_limits_the_context() {
        assert_eq!(with("sliding_window", json!(16)).unwrap().context, 16);
        assert_eq!(with("sliding_window", Value::Null).unwrap().context, 64);
    }
}
