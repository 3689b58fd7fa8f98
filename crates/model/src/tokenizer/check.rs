//! A look at `tokenizer.json` before it is built.
//!
//! The `tokenizers` crate joins the two halves of each merge in a buffer as long as the longest
//! token, and panics on a damaged file in which a merge makes something longer. This module
//! measures lengths only, so that it costs little beside the real parsing.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Says what is wrong with the file's merges, if anything is.
pub(super) fn tokenizer_json(bytes: &[u8]) -> Result<(), String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let model = file.model;
    let marker = model
        .continuing_subword_prefix
        .map_or(0, |Length(length)| length);
    for (index, merge) in model.merges.iter().flatten().enumerate() {
        let length = merge
            .second
            .checked_sub(marker)
            .map(|second| merge.first + second);
        if length.is_none_or(|length| length > model.vocab.longest) {
            return Err(format!(
                "merge number {index} makes a token that is not in the vocabulary"
            ));
        }
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct File {
    model: Model,
}

#[derive(serde::Deserialize)]
struct Model {
    #[serde(default)]
    vocab: Vocabulary,
    merges: Option<Vec<Merge>>,
    continuing_subword_prefix: Option<Length>,
}

/// The bytes of a string.
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Length;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Length, E> {
                Ok(Length(text.len()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The vocabulary: token to id, or a list for kinds of models without merges.
#[derive(Default)]
struct Vocabulary {
    longest: usize,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocabulary;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut longest = 0;
                while let Some((Length(length), IgnoredAny)) = map.next_entry()? {
                    longest = longest.max(length);
                }
                Ok(Vocabulary { longest })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocabulary, A::Error> {
                while let Some(IgnoredAny) = list.next_element()? {}
                Ok(Vocabulary::default())
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

/// The bytes of a merge's halves; written `["a", "b"]`, in older files `"a b"`.
struct Merge {
    first: usize,
    second: usize,
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Halves;
        impl<'de> Visitor<'de> for Halves {
            type Value = Merge;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge of two tokens")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Merge, E> {
                // The crate reports a line that has no two halves itself.
                let (first, second) = text.split_once(' ').unwrap_or_default();
                Ok(Merge {
                    first: first.len(),
                    second: second.len(),
                })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut halves: A) -> Result<Merge, A::Error> {
                let (Some(Length(first)), Some(Length(second))) =
                    (halves.next_element()?, halves.next_element()?)
                else {
                    return Err(A::Error::custom("a merge has two halves"));
                };
                while let Some(IgnoredAny) = halves.next_element()? {}
                Ok(Merge { first, second })
            }
        }
        deserializer.deserialize_any(Halves)
    }
}

#[cfg(test)]
mod tests {
    use super::tokenizer_json;

    #[test]
    fn merges_beyond_the_vocabulary_are_found() {
        let file = |merges: &str| {
            format!(
                r#"{{"model": {{"type": "BPE", "vocab": {{"a": 0, "b": 1, "ab": 2}}, "merges": {merges}}}}}"#
            )
        };
        for good in [r#"[["a", "b"]]"#, r#"["a b"]"#, "[]", "null"] {
            assert_eq!(tokenizer_json(file(good).as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            r#"[["a", "b"], ["ab", "a"]]"#,
            r#"["ab b"]"#,
            r#"[["a"]]"#,
            "[1]",
        ] {
            assert!(tokenizer_json(file(bad).as_bytes()).is_err(), "{bad}");
        }
        let unigram = br#"{"model": {"type": "Unigram", "vocab": [["a", -1.5]]}}"#;
        assert_eq!(tokenizer_json(unigram), Ok(()));
        assert!(tokenizer_json(b"{").is_err());
    }

    #[test]
    fn a_second_half_shorter_than_its_marker_is_found() {
        let file = br###"{"model": {"vocab": {"a": 0}, "merges": ["a b"], "continuing_subword_prefix": "##"}}"###;
        assert!(tokenizer_json(file).is_err());
    }
}
