//! From nothing to the first token: opening a model (its weights, mapped into memory and widened, and
//! its tokenizer), then reading a short prompt and choosing one token.
//!
//! The files are in the system's cache: reading a disk is not measured. The least time is that of
//! reading the weights' files from memory once, and that of the token.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use distil_model::{Model, ModelError};

use super::sample::Generating;
use super::{Clock, Figures, Work, forget_peak_rss, positive};
use crate::config::Precision;
use crate::error::{Error, Result};
use crate::eval::evaluate::GREEDY;
use crate::rollout::{Generation, Prompt, generate};

/// What the model is to continue.
const PROMPT: &str = "Once upon a time";

/// Starts of a program that wants one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadCase {
    /// Starts, of which the one with the median time is reported.
    pub passes: usize,
}

/// Measures the start from the Hugging Face folder or the `.gguf` file at `path`.
///
/// # Errors
/// The model cannot be opened or cannot generate, or a count is 0.
pub fn load(path: &Path, case: &LoadCase) -> Result<Figures> {
    positive(&[("passes", case.passes)])?;
    forget_peak_rss();
    let starts: Result<Vec<Start>> = (0..case.passes).map(|_| start(path)).collect();
    let median = median(starts?);
    let (generating, bytes) = (median.generating, file_bytes(path)?);
    let work = Work {
        bench: "load",
        case: format!(
            "{} layers, {:.0} MB on disk, one token of a short prompt, median of {}",
            median.layers,
            bytes / 1e6,
            case.passes
        ),
        precision: Precision::F32,
        tokens: 1.0,
        operations: generating.operations(),
        least: Box::new(move |roof| roof.seconds(0.0, bytes) + generating.least(roof)),
    };
    Ok(work.figures(median.phases))
}

/// One start.
struct Start {
    phases: BTreeMap<&'static str, f64>,
    layers: usize,
    generating: Generating,
}

impl Start {
    fn seconds(&self) -> f64 {
        self.phases.values().sum()
    }
}

fn start(path: &Path) -> Result<Start> {
    let mut clock = Clock::default();
    let model = clock.time("load", || Model::open(path, &Device::flex()))?;
    let prompt_tokens = clock.time("first_token", || first_token(&model))?;
    Ok(Start {
        phases: clock.phases,
        layers: model.network.config().layers,
        generating: Generating::of(&model.network, Precision::F32, [1, prompt_tokens, 1]),
    })
}

/// Chooses a token; the length of the prompt, in tokens.
fn first_token(model: &Model) -> Result<usize> {
    let ids = model.tokenizer.encode_prompt(PROMPT)?;
    let prompts = [Prompt {
        ids: &ids,
        stream: 0,
    }];
    let settings = Generation {
        sampling: GREEDY,
        max_new_tokens: 1,
        seed: 0,
        batch: 1,
    };
    generate(&model.network, &[], &prompts, &settings, &mut |_, _| {})?;
    Ok(ids.len())
}

/// The start with the median time, the slower of the middle two; there is at least one.
fn median(mut starts: Vec<Start>) -> Start {
    starts.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    starts.swap_remove(starts.len() / 2)
}

/// Bytes of a model's weights on disk.
fn file_bytes(path: &Path) -> Result<f64> {
    let read = |source| {
        Error::from(ModelError::Read {
            path: path.to_owned(),
            source,
        })
    };
    if path.is_file() {
        return Ok(std::fs::metadata(path).map_err(read)?.len() as f64);
    }
    let mut bytes = 0.0;
    for entry in std::fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if file.extension().is_some_and(|end| end == "safetensors") {
            // Files of a cache may be links, whose own size says nothing.
            bytes += std::fs::metadata(&file).map_err(read)?.len() as f64;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use distil_model::write_tensors;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::testing::tiny_network;

    /// The tiny network with a tokenizer of words, as a folder.
    fn folder() -> tempfile::TempDir {
        let mut network = tiny_network(1);
        let config = network.config().to_json();
        let tensors = network.parameters().into_iter();
        let tensors = tensors.map(|(name, parameter)| (name, parameter.stored()));
        let words = (1..24).map(|id| (format!("word{id}"), json!(id)));
        let mut vocabulary: Map<String, Value> = words.collect();
        vocabulary.insert("<unk>".into(), json!(0));
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        });
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        write("config.json", config.to_string().as_bytes());
        write("tokenizer.json", tokenizer.to_string().as_bytes());
        write("tokenizer_config.json", b"{}");
        write_tensors(&folder.path().join("model.safetensors"), tensors).unwrap();
        folder
    }

    #[test]
    fn a_start_is_loading_and_one_token() {
        let folder = folder();
        let figures = load(folder.path(), &LoadCase { passes: 2 }).unwrap();
        let phases: Vec<&str> = figures.phases.keys().copied().collect();
        assert_eq!(phases, ["first_token", "load"]);
        assert!((figures.tokens_per_second * figures.seconds - 1.0).abs() < 1e-9);
        assert!(figures.share_of_roof > 0.0);
        let weights = std::fs::metadata(folder.path().join("model.safetensors")).unwrap();
        assert_eq!(file_bytes(folder.path()).unwrap(), weights.len() as f64);
    }

    #[test]
    fn the_median_start_is_reported() {
        let starts = |seconds: &[f64]| {
            let start = |&seconds: &f64| Start {
                phases: BTreeMap::from([("load", seconds)]),
                layers: 2,
                generating: Generating::of(&tiny_network(1), Precision::F32, [1, 4, 1]),
            };
            seconds.iter().map(start).collect::<Vec<_>>()
        };
        assert_eq!(median(starts(&[3.0, 1.0, 2.0])).seconds(), 2.0);
        assert_eq!(median(starts(&[2.0, 1.0])).seconds(), 2.0);
        assert_eq!(median(starts(&[1.0])).seconds(), 1.0);
    }

    #[test]
    fn what_cannot_be_opened_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = load(folder.path(), &LoadCase { passes: 1 }).unwrap_err();
        assert!(error.is_input(), "{error}");
        assert!(load(folder.path(), &LoadCase { passes: 0 }).is_err());
    }
}
