//! What most verbs begin with: a model, the rows of a file, and a prompt template.

use std::path::{Path, PathBuf};

use distil::data::counts::Counts;
use distil::data::example::{Encoding, Limits};
use distil::data::read::{DataSet, OnBadRow};
use distil::data::template::Template;
use distil::train::open_model;
use distil_model::Model;

use crate::arguments::PrecisionArguments;
use crate::failure::WrongInput;
use crate::progress::Progress;

/// Opens a model, fetching it if it is not on this machine.
pub(crate) fn model(reference: &str, progress: &mut Progress) -> anyhow::Result<Model> {
    let model = open_model(reference, &mut |event| progress.event(event))?;
    progress.done();
    Ok(model)
}

/// Opens a model that is only asked: computed in this precision, its matrices packed for that. It
/// cannot be written.
pub(crate) fn asked_model(
    reference: &str,
    precision: PrecisionArguments,
    progress: &mut Progress,
) -> anyhow::Result<Model> {
    let mut model = model(reference, progress)?;
    let precision = precision.precision().into();
    model.network = model.network.in_precision(precision).packed();
    Ok(model)
}

/// The rows of a file.
pub(crate) fn rows(file: &Path) -> anyhow::Result<DataSet> {
    Ok(DataSet::read(&[PathBuf::from(file)], OnBadRow::Fail)?)
}

/// The template `spec` of `model`.
pub(crate) fn template(spec: &str, model: &Model) -> anyhow::Result<Template> {
    if spec == "chat" && model.tokenizer.chat_template().is_none() {
        return Err(WrongInput::new(
            format!("{} has no chat template", model.path().display()),
            "pass --template alpaca or --template '{{ prompt }}', or name an instruction-tuned model",
        )
        .into());
    }
    Ok(Template::new(spec, model.tokenizer.chat_template())?)
}

/// Calls `work` with what turns rows into token ids of `model`. Nothing is too long for it: what a
/// model cannot hold is for [`keep_fitting`] to leave out by name.
pub(crate) fn with_encoding<T>(
    model: &Model,
    template: &Template,
    work: impl FnOnce(&Encoding<'_>) -> distil::Result<T>,
) -> anyhow::Result<T> {
    let encode_pair = |prompt: &str, response: &str| model.tokenizer.encode_pair(prompt, response);
    let limits = Limits {
        max_prompt_tokens: usize::MAX,
        max_response_tokens: usize::MAX,
    };
    let encoding = Encoding {
        template,
        encode_pair: &encode_pair,
        eos: model.eos()?,
        limits,
        on_bad_row: OnBadRow::Fail,
    };
    Ok(work(&encoding)?)
}

/// Keeps the items of at most `most` tokens and says which rows the others are. `what` is what they are
/// called, in the plural.
pub(crate) fn keep_fitting<T>(
    what: &str,
    items: Vec<T>,
    most: usize,
    measure: impl Fn(&T) -> (usize, usize),
    data: &DataSet,
    progress: &mut Progress,
) -> Vec<T> {
    const NAMED: usize = 5;
    let (kept, over): (Vec<T>, Vec<T>) =
        items.into_iter().partition(|item| measure(item).0 <= most);
    if !over.is_empty() {
        let place = |item: &T| {
            let row = data.rows.get(measure(item).1);
            row.map(|row| data.place(row.source)).unwrap_or_default()
        };
        let places: Vec<String> = over.iter().take(NAMED).map(place).collect();
        let more = match over.len() > NAMED {
            true => format!(" and {} more", over.len() - NAMED),
            false => String::new(),
        };
        progress.warn(&format!(
            "{} of {} {what} left out, over the model's context of {most} tokens: {}{more}",
            over.len(),
            over.len() + kept.len(),
            places.join(", "),
        ));
    }
    kept
}

/// Refuses a data set of which nothing is left.
pub(crate) fn not_empty<T>(items: &[T], data: &DataSet) -> anyhow::Result<()> {
    if items.is_empty() {
        let file = data.files.first().cloned().unwrap_or_default();
        return Err(WrongInput::new(
            format!("{}: no row fits into the model's context", file.display()),
            "give shorter rows, or choose a model with a longer context",
        )
        .into());
    }
    Ok(())
}

/// Says which rows were not used, if any.
pub(crate) fn warn_left_out(counts: &Counts, progress: &mut Progress) {
    if counts.kept < counts.rows {
        progress.warn(&counts.to_string());
    }
}
