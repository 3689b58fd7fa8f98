//! `[eval]`: what is measured while training, how often, and what decides which checkpoint is best.

use serde::Serialize;

use super::data::Data;
use super::document::Document;
use super::given::GivenEval;
use crate::Result;
use crate::eval::metric::metric;

/// Evaluation during training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Eval {
    /// Optimiser steps between evaluations; 0 is only at the end.
    pub every: usize,
    /// Names of the metrics; empty if there is nothing to measure on.
    pub metrics: Vec<String>,
    /// The metric that decides which checkpoint is best, one of `metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_metric: Option<String>,
    /// Most held-out rows measured.
    pub rows: usize,
    /// Fixed prompts answered at every evaluation.
    pub samples: usize,
    /// Length limit of answers, in tokens.
    pub max_new_tokens: usize,
    /// Sequences generated or scored at once.
    pub batch: usize,
}

pub(crate) fn resolve(
    given: GivenEval,
    data: &Data,
    has_teacher: bool,
    document: &Document,
) -> Result<Eval> {
    let metrics = match given.metrics {
        Some(metrics) => metrics,
        None if data.eval.is_none() => Vec::new(),
        None if has_teacher => vec!["forward_kl".into(), "rouge_l".into()],
        None => vec!["rouge_l".into()],
    };
    if data.eval.is_none() && !metrics.is_empty() {
        let fix = "add data.eval = \"dev.jsonl\", or remove the key";
        return Err(document.refuse(
            "eval.metrics",
            "there is nothing to measure on: data.eval is not set",
            fix,
        ));
    }
    let of_teacher = metrics
        .iter()
        .find(|name| metric(name).is_some_and(|metric| metric.needs_teacher()));
    if let Some(name) = of_teacher.filter(|_| !has_teacher) {
        let what = format!("\"{name}\" compares with a teacher, but teacher.model is not set");
        return Err(document.refuse(
            "eval.metrics",
            what,
            "add [teacher] model = \"…\", or leave this metric out",
        ));
    }
    let ranks = |name: &&String| metric(name).is_some_and(|metric| metric.better.is_some());
    if let Some(best) = &given.best_metric {
        let usable: Vec<&str> = metrics.iter().filter(ranks).map(String::as_str).collect();
        if !usable.contains(&best.as_str()) {
            let what = format!("\"{best}\" is not measured, or has no better side");
            let fix = if usable.is_empty() {
                "remove the key, or set data.eval and eval.metrics".to_owned()
            } else {
                format!(
                    "choose one of {}, or add it to eval.metrics",
                    usable.join(", ")
                )
            };
            return Err(document.refuse("eval.best_metric", what, fix));
        }
    }
    let best_metric = given
        .best_metric
        .or_else(|| metrics.iter().find(ranks).cloned());
    Ok(Eval {
        every: given.every.unwrap_or(50),
        metrics,
        best_metric,
        rows: given.rows.unwrap_or(64),
        samples: given.samples.unwrap_or(4),
        max_new_tokens: given.max_new_tokens.unwrap_or(data.max_response_tokens),
        batch: given.batch.unwrap_or(32),
    })
}
