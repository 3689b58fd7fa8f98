//! The tokenizer of a Hugging Face directory.
//!
//! `tokenizer.json` holds the whole pipeline and decides about ids and BOS. Beside it,
//! `tokenizer_config.json` names the special tokens and may hold the chat template;
//! `special_tokens_map.json` names tokens that the former does not; `chat_template.jinja`, in
//! newer directories, is the template and wins over all others.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::PostProcessorWrapper;

use super::{NAMED_TOKENS, check};
use crate::error::{ModelError, Result};

/// The pipeline and the entries of its `tokenizer_config.json`.
pub(super) fn read(dir: &Path) -> Result<(tokenizers::Tokenizer, Map<String, Value>)> {
    let path = dir.join("tokenizer.json");
    if !path.exists() {
        return Err(ModelError::Unsupported {
            path: dir.to_owned(),
            feature: "a directory without tokenizer.json".to_owned(),
            fix: "save the tokenizer once with transformers: \
                  AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
                .to_owned(),
        });
    }
    let bytes = std::fs::read(&path).map_err(|source| ModelError::Read {
        path: path.clone(),
        source,
    })?;
    let damaged = |what: String| ModelError::Format {
        path: path.clone(),
        what,
        fix: "fetch the file again".to_owned(),
    };
    check::tokenizer_json(&bytes).map_err(&damaged)?;
    let mut tokenizer =
        tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| damaged(error.to_string()))?;
    // Some files carry the limits of the run that made them; a text is never cut or filled here.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| damaged(error.to_string()))?;

    let mut config = read_object(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    let map = read_object(&dir.join("special_tokens_map.json"))?.unwrap_or_default();
    for name in NAMED_TOKENS {
        let named = config.get(name).is_some_and(|token| !token.is_null());
        if let Some(token) = map.get(name).filter(|_| !named) {
            config.insert(name.to_owned(), token.clone());
        }
    }
    let template = dir.join("chat_template.jinja");
    if template.exists() {
        let source = std::fs::read_to_string(&template).map_err(|source| ModelError::Read {
            path: template.clone(),
            source,
        })?;
        config.insert("chat_template".to_owned(), Value::String(source));
    }
    add_declared_bos(&mut tokenizer, &config)
        .map_err(|error| damaged(format!("its BOS cannot be added: {error}")))?;
    Ok((tokenizer, to_save(config)))
}

/// Where `tokenizer.json` says nothing about what to add, `add_bos_token` does.
fn add_declared_bos(
    tokenizer: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
) -> serde_json::Result<()> {
    let declared = config.get("add_bos_token").and_then(Value::as_bool) == Some(true);
    let Some(bos) = super::special_tokens(config).remove("bos_token") else {
        return Ok(());
    };
    match tokenizer.token_to_id(&bos) {
        Some(id) if declared && tokenizer.get_post_processor().is_none() => {
            tokenizer.with_post_processor(Some(bos_in_front(&bos, id)?));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The post-processor that puts BOS in front of every text.
pub(super) fn bos_in_front(bos: &str, id: u32) -> serde_json::Result<PostProcessorWrapper> {
    let sequence = |name: &str, type_id: u32| {
        [
            json!({"SpecialToken": {"id": bos, "type_id": type_id}}),
            json!({"Sequence": {"id": name, "type_id": type_id}}),
        ]
    };
    let pair = [sequence("A", 0), sequence("B", 1)].concat();
    serde_json::from_value(json!({
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": pair,
        "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
    }))
}

/// The configuration to write beside the pipeline: everything the authors say, except what names
/// code or places that a copy does not have. The class is the one that takes `tokenizer.json` as
/// it is; others build parts of the pipeline anew.
fn to_save(mut config: Map<String, Value>) -> Map<String, Value> {
    for gone in [
        "auto_map",
        "name_or_path",
        "tokenizer_file",
        "vocab_file",
        "merges_file",
    ] {
        config.shift_remove(gone);
    }
    config.insert(
        "tokenizer_class".to_owned(),
        "PreTrainedTokenizerFast".into(),
    );
    config
        .entry("clean_up_tokenization_spaces")
        .or_insert(false.into());
    config
}

/// A file that holds a JSON object; none where there is no such file.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(|source| ModelError::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| ModelError::Format {
            path: path.to_owned(),
            what: format!("it is no JSON object: {error}"),
            fix: "correct the file or fetch it again".to_owned(),
        })
}
