//! One set of rows, measured: first everything that can be refused is looked at, then the models work, then
//! the result is written, and printed last.

use std::path::PathBuf;

use distil::data::example::{Example, PromptExample};
use distil::data::read::DataSet;
use distil::eval::conditions::{
    Conditions, Header, config_sha256, data_sha256, tokenizer_sha256, weights_sha256,
};
use distil::eval::evaluate::EvalSet;
use distil::eval::exposure::usual_lengths;
use distil::eval::kept::Kept;
use distil::eval::metric::{DEFAULT_METRICS, METRIC_NAMES};
use distil::eval::outcome::{FORMAT, Subject, to_json};
use distil::eval::protocol::{Measured, Protocol, Run, measurable_metrics, measure};
use distil::eval::suite::SuiteSet;
use distil_model::Model;

use super::Eval;
use crate::failure::WrongInput;
use crate::progress::Progress;
use crate::{loading, output};

/// The models, opened once for all sets, and what their files are.
pub(super) struct Models {
    student: Model,
    teacher: Option<Model>,
    /// Empty where nothing is written.
    sha256: Sha256,
}

#[derive(Default)]
struct Sha256 {
    weights: String,
    tokenizer: String,
    config: Option<String>,
    teacher: Option<String>,
}

impl Models {
    pub(super) fn open(arguments: &Eval, progress: &mut Progress) -> anyhow::Result<Self> {
        let precision = arguments.precision;
        let name = arguments.model.as_deref().unwrap_or_default();
        let student = loading::asked_model(name, precision, progress)?;
        let teacher = match &arguments.teacher {
            Some(reference) => Some(loading::asked_model(reference, precision, progress)?),
            None => None,
        };
        let sha256 = match arguments.out.is_some() || arguments.json {
            false => Sha256::default(),
            true => Sha256 {
                weights: weights_sha256(&student)?,
                tokenizer: tokenizer_sha256(&student),
                config: config_sha256(&student)?,
                teacher: teacher.as_ref().map(weights_sha256).transpose()?,
            },
        };
        Ok(Self {
            student,
            teacher,
            sha256,
        })
    }
}

/// A set that can be measured.
pub(super) struct Prepared {
    subject: Subject,
    rows: EvalSet,
    protocol: Protocol,
    header: Header,
    out: Option<PathBuf>,
    kept: Kept,
}

impl Prepared {
    /// Refuses whatever cannot be measured or must not be replaced.
    pub(super) fn new(
        arguments: &Eval,
        set: SuiteSet,
        data: &DataSet,
        models: &Models,
        progress: &mut Progress,
    ) -> anyhow::Result<Self> {
        let Models {
            student,
            teacher,
            sha256,
        } = models;
        let template = set.template.as_deref().unwrap_or(&arguments.template);
        let limit = set.rows.or(arguments.rows);
        let rows = eval_set(data, template, limit, models, progress)?;
        let max_new_tokens = set.max_new_tokens.unwrap_or(arguments.max_new_tokens);
        let greedy = (!arguments.no_greedy).then_some(Run::GREEDY);
        let sampled = arguments.seeds.iter().map(|&seed| Run::sampled(seed));
        let lengths = |lengths: &Vec<usize>| match lengths.is_empty() {
            true => usual_lengths(max_new_tokens),
            false => lengths.clone(),
        };
        let buckets = arguments.buckets.as_ref().map(|borders| borders.0.clone());
        let protocol = Protocol {
            metrics: metrics(arguments, teacher.is_some(), &rows)?,
            runs: greedy.into_iter().chain(sampled).collect(),
            buckets: buckets.unwrap_or_else(|| vec![30, 70]),
            exposure_lengths: arguments.exposure_bias.as_ref().map(lengths),
            token_rows: match arguments.out {
                Some(_) => arguments.token_rows,
                None => 0,
            },
            max_new_tokens,
            batch: arguments.batch,
            micro_batch_tokens: arguments.micro_batch_tokens,
        };
        protocol.check(student, teacher.as_ref(), &rows)?;
        let header = Header {
            format: FORMAT,
            conditions: Conditions {
                data_sha256: data_sha256(&set.data, set.references.as_deref())?,
                weights_sha256: sha256.weights.clone(),
                tokenizer_sha256: sha256.tokenizer.clone(),
                config_sha256: sha256.config.clone(),
                precision: arguments.precision.precision(),
                template: template.to_owned(),
                max_new_tokens,
            },
            teacher_sha256: sha256.teacher.clone(),
            runs: protocol.needed_runs().to_vec(),
        };
        let out = arguments.out.as_ref();
        let out = out.map(|out| super::file_of(arguments, out, &set));
        let kept = match &out {
            Some(out) => {
                output::check_file(out, true)?;
                Kept::open(out, &header, &rows, &protocol, arguments.force)?
            }
            None => Kept::nothing(&header.runs),
        };
        Ok(Self {
            subject: Subject {
                name: set.name,
                model: arguments.model.clone().unwrap_or_default(),
                teacher: arguments.teacher.clone(),
                data: set.data,
                references: set.references,
            },
            rows,
            protocol,
            header,
            out,
            kept,
        })
    }

    /// The set's name and its numbers, which are written, and printed if that is asked for as JSON.
    pub(super) fn measure(
        mut self,
        models: &Models,
        as_json: bool,
        progress: &mut Progress,
    ) -> anyhow::Result<(String, Measured)> {
        let (there, all) = (
            self.kept.count(),
            self.rows.prompts.len() * self.header.runs.len(),
        );
        if let Some(out) = self.out.as_ref().filter(|_| there > 0) {
            progress.note(&format!(
                "{there} of {all} answers are there already, beside {}",
                out.display()
            ));
        }
        let measured = measure(
            &models.student,
            models.teacher.as_ref(),
            &self.rows,
            &self.protocol,
            &mut self.kept,
            &mut |what, done, total| progress.at(what, done, total),
        )?;
        progress.done();
        // Before it is printed: whoever reads that may stop reading, which ends the program.
        self.kept.finish(&self.subject, &self.header, &measured)?;
        if let Some(out) = self.out {
            progress.note(&format!("written: {}", out.display()));
        }
        if as_json {
            let mut brief = to_json(&self.subject, &self.header, &measured);
            // Long lists are for the file.
            if let Some(object) = brief.as_object_mut() {
                object.remove("by_row");
            }
            output::json(&brief)?;
        }
        Ok((self.subject.name, measured))
    }
}

/// The rows as token ids, without those that do not fit into the models' contexts.
fn eval_set(
    data: &DataSet,
    template: &str,
    limit: Option<usize>,
    models: &Models,
    progress: &mut Progress,
) -> anyhow::Result<EvalSet> {
    let template = loading::template(template, &models.student)?;
    let mut rows = loading::with_encoding(&models.student, &template, |encoding| {
        EvalSet::new(data, encoding, limit)
    })?;
    let context = |model: &Model| model.network.config().context;
    let student = context(&models.student);
    let most = models.teacher.iter().map(context).fold(student, usize::min);
    let prompt = |prompt: &PromptExample| (prompt.prompt.len() + 1, prompt.row);
    rows.prompts = loading::keep_fitting("prompts", rows.prompts, most, prompt, data, progress);
    let example = |example: &Example| (example.len(), example.row);
    let references = "rows with their reference";
    rows.examples = loading::keep_fitting(references, rows.examples, most, example, data, progress);
    Ok(rows)
}

/// The metrics asked for, each once; where none are named, and of all, those that can be measured.
fn metrics(arguments: &Eval, has_teacher: bool, set: &EvalSet) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in arguments
        .metrics
        .iter()
        .flatten()
        .filter(|name| *name != "all")
    {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let all = arguments.metrics.iter().flatten().any(|name| name == "all");
    let more = match (all, arguments.metrics.is_none()) {
        (true, _) => measurable_metrics(METRIC_NAMES, has_teacher, set),
        (false, true) => measurable_metrics(DEFAULT_METRICS, has_teacher, set),
        (false, false) => Vec::new(),
    };
    for name in more {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.is_empty() {
        false => Ok(names),
        true => Err(WrongInput::new(
            "no metric can be measured on these rows",
            "give rows with prompts or answers within the model's context",
        )
        .into()),
    }
}
