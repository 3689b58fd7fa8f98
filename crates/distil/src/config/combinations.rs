//! Values that are allowed by themselves and mean nothing together: the run would go through and
//! teach something else than was asked for. Each is refused by name, with the fix.

use super::document::Document;
use super::method::{Baseline, DivergenceTerm, Dpkd, DpkdForm, Method, RewardBaseline};
use super::{Config, LmSource};
use crate::Result;

pub(crate) fn check(config: &Config, document: &Document) -> Result<()> {
    corpus(config, document)?;
    cache(config, document)?;
    sampling_precision(config, document)?;
    cross_entropy_alone(&config.method, document)?;
    match &config.method {
        Method::DistiLlm(_) => threshold_that_hears_nothing(config, document),
        Method::MiniLlm(settings) => {
            let sampling = settings.rollout.sampling;
            let key = match (sampling.top_k > 0, sampling.top_p < 1.0) {
                (true, _) => "method.top_k",
                (false, true) => "method.top_p",
                (false, false) => return Ok(()),
            };
            let what = "reverse KL over a truncated distribution is not the reverse KL: tokens \
                        outside of it would never be corrected";
            let fix = "remove it; minillm samples from the whole vocabulary";
            Err(document.refuse(key, what, fix))
        }
        Method::Llmr(_) => equal_advantages(config, document),
        Method::Pbkd(settings) => {
            let responses = config.train.batch * settings.samples_per_prompt;
            if settings.baseline == RewardBaseline::BatchMean && responses == 1 {
                let what = "of a single response a step, the mean of the others is nothing: no \
                            advantage would ever reach the student";
                let fix = "raise train.batch or method.samples_per_prompt, or choose \"teacher\"";
                return Err(document.refuse("method.baseline", what, fix));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A corpus that nobody reads, or a term on a corpus that is not there.
fn corpus(config: &Config, document: &Document) -> Result<()> {
    let (method, data) = (&config.method, &config.data);
    let source = method.lm_source();
    if source == Some(LmSource::Corpus) && data.corpus.is_empty() {
        let key = match method {
            Method::Dpkd(Dpkd {
                form: DpkdForm::Token(_),
                ..
            }) => "method.corpus_weight",
            _ => "method.lm_source",
        };
        let fix = "add data.corpus = [\"text.jsonl\"], or leave the corpus out";
        return Err(document.refuse(key, "needs data.corpus, which is not set", fix));
    }
    if !data.corpus.is_empty() && source != Some(LmSource::Corpus) {
        let what = format!(
            "method `{}`, as it is set, never reads a corpus",
            method.name()
        );
        let fix = "remove the key, or use a method with lm_source = \"corpus\" (minillm, dpkd) and \
                   an lm_weight above 0";
        return Err(document.refuse("data.corpus", what, fix));
    }
    Ok(())
}

/// A cache of what a method never reads twice.
fn cache(config: &Config, document: &Document) -> Result<()> {
    let reads = match &config.method {
        Method::Kd(_) | Method::DistiLlm(_) => true,
        Method::Gkd(settings) => settings.student_share < 1.0,
        Method::Dpkd(settings) => matches!(settings.form, DpkdForm::Token(_)),
        _ => false,
    };
    match config.teacher.as_ref().is_some_and(|teacher| teacher.cache) && !reads {
        false => Ok(()),
        true => Err(document.refuse(
            "teacher.cache",
            format!(
                "has no effect with method `{}`, whose teacher reads fresh samples or is not asked \
                 for a distribution",
                config.method.name()
            ),
            "remove it; kd, gkd, distillm and the token form of dpkd read the same texts again",
        )),
    }
}

/// A precision of samples that nobody draws.
fn sampling_precision(config: &Config, document: &Document) -> Result<()> {
    let student = &config.student;
    let samples = config.method.samples_student() || config.data.eval.is_some();
    match samples || student.sampling_precision == student.precision {
        true => Ok(()),
        false => Err(document.refuse(
            "student.sampling_precision",
            format!(
                "has no effect: method `{}` draws no response of the student, and without data.eval \
                 it answers nothing",
                config.method.name()
            ),
            "remove it, or set student.precision",
        )),
    }
}

/// A teacher that is loaded, and weighs nothing.
fn cross_entropy_alone(method: &Method, document: &Document) -> Result<()> {
    let of = |term: &DivergenceTerm| term.ce_share;
    let share = match method {
        Method::Kd(settings) => of(&settings.term),
        Method::Gkd(settings) => of(&settings.term),
        Method::DistiLlm(settings) => of(&settings.term),
        Method::Dpkd(Dpkd {
            form: DpkdForm::Token(token),
            ..
        }) => token.ce_share,
        _ => 0.0,
    };
    match share < 1.0 {
        true => Ok(()),
        false => Err(document.refuse(
            "method.ce_share",
            "at 1 the loss is cross-entropy alone: no gradient would come from the teacher",
            "lower it, or use name = \"sft\"",
        )),
    }
}

fn threshold_that_hears_nothing(config: &Config, document: &Document) -> Result<()> {
    let eval = &config.eval;
    let loss = |name: &String| name == "forward_kl" || name == "perplexity";
    let (key, what, fix) = if config.data.eval.is_none() {
        (
            "data.eval",
            "distillm raises its threshold when the validation loss rises, and there is no \
             validation",
            "add data.eval = \"dev.jsonl\"",
        )
    } else if !eval.metrics.iter().any(loss) {
        (
            "eval.metrics",
            "distillm hears the validation loss, and no metric is one",
            "add \"forward_kl\" or \"perplexity\"",
        )
    } else if eval.every == 0 {
        (
            "eval.every",
            "distillm hears the validation loss at every evaluation, and there is none before \
             the end: the student's own responses would never be used",
            "set it to a small share of the run's steps",
        )
    } else {
        return Ok(());
    };
    Err(document.refuse(key, what, fix))
}

/// Advantages that are 0 whatever the teacher says.
fn equal_advantages(config: &Config, document: &Document) -> Result<()> {
    let Method::Llmr(settings) = &config.method else {
        return Ok(());
    };
    let centred = matches!(
        settings.baseline,
        Baseline::BatchMean | Baseline::MinVariance
    );
    let state = matches!(settings.baseline, Baseline::MaxQ | Baseline::ExpectedQ);
    if settings.normalize_advantage && settings.return_scale != 1.0 {
        let what = "has no effect with normalize_advantage = true, which divides it out again";
        return Err(document.refuse("method.return_scale", what, "remove one of the two"));
    }
    let fix = "raise train.batch, or choose baseline = \"expected_q\"";
    if config.train.batch == 1 && centred {
        let what = "is a mean over the batch's other responses, and with train.batch = 1 there is \
                    none: nothing of the teacher's reward would reach the student";
        return Err(document.refuse("method.baseline", what, fix));
    }
    let alone = config.train.batch == 1 && settings.sentence_level;
    if alone && settings.normalize_advantage && !state {
        let what = "with sentence_level and one response a step every advantage is the mean that it \
                    takes away: nothing of the teacher's reward would reach the student";
        return Err(document.refuse("method.normalize_advantage", what, fix));
    }
    Ok(())
}
