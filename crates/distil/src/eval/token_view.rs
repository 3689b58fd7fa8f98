//! Some texts of an evaluation token by token: what the student said, what the teacher says to the
//! same prompt, and the reference, as both models see them.
//!
//! ```text
//! {"row": 17, "source": "student" | "teacher" | "reference", "tokens": ["The", " cat", "</s>"],
//!  "logprobs": […], "teacher_logprobs": […], "reward": […]}
//! ```
//!
//! Lists of one length, the token that ended the text included. `logprobs` are the student's, in nats;
//! `reward` is what the teacher's logits induce ([`crate::reward`]), `null` for the last token of a text
//! that was cut off. The student's text is that of the first run, the teacher's is greedy.

use distil_model::Tokenizer;
use serde::Serialize;

use super::evaluate::{Answer, EvalSet, GREEDY, Settings, answer_each};
use super::judged::Judges;
use super::protocol::{OnProgress, Protocol};
use crate::data::example::Example;
use crate::error::Result;

/// A text token by token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenView {
    /// Row of the data, from 0.
    pub row: usize,
    /// Who said it.
    pub source: Source,
    /// The tokens as text.
    pub tokens: Vec<String>,
    /// log q of each, in nats.
    pub logprobs: Vec<f32>,
    /// log p of each, in nats.
    pub teacher_logprobs: Vec<f32>,
    /// The induced reward of each, in nats.
    pub reward: Vec<Option<f64>>,
}

/// Who said a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The student, in the first run.
    Student,
    /// The teacher, greedily.
    Teacher,
    /// The data.
    Reference,
}

/// Of the first prompts, as many as the protocol says; none without a teacher.
///
/// # Errors
/// Those of generation and scoring.
pub(crate) fn token_views(
    judges: &Judges<'_>,
    set: &EvalSet,
    protocol: &Protocol,
    answers: &[Answer],
    progress: &mut OnProgress<'_>,
) -> Result<Vec<TokenView>> {
    let Some(teacher) = judges.teacher.filter(|_| protocol.token_rows > 0) else {
        return Ok(Vec::new());
    };
    let prompts: Vec<_> = set.prompts.iter().take(protocol.token_rows).collect();
    let settings = Settings {
        metrics: Vec::new(),
        sampling: GREEDY,
        sampling_precision: None,
        max_new_tokens: protocol.max_new_tokens,
        batch: protocol.batch,
        seed: 0,
        micro_batch_tokens: protocol.micro_batch_tokens,
    };
    let (mut said, total) = (Vec::new(), prompts.len());
    answer_each(teacher, &prompts, &settings, &mut |answer| {
        said.push(answer);
        progress("the teacher's answers, token by token", said.len(), total);
        Ok(())
    })?;
    let mut texts: Vec<(Source, Example)> = Vec::new();
    for (source, answers) in [(Source::Student, answers), (Source::Teacher, &said)] {
        let shown = |answer: &&Answer| prompts.iter().any(|prompt| prompt.row == answer.row);
        let answers: Vec<Answer> = answers.iter().filter(shown).cloned().collect();
        let examples = judges.examples(&answers)?;
        texts.extend(examples.into_iter().map(|example| (source, example)));
    }
    for example in &set.examples {
        if prompts.iter().any(|prompt| prompt.row == example.row) {
            texts.push((Source::Reference, example.clone()));
        }
    }
    texts.sort_by_key(|(source, example)| (example.row, *source as u8));
    let examples: Vec<Example> = texts.iter().map(|(_, example)| example.clone()).collect();
    let scores = judges.scores(&examples, &mut |_| {})?;
    let rewards = judges.rewards(&examples, &mut |_| {})?;
    let all = texts.into_iter().zip(scores).zip(rewards);
    all.map(|(((source, example), scores), rewards)| {
        let tokens = token_texts(&judges.student.tokenizer, &example.response)?;
        let reward = rewards.reward.iter().copied().map(Some);
        Ok(TokenView {
            row: example.row,
            source,
            reward: reward
                .chain(std::iter::repeat(None))
                .take(tokens.len())
                .collect(),
            tokens,
            logprobs: scores.logprobs,
            teacher_logprobs: scores.teacher.unwrap_or_default().logprobs,
        })
    })
    .collect()
}

/// Each token as the text it adds to those before it; a token that is a part of a character is shown
/// as �.
fn token_texts(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<String>> {
    let size = tokenizer.vocabulary_size();
    let mut before = String::new();
    let mut texts = Vec::with_capacity(ids.len());
    for (index, &id) in ids.iter().enumerate() {
        // A network's vocabulary may be padded; the padding has no text.
        let known: Vec<u32> = ids[..=index]
            .iter()
            .copied()
            .filter(|&id| (id as usize) < size)
            .collect();
        let text = tokenizer.decode(&known, false)?;
        texts.push(match text.strip_prefix(before.as_str()) {
            Some(added) => added.to_owned(),
            None => tokenizer.decode(&[id], false)?,
        });
        before = text;
    }
    Ok(texts)
}
