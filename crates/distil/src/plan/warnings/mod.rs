//! The usual mistakes, looked for before anything runs.
//!
//! Each is a small function of what it needs that finds one thing, counts it and names an example row. What
//! would be an error stops the run elsewhere; here stands what can be meant and mostly is not.
//!
//! | file | |
//! |---|---|
//! | `ends.rs` | responses without EOS, with EOS or other special tokens inside, or with another end than the chat template's |
//! | `overlap.rs` | evaluation rows that are trained on, rows that stand there twice, pairs of one response, prompts that ask nothing |
//! | `templates.rs` | teacher and student that read the same prompt differently, BOS twice, padding that is EOS |
//! | `lengths.rs` | many rows left out, answers that will be cut off |
//! | `settings.rs` | learning rate, number of held-out rows, sampling, batch, a student that is its teacher, memory |

mod ends;
mod lengths;
mod overlap;
mod settings;
mod templates;

use std::fmt;

use serde::Serialize;

pub(super) use settings::too_little_memory;

use super::context;
use super::place::Place;
use crate::config::{Config, Start};
use crate::data::counts::LeftOut;
use crate::data::example::Example;
use crate::data::read::DataSet;
use crate::data::row::{Prompt, Row};
use crate::data::template::Template;
use crate::error::Result;
use crate::eval::metric::{MetricInfo, metric};
use crate::train::Setup;

/// How sure it is that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something is most likely wrong.
    Warning,
    /// Worth knowing.
    Note,
}

/// A mistake, or what looks like one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Warning {
    /// Its name, for scripts.
    pub name: &'static str,
    /// How sure it is.
    pub level: Level,
    /// What was found, and how many.
    pub what: String,
    /// Rows that have it; none where it is not about rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// Rows to look at.
    pub examples: Vec<Place>,
    /// What to do.
    pub fix: String,
}

impl Warning {
    fn new(name: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Warning,
            what: what.into(),
            rows: None,
            examples: Vec::new(),
            fix: fix.into(),
        }
    }

    fn rows(self, rows: usize, examples: impl IntoIterator<Item = Place>) -> Self {
        Self {
            rows: Some(rows),
            examples: examples.into_iter().collect(),
            ..self
        }
    }

    fn note(self) -> Self {
        Self {
            level: Level::Note,
            ..self
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        let places: Vec<String> = self.examples.iter().map(Place::to_string).collect();
        if !places.is_empty() {
            write!(f, " (for example {})", places.join(" and "))?;
        }
        write!(f, "; {}", self.fix)
    }
}

/// A share in percent, never 0 for something nor 100 for less than all.
fn percent(part: usize, whole: usize) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    match (part, share) {
        (0, _) => "0 %".into(),
        (_, share) if share < 1.0 => "under 1 %".into(),
        (part, share) if part < whole && share > 99.0 => "over 99 %".into(),
        (_, share) => format!("{share:.0} %"),
    }
}

/// Those that a run says at its start, too: each would spoil the result without a trace.
///
/// # Errors
/// As [`all`].
pub(crate) fn at_start(config: &Config, setup: &Setup) -> Result<Vec<Warning>> {
    let found = [
        ends_of(setup)?,
        overlap_of(setup),
        templates_of(config, setup)?,
    ];
    let found = found.into_iter().flatten();
    Ok(found.filter(|w| w.level == Level::Warning).collect())
}

/// All of a run. `continues`: whether its student is that of an earlier stage.
///
/// # Errors
/// The tokenizer fails on a text.
pub(super) fn all(config: &Config, setup: &Setup, continues: bool) -> Result<Vec<Warning>> {
    let (material, sources) = (&setup.material, &setup.sources);
    let tokenizer = &material.student.tokenizer;
    let eos = material.student.eos()?;
    let mut found: Vec<Option<Warning>> = vec![
        ends_of(setup)?,
        overlap_of(setup),
        templates_of(config, setup)?,
    ];

    let train = &sources.train;
    let used = used_rows(setup);
    let responses = responses(setup);
    found.push(ends::eos_inside(train, &responses, tokenizer, eos)?);
    found.push(ends::special_inside(train, &responses, tokenizer, eos)?);
    if let ("chat", Some(chat)) = (&config.data.template[..], tokenizer.chat_template()) {
        found.push(ends::other_end_of_turn(chat, tokenizer, eos)?);
    }

    let answers = config.method.reads_responses() || config.method.reads_pairs();
    found.push(overlap::repeated(train, &used, answers));
    found.push(overlap::pairs_of_one_response(train, &material.pairs));

    let prompts = material.prompts.iter().map(|p| (p.row, &p.prompt[..]));
    let of_examples = material.examples.iter().map(|e| (e.row, &e.prompt[..]));
    let of_pairs = material.pairs.iter().map(|pair| &pair.chosen);
    let of_pairs = of_pairs.map(|e| (e.row, &e.prompt[..]));
    let all_prompts: Vec<(usize, &[u32])> = prompts.chain(of_examples).chain(of_pairs).collect();
    found.push(templates::bos_twice(train, &all_prompts, tokenizer)?);
    found.push(templates::pad_is_eos(tokenizer, eos)?);
    found.push(overlap::empty_prompts(train, &used));

    let template = Template::new(&config.data.template, tokenizer.chat_template())?;
    let measured = |reason: LeftOut| -> Result<Vec<usize>> {
        let mut lengths = Vec::new();
        for row in &train.rows {
            let length = match reason {
                LeftOut::PromptTooLong => match row.content.prompt() {
                    // Such rows are counted as malformed.
                    Some(prompt) => match template.render(prompt) {
                        Ok(text) => tokenizer.encode_prompt(&text)?.len(),
                        Err(_) => continue,
                    },
                    None => continue,
                },
                _ => match row.content.references().first() {
                    Some(text) => tokenizer.encode(text)?.len() + 1,
                    None => continue,
                },
            };
            lengths.push(length);
        }
        Ok(lengths)
    };
    let context = context(setup);
    let room = [
        context.saturating_sub(config.data.max_response_tokens),
        context.saturating_sub(config.data.max_prompt_tokens),
    ];
    let counts = &setup.counts;
    found.push(lengths::left_out(counts, train, room, measured)?);
    if let Some(rollout) = config.method.rollout() {
        let most = rollout.max_new_tokens;
        let references = references(train, &used);
        found.push(lengths::answers_cut(
            "method.max_new_tokens",
            most,
            train,
            &references,
            tokenizer,
        )?);
        let prompts = all_prompts.iter().map(|(_, prompt)| prompt.len());
        let key = "method.max_new_tokens";
        found.push(lengths::over_the_context(key, most, prompts.max(), context));
    }
    let of_answers = |name: &String| metric(name).is_some_and(MetricInfo::needs_answers);
    if let (Some(set), Some(data)) = (&setup.eval, &sources.held_out)
        && config.eval.metrics.iter().any(of_answers)
    {
        let most = config.eval.max_new_tokens;
        let asked: Vec<usize> = set.prompts.iter().map(|prompt| prompt.row).collect();
        let references = references(data, &asked);
        let key = "eval.max_new_tokens";
        found.push(lengths::answers_cut(
            key,
            most,
            data,
            &references,
            tokenizer,
        )?);
        let prompts = set.prompts.iter().map(|prompt| prompt.prompt.len());
        let context = material.student.network.config().context;
        found.push(lengths::over_the_context(key, most, prompts.max(), context));
    }
    if let Some(set) = &setup.eval {
        let measured = set.prompts.len().max(set.examples.len());
        found.push(settings::few_held_out(measured));
    }

    let lost_layers = matches!(config.student.start, Start::Prune(_)) && !continues;
    found.push(settings::learning_rate(config, lost_layers));
    found.push(settings::sampling(&config.method));
    if !continues {
        let teacher = material.teacher.as_ref();
        let layers = teacher.map(|teacher| teacher.outline.config.layers);
        found.push(settings::same_model(config, layers));
    }
    let epoch = match (material.pairs.len(), material.prompts.len()) {
        (0, 0) => material.examples.len(),
        (0, prompts) => prompts * config.method.teacher_answers().max(1),
        (pairs, _) => pairs,
    };
    found.push(settings::batch_over_rows(config.train.batch, epoch));
    let mut found: Vec<Warning> = found.into_iter().flatten().collect();
    found.sort_by_key(|warning| warning.level == Level::Note);
    Ok(found)
}

fn ends_of(setup: &Setup) -> Result<Option<Warning>> {
    let eos = setup.material.student.eos()?;
    Ok(ends::cut_off(&setup.sources.train, &responses(setup), eos))
}

fn overlap_of(setup: &Setup) -> Option<Warning> {
    let (sources, set) = (&setup.sources, setup.eval.as_ref()?);
    let prompts = set.prompts.iter().map(|prompt| prompt.row);
    let mut measured: Vec<usize> = prompts.chain(set.examples.iter().map(|e| e.row)).collect();
    measured.sort_unstable();
    measured.dedup();
    let held_out = sources.held_out.as_ref()?;
    overlap::held_out_in_training(&sources.train, &used_rows(setup), held_out, &measured)
}

fn templates_of(config: &Config, setup: &Setup) -> Result<Option<Warning>> {
    let material = &setup.material;
    let Some(teacher) = &material.teacher else {
        return Ok(None);
    };
    let rows = &setup.sources.train.rows;
    let used = used_rows(setup);
    let prompts = used
        .iter()
        .filter_map(|&row| rows.get(row)?.content.prompt().map(|prompt| (row, prompt)));
    let prompts: Vec<(usize, &Prompt)> = prompts.take(templates::COMPARED).collect();
    templates::read_differently(
        &config.data.template,
        [&teacher.outline.tokenizer, &material.student.tokenizer],
        &setup.sources.train,
        &prompts,
    )
}

/// Rows of the training files that are trained on, ascending.
fn used_rows(setup: &Setup) -> Vec<usize> {
    let material = &setup.material;
    let pairs = material.pairs.iter().map(|pair| pair.chosen.row);
    let prompts = material.prompts.iter().map(|prompt| prompt.row);
    let examples = material.examples.iter().map(|example| example.row);
    let mut rows: Vec<usize> = pairs.chain(prompts).chain(examples).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// The data's own responses that are trained on.
fn responses(setup: &Setup) -> Vec<&Example> {
    let material = &setup.material;
    let pairs = material.pairs.iter();
    let pairs = pairs.flat_map(|pair| [&pair.chosen, &pair.rejected]);
    material.examples.iter().chain(pairs).collect()
}

/// The first reference of rows that have one.
fn references<'a>(data: &'a DataSet, rows: &[usize]) -> Vec<(usize, &'a str)> {
    let reference = |&row: &usize| {
        let references = data.rows.get(row)?.content.references();
        Some((row, &references.first()?[..]))
    };
    rows.iter().filter_map(reference).collect()
}

/// The row with this number.
fn row(data: &DataSet, number: usize) -> Option<&Row> {
    data.rows.get(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_one_line_that_says_what_where_and_what_to_do() {
        let place = |line| Place {
            path: "/data/dev.jsonl".into(),
            line,
        };
        let warning = Warning::new("name", "2 rows are odd", "mend them");
        assert_eq!(warning.to_string(), "2 rows are odd; mend them");
        assert_eq!(
            warning.rows(2, [place(3), place(4)]).to_string(),
            "2 rows are odd (for example data/dev.jsonl:3 and data/dev.jsonl:4); mend them"
        );
    }

    #[test]
    fn percentages_are_never_more_than_they_say() {
        for (part, whole, words) in [
            (0, 7, "0 %"),
            (1, 1000, "under 1 %"),
            (1, 2, "50 %"),
            (999, 1000, "over 99 %"),
            (7, 7, "100 %"),
            (0, 0, "0 %"),
        ] {
            assert_eq!(percent(part, whole), words);
        }
    }
}
