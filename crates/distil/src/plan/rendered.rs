//! Rows as the model reads them, and what of them the student is trained on.
//!
//! The text is decoded from the very token ids that training uses, special tokens and EOS among them, so
//! it shows what the template and the tokenizer made of the row, not what they should have made. The
//! loss is on the response's tokens, all of them and no others; where the response is still to be
//! sampled, words stand in its place.

use distil_model::Tokenizer;
use serde::Serialize;

use super::place::Place;
use crate::config::{Config, LmSource, Method};
use crate::data::example::Example;
use crate::data::read::DataSet;
use crate::error::Result;
use crate::train::Setup;

/// Rows that are shown: the first, the middle one, the last.
const SHOWN: usize = 3;

/// A row as the model reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rendered {
    /// Where the row stands.
    pub place: Option<Place>,
    /// What of the row it is, where there are several: its preferred response, its rejected one, its
    /// prompt in another template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The prompt, which is read and not trained on.
    pub prompt: String,
    /// Its tokens, BOS among them where there is one.
    pub prompt_tokens: usize,
    /// The response that is trained on; none if it is still to be sampled, or if this is a prompt that
    /// only the teacher reads.
    pub response: Option<String>,
    /// Its tokens, EOS among them.
    pub response_tokens: usize,
    /// Whether the response ends with EOS; none without a response.
    pub ends_with_eos: Option<bool>,
    /// What will stand in the place of a response that is still to be sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampled: Option<String>,
    /// The special tokens in the text.
    pub special: Vec<String>,
}

/// What decodes a run's rows.
struct Reader<'a> {
    tokenizer: &'a Tokenizer,
    eos: u32,
}

impl Reader<'_> {
    fn read(&self, prompt: &[u32], response: Option<&[u32]>) -> Result<Rendered> {
        let ids = [prompt, response.unwrap_or_default()].concat();
        let text = self.tokenizer.decode(prompt, false)?;
        // Together first: some tokenizers leave a space out where a text begins.
        let rest = match response {
            None => None,
            Some(response) => {
                let whole = self.tokenizer.decode(&ids, false)?;
                Some(match whole.strip_prefix(&text) {
                    Some(rest) => rest.to_owned(),
                    None => self.tokenizer.decode(response, false)?,
                })
            }
        };
        let mut seen = ids;
        seen.sort_unstable();
        seen.dedup();
        let mut special = Vec::new();
        for id in seen {
            if let Some(token) = special_token(self.tokenizer, id)? {
                special.push(token);
            }
        }
        Ok(Rendered {
            place: None,
            what: None,
            prompt: text,
            prompt_tokens: prompt.len(),
            response: rest,
            response_tokens: response.map_or(0, <[u32]>::len),
            ends_with_eos: response.map(|response| response.last() == Some(&self.eos)),
            sampled: None,
            special,
        })
    }

    fn example(&self, data: &DataSet, example: &Example, what: Option<&str>) -> Result<Rendered> {
        Ok(Rendered {
            place: Place::of_row(data, example.row),
            what: what.map(str::to_owned),
            ..self.read(&example.prompt, Some(&example.response))?
        })
    }
}

/// The text of a token that stands for no text of its own; none of an ordinary one.
pub(super) fn special_token(tokenizer: &Tokenizer, id: u32) -> Result<Option<String>> {
    let text = tokenizer.decode(&[id], false)?;
    let special = !text.is_empty() && tokenizer.decode(&[id], true)?.is_empty();
    Ok(special.then_some(text))
}

/// Some rows of the run as they are read.
///
/// # Errors
/// A token cannot be decoded.
pub(super) fn rendered(config: &Config, setup: &Setup) -> Result<Vec<Rendered>> {
    let (material, sources) = (&setup.material, &setup.sources);
    let reader = Reader {
        tokenizer: &material.student.tokenizer,
        eos: material.student.eos()?,
    };
    let train = &sources.train;
    let mut all = Vec::new();
    for i in some_of(material.pairs.len()) {
        let pair = &material.pairs[i];
        for (side, what) in [
            (&pair.chosen, "preferred response"),
            (&pair.rejected, "rejected response"),
        ] {
            all.push(reader.example(train, side, Some(what))?);
        }
    }
    let sampled = sampled_words(&config.method);
    for (number, i) in some_of(material.prompts.len()).into_iter().enumerate() {
        let prompt = &material.prompts[i];
        let read = |ids: &[u32]| -> Result<Rendered> {
            Ok(Rendered {
                place: Place::of_row(train, prompt.row),
                ..reader.read(ids, None)?
            })
        };
        all.push(Rendered {
            sampled: sampled.clone(),
            ..read(&prompt.prompt)?
        });
        // In other templates once is enough.
        let others = material.teacher_prompts.iter().take_while(|_| number == 0);
        for (template, prompts) in others.enumerate() {
            if let Some(prompt) = prompts.get(i) {
                let what = format!("as the teacher reads it, method.templates[{template}]");
                all.push(Rendered {
                    what: Some(what),
                    ..read(&prompt.prompt)?
                });
            }
        }
    }
    let term = "text of the language-modelling term";
    match (&all[..], &material.examples[..]) {
        ([], examples) => {
            for i in some_of(examples.len()) {
                all.push(reader.example(train, &examples[i], None)?);
            }
        }
        (_, [first, ..]) => all.push(reader.example(train, first, Some(term))?),
        _ => {}
    }
    if let (Some(first), Some(corpus)) = (material.corpus.first(), &sources.corpus) {
        all.push(reader.example(corpus, first, Some(term))?);
    }
    Ok(all)
}

/// Some numbers below `count`, ascending, the first and the last among them.
fn some_of(count: usize) -> Vec<usize> {
    let (last, shown) = (count.saturating_sub(1), SHOWN.min(count));
    let between = shown.saturating_sub(1).max(1);
    (0..shown).map(|i| i * last / between).collect()
}

/// Whose text the student is trained on.
pub(super) fn trained_on(method: &Method) -> String {
    const TEACHER: &str = "the teacher's answer, sampled before the first step";
    const STUDENT: &str = "the student's own answer, sampled in every step";
    let main = match method {
        _ if method.reads_pairs() && method.rollout().is_none() => {
            "the data's preferred and rejected responses".into()
        }
        Method::Kd(_) | Method::SeqKd(_) if method.rollout().is_some() => TEACHER.into(),
        Method::Gkd(settings) if settings.student_share >= 1.0 => STUDENT.into(),
        Method::Gkd(settings) if settings.student_share > 0.0 => format!(
            "the data's response, or with a probability of {} {STUDENT}",
            settings.student_share
        ),
        Method::DistiLlm(_) => format!(
            "the data's response, and as the validation loss rises more and more often {STUDENT}"
        ),
        Method::MiniLlm(settings) if settings.teacher_mix > 0.0 => format!(
            "an answer sampled in every step, the teacher's share of each token's distribution \
             being {}",
            settings.teacher_mix
        ),
        Method::MiniLlm(_) | Method::Llmr(_) => STUDENT.into(),
        Method::Pbkd(settings) if settings.lm_weight > 0.0 => format!("{STUDENT}; and {TEACHER}"),
        Method::Pbkd(_) => STUDENT.into(),
        Method::Dpkd(_) if method.rollout().is_some() => format!("{TEACHER}; against {STUDENT}"),
        Method::MmPbkd(_) => format!("{TEACHER}; and {STUDENT}"),
        _ => "the data's response".into(),
    };
    match method.lm_source() {
        Some(LmSource::Data) => format!("{main}; and the data's response"),
        Some(LmSource::Corpus) => format!("{main}; and the corpus"),
        _ => main,
    }
}

/// Words in the place of a response that is still to be sampled.
fn sampled_words(method: &Method) -> Option<String> {
    let most = method.rollout()?.max_new_tokens;
    let words = trained_on(method);
    let sampled = words.split("; and the data's").next().unwrap_or_default();
    let sampled = sampled.split("; and the corpus").next().unwrap_or_default();
    Some(format!("{sampled}; at most {most} tokens, EOS among them"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, method, tokenizer};
    use super::*;

    #[test]
    fn the_text_is_that_of_the_token_ids() {
        for name in ["smollm.gguf", "metaspace"] {
            let tokenizer = tokenizer(name);
            let eos = tokenizer.eos().unwrap_or(2);
            let end = tokenizer.decode(&[eos], false).unwrap();
            let reader = Reader {
                tokenizer: &tokenizer,
                eos,
            };
            let (prompt, mut response) = tokenizer
                .encode_pair("Say it.\n", "  Ja – größer\n\n")
                .unwrap();
            response.push(eos);
            let read = reader.read(&prompt, Some(&response)).unwrap();
            assert!(read.prompt.ends_with("Say it.\n"), "{name}: {read:?}");
            let expected = format!("  Ja – größer\n\n{end}");
            assert_eq!(read.response.as_deref(), Some(&expected[..]), "{name}");
            assert_eq!(read.response_tokens, response.len());
            assert_eq!(read.ends_with_eos, Some(true));
            assert!(read.special.contains(&end), "{name}: {:?}", read.special);
            response.pop();
            let cut = reader.read(&prompt, Some(&response)).unwrap();
            assert_eq!(cut.ends_with_eos, Some(false));
            let alone = reader.read(&prompt, None).unwrap();
            assert_eq!((alone.response, alone.ends_with_eos), (None, None));
        }
    }

    #[test]
    fn rows_are_taken_from_all_over_the_file() {
        assert_eq!(some_of(0), [0; 0]);
        assert_eq!(some_of(1), [0]);
        assert_eq!(some_of(2), [0, 1]);
        assert_eq!(some_of(3), [0, 1, 2]);
        assert_eq!(some_of(640), [0, 319, 639]);
    }

    #[test]
    fn words_say_whose_text_it_is() {
        for (text, words) in [
            ("name = \"sft\"", "the data's response"),
            (
                "name = \"seqkd\"",
                "the teacher's answer, sampled before the first step",
            ),
            (
                "name = \"dpkd\"\npairs = \"data\"",
                "the data's preferred and rejected responses",
            ),
            (
                "name = \"minillm\"\nteacher_mix = 0.0",
                "the student's own answer, sampled in every step; and the data's response",
            ),
        ] {
            assert_eq!(trained_on(&method(text)), words, "{text}");
        }
        let method =
            config("[method]\nname = \"minillm\"\nteacher_mix = 0.0\nmax_new_tokens = 9").method;
        assert_eq!(
            sampled_words(&method).unwrap(),
            "the student's own answer, sampled in every step; at most 9 tokens, EOS among them"
        );
        assert_eq!(
            sampled_words(&super::super::testing::method("name = \"sft\"")),
            None
        );
    }
}
