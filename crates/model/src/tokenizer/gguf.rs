//! The tokenizer that a GGUF file describes in its metadata: byte-level BPE, `tokenizer.ggml.model
//! = gpt2`.
//!
//! The file holds the tokens in the order of their ids, the kind of each, the merges in the order
//! of their ranks and the *name* of the pre-tokenizer that cuts a text into words before merging;
//! what the name stands for is known only to its readers. The patterns here are those of the
//! models' own `tokenizer.json`:
//!
//! | name | words |
//! |---|---|
//! | `gpt2` | GPT-2's pattern |
//! | `smollm` | every digit alone, then GPT-2's pattern |
//! | `qwen2` | NFC, then Qwen2's pattern: single digits, line breaks apart |
//! | `llama-bpe` | Llama 3's pattern: up to three digits; a word that is a token is not merged |
//!
//! Source of the keys: the GGUF specification, section "Tokenizer", and llama.cpp for the default
//! of `add_bos_token`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizerWrapper, SplitDelimiterBehavior};

use super::huggingface::bos_in_front;
use crate::error::{ModelError, Result};
use crate::weights::{GgufFile, GgufValue};

/// Qwen2's pattern; Llama 3's differs only in its digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The kinds of tokens that matter, by the numbers of the format.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// A GGUF file's tokenizer as it stands in the metadata.
#[derive(Debug, Clone, Default)]
struct Vocabulary {
    /// `tokenizer.ggml.model`, the kind of tokenizer.
    model: String,
    /// `tokenizer.ggml.pre`, the name of the pre-tokenizer.
    pre: String,
    /// The tokens in the order of their ids, spelled in the byte-level alphabet.
    tokens: Vec<String>,
    /// The kind of each token, or empty where the file does not say.
    token_types: Vec<u64>,
    /// The merges in the order of their ranks, each two tokens with a space between.
    merges: Vec<String>,
    bos: Option<u64>,
    eos: Option<u64>,
    unk: Option<u64>,
    pad: Option<u64>,
    add_bos: Option<bool>,
    chat_template: Option<String>,
    /// The longest sequence the model was trained for, in tokens.
    context: Option<u64>,
}

/// The pipeline and the entries of the `tokenizer_config.json` that belongs to it.
pub(super) fn read(path: &Path) -> Result<(tokenizers::Tokenizer, Map<String, Value>)> {
    build(path, vocabulary(&GgufFile::open(path)?))
}

fn vocabulary(file: &GgufFile) -> Vocabulary {
    let text = |key: &str| {
        file.metadata(key)
            .and_then(GgufValue::as_str)
            .map(str::to_owned)
    };
    let number = |key: &str| file.metadata(key).and_then(GgufValue::as_u64);
    let array = |key: &str| {
        file.metadata(key)
            .and_then(GgufValue::as_array)
            .unwrap_or_default()
    };
    let texts = |key: &str| {
        array(key)
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let architecture = text("general.architecture").unwrap_or_default();
    Vocabulary {
        model: text("tokenizer.ggml.model").unwrap_or_default(),
        pre: text("tokenizer.ggml.pre").unwrap_or_default(),
        tokens: texts("tokenizer.ggml.tokens"),
        token_types: array("tokenizer.ggml.token_type")
            .iter()
            .filter_map(GgufValue::as_u64)
            .collect(),
        merges: texts("tokenizer.ggml.merges"),
        bos: number("tokenizer.ggml.bos_token_id"),
        eos: number("tokenizer.ggml.eos_token_id"),
        unk: number("tokenizer.ggml.unknown_token_id"),
        pad: number("tokenizer.ggml.padding_token_id"),
        add_bos: file
            .metadata("tokenizer.ggml.add_bos_token")
            .and_then(GgufValue::as_bool),
        chat_template: text("tokenizer.chat_template"),
        context: number(&format!("{architecture}.context_length")),
    }
}

/// How a named pre-tokenizer cuts words, and what goes with it.
struct Words {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: PreTokenizerWrapper,
    /// A word that is a token is that token, whatever the merges would make of it.
    ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    add_bos: bool,
}

impl Words {
    /// What a name stands for; none for a name that is not known here.
    fn named(name: &str) -> Result<Option<Self>, tokenizers::Error> {
        let gpt2 = ByteLevel::new(false, true, true);
        let split = |pattern: &str| -> Result<PreTokenizerWrapper, tokenizers::Error> {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
            let bytes = ByteLevel::new(false, true, false);
            Ok(Sequence::new(vec![split.into(), bytes.into()]).into())
        };
        let plain = |pre_tokenizer| Self {
            normalizer: None,
            pre_tokenizer,
            ignore_merges: false,
            add_bos: false,
        };
        Ok(Some(match name {
            "gpt2" | "gpt-2" => plain(gpt2.into()),
            "smollm" => plain(Sequence::new(vec![Digits::new(true).into(), gpt2.into()]).into()),
            "qwen2" => Self {
                normalizer: Some(NFC.into()),
                ..plain(split(QWEN2)?)
            },
            "llama-bpe" | "llama3" | "llama-v3" => Self {
                ignore_merges: true,
                add_bos: true,
                ..plain(split(LLAMA3)?)
            },
            _ => return Ok(None),
        }))
    }
}

fn build(
    path: &Path,
    vocabulary: Vocabulary,
) -> Result<(tokenizers::Tokenizer, Map<String, Value>)> {
    let unsupported = |feature: String| ModelError::Unsupported {
        path: path.to_owned(),
        feature,
        fix: "supported in GGUF are byte-level BPE (gpt2) with the pre-tokenizers gpt2, smollm, \
              qwen2 and llama-bpe; use the model's Hugging Face directory with its tokenizer.json"
            .to_owned(),
    };
    let damaged = |what: String| ModelError::Format {
        path: path.to_owned(),
        what,
        fix: "fetch the file again, or convert the model again".to_owned(),
    };
    let failed = |error: tokenizers::Error| damaged(error.to_string());
    if vocabulary.model != "gpt2" {
        return Err(unsupported(format!("the tokenizer `{}`", vocabulary.model)));
    }
    let Some(words) = Words::named(&vocabulary.pre).map_err(failed)? else {
        return Err(unsupported(format!(
            "the pre-tokenizer `{}`",
            vocabulary.pre
        )));
    };
    let Vocabulary {
        tokens,
        token_types,
        ..
    } = &vocabulary;
    if tokens.is_empty() {
        return Err(damaged(
            "it has no vocabulary (tokenizer.ggml.tokens)".to_owned(),
        ));
    }
    if !token_types.is_empty() && token_types.len() != tokens.len() {
        return Err(damaged(format!(
            "it has {} tokens but {} token types",
            tokens.len(),
            token_types.len()
        )));
    }
    let named = |name: &str, id: Option<u64>| match id {
        None => Ok(None),
        Some(id) => match usize::try_from(id).ok().and_then(|id| tokens.get(id)) {
            Some(token) => Ok(Some(token.as_str())),
            None => Err(damaged(format!(
                "its {name} has the id {id}, beyond the vocabulary of {} tokens",
                tokens.len()
            ))),
        },
    };
    let bos = named("bos_token", vocabulary.bos)?;
    let eos = named("eos_token", vocabulary.eos)?;
    let unk = named("unk_token", vocabulary.unk)?;
    let pad = named("pad_token", vocabulary.pad)?;
    let add_bos = vocabulary.add_bos.unwrap_or(words.add_bos);

    let (ids, merges) = ids_and_merges(tokens, &vocabulary.merges).map_err(damaged)?;
    let model = BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(words.ignore_merges)
        .build()
        .map_err(failed)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer
        .with_normalizer(words.normalizer)
        .map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(words.pre_tokenizer));
    tokenizer.with_decoder(Some(ByteLevel::default()));

    // The end of a text must be recognised as one even where the file types it as a word.
    let always_special: BTreeSet<&str> = [bos, eos, pad].into_iter().flatten().collect();
    let added = tokens.iter().enumerate().filter_map(|(id, token)| {
        let kind = token_types.get(id).copied();
        let special =
            matches!(kind, Some(CONTROL | UNKNOWN)) || always_special.contains(token.as_str());
        let added = special || kind == Some(USER_DEFINED);
        added.then(|| AddedToken::from(token.clone(), special).normalized(false))
    });
    tokenizer.add_tokens(added).map_err(failed)?;

    let mut config = Map::new();
    config.insert(
        "tokenizer_class".to_owned(),
        "PreTrainedTokenizerFast".into(),
    );
    config.insert("add_bos_token".to_owned(), add_bos.into());
    for (name, token) in [
        ("bos_token", bos),
        ("eos_token", eos),
        ("unk_token", unk),
        ("pad_token", pad),
    ] {
        if let Some(token) = token {
            config.insert(name.to_owned(), token.into());
        }
    }
    config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    if let Some(context) = vocabulary.context {
        config.insert("model_max_length".to_owned(), context.into());
    }
    if add_bos {
        let (Some(bos), Some(id)) = (bos, vocabulary.bos.and_then(|id| u32::try_from(id).ok()))
        else {
            return Err(damaged("it asks for a BOS token but names none".to_owned()));
        };
        tokenizer.with_post_processor(Some(
            bos_in_front(bos, id).map_err(|error| damaged(error.to_string()))?,
        ));
    }
    if let Some(source) = vocabulary.chat_template {
        config.insert("chat_template".to_owned(), source.into());
    }
    Ok((tokenizer, config))
}

/// The ids by token, and the merges as pairs. Says what is wrong where a token occurs twice, or a
/// merge is of or makes a token that the vocabulary lacks.
fn ids_and_merges(
    tokens: &[String],
    merges: &[String],
) -> Result<(Vocab, Vec<(String, String)>), String> {
    let mut ids = Vocab::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        let id = u32::try_from(id).map_err(|_| "it has more than 2^32 tokens".to_owned())?;
        if let Some(first) = ids.insert(token.clone(), id) {
            return Err(format!("the tokens {first} and {id} are both `{token}`"));
        }
    }
    let mut joined = String::new();
    let pairs = merges.iter().enumerate().map(|(rank, merge)| {
        let known = merge.split_once(' ').filter(|(first, second)| {
            joined.clear();
            joined.push_str(first);
            joined.push_str(second);
            [first, second, joined.as_str()]
                .iter()
                .all(|&token| ids.contains_key(token))
        });
        match known {
            Some((first, second)) => Ok((first.to_owned(), second.to_owned())),
            None => Err(format!(
                "merge number {rank}, `{merge}`, is not of tokens in the vocabulary"
            )),
        }
    });
    let pairs = pairs.collect::<Result<_, _>>()?;
    Ok((ids, pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary of bytes a, b and c, their merge ab, a control token and a user's token.
    fn small() -> Vocabulary {
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
        Vocabulary {
            model: "gpt2".to_owned(),
            pre: "gpt2".to_owned(),
            tokens: words(&["a", "b", "c", "ab", "<end>", "<note>"]),
            token_types: vec![1, 1, 1, 1, CONTROL, USER_DEFINED],
            merges: words(&["a b"]),
            eos: Some(4),
            context: Some(512),
            ..Vocabulary::default()
        }
    }

    fn build_small(
        change: impl FnOnce(&mut Vocabulary),
    ) -> Result<(tokenizers::Tokenizer, Map<String, Value>)> {
        let mut vocabulary = small();
        change(&mut vocabulary);
        build(Path::new("m.gguf"), vocabulary)
    }

    fn ids(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(text, true).unwrap().get_ids().to_vec()
    }

    #[test]
    fn kinds_of_tokens_become_added_tokens() {
        let (tokenizer, config) = build_small(|_| ()).unwrap();
        assert_eq!(ids(&tokenizer, "abc<note><end>"), [3, 2, 5, 4]);
        assert_eq!(tokenizer.decode(&[3, 5, 4], true).unwrap(), "ab<note>");
        assert_eq!(config["eos_token"], "<end>");
        assert_eq!(config["model_max_length"], 512);
        assert_eq!(config["add_bos_token"], false);
        assert_eq!(config["clean_up_tokenization_spaces"], false);
        assert!(!config.contains_key("bos_token"));
    }

    #[test]
    fn the_end_of_text_is_special_whatever_its_type() {
        let (tokenizer, _) = build_small(|vocabulary| vocabulary.token_types.clear()).unwrap();
        assert_eq!(ids(&tokenizer, "a<end>"), [0, 4]);
        assert_eq!(tokenizer.decode(&[0, 4], true).unwrap(), "a");
    }

    #[test]
    fn bos_is_added_as_declared_or_as_the_pre_tokenizer_does() {
        let bos = |pre: &str, add_bos| {
            let (tokenizer, config) = build_small(|vocabulary| {
                vocabulary.pre = pre.to_owned();
                vocabulary.bos = Some(4);
                vocabulary.add_bos = add_bos;
            })
            .unwrap();
            let added = ids(&tokenizer, "a") == [4, 0];
            assert_eq!(config["add_bos_token"], added);
            added
        };
        assert!(bos("gpt2", Some(true)) && !bos("gpt2", None));
        assert!(bos("llama-bpe", None) && !bos("llama-bpe", Some(false)));
    }

    #[test]
    fn what_is_not_supported_or_not_whole_is_named() {
        type Change = fn(&mut Vocabulary);
        let cases: [(Change, &str); 12] = [
            (
                |v| v.model = "llama".to_owned(),
                "the tokenizer `llama` is not supported",
            ),
            (
                |v| v.pre = "tekken".to_owned(),
                "the pre-tokenizer `tekken` is not supported",
            ),
            (
                |v| v.pre = String::new(),
                "the pre-tokenizer `` is not supported",
            ),
            (|v| v.tokens.clear(), "no vocabulary"),
            (|v| v.token_types.truncate(3), "6 tokens but 3 token types"),
            (
                |v| v.tokens[2] = "a".to_owned(),
                "the tokens 0 and 2 are both `a`",
            ),
            (|v| v.merges.push("a x".to_owned()), "merge number 1, `a x`"),
            (
                |v| v.merges.push("ab c".to_owned()),
                "merge number 1, `ab c`",
            ),
            (|v| v.merges.push("abc".to_owned()), "merge number 1, `abc`"),
            (|v| v.eos = Some(6), "eos_token has the id 6"),
            (
                |v| v.bos = Some(u64::MAX),
                "bos_token has the id 18446744073709551615",
            ),
            (
                |v| v.add_bos = Some(true),
                "asks for a BOS token but names none",
            ),
        ];
        for (change, expected) in cases {
            let error = build_small(change).unwrap_err().to_string();
            assert!(
                error.starts_with("m.gguf: ") && error.contains(expected),
                "{error}"
            );
        }
    }
}
