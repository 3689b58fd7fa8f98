//! The training loop: order, gradient, clipping, AdamW, evaluation, checkpoints, resuming.
//!
//! Everything random is a function of the seed and the step, so a run that was killed and resumed
//! from its last checkpoint ends with the same bits as one that was not.

mod checkpoint;
mod collapse;
mod folder;
mod schedule;
mod setup;
mod stages;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use distil_model::{Model, files};
use serde_json::json;

pub use folder::Folder;
pub use schedule::learning_rate;
pub use setup::{Setup, Sources, kept_layers, open_model, setup};
pub use stages::train_stages;

use crate::config::Config;
use crate::data::batch::order;
use crate::error::{Error, Result};
use crate::eval::evaluate::{Answer, EvalSet, GREEDY, Settings, answer, evaluate};
use crate::eval::metric::{Better, metric};
use crate::event::{Event, StepLine, steps_left};
use crate::export::card;
use crate::method::{Method, Preparation, prepare};
use crate::plan::warnings;
use crate::record::Record;
use crate::step::{Gradients, Optimizer, Phases, Work};
use checkpoint::{Best, State};

/// What a run is.
pub struct Run<'a> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// The run's folder.
    pub out: &'a Path,
    /// Whether a run that is there already is continued.
    pub resume: bool,
    /// Set when the user asks to stop: the step is finished and a checkpoint written.
    pub interrupt: &'a AtomicBool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were made; the student is in this folder.
    Finished {
        /// The student's folder.
        student: PathBuf,
    },
    /// The user stopped it; a checkpoint of this step was written.
    Interrupted {
        /// Optimiser steps made.
        step: usize,
    },
}

/// Trains as configured, from the start or from the last checkpoint.
///
/// # Errors
/// Anything the user's input or the disk can cause, and a loss that is not finite.
pub fn train(run: &Run<'_>, events: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
    let folder = Folder::open(run.out, run.config, run.resume)?;
    if folder.student().exists() {
        events(Event::Note("this run is finished already"));
        return Ok(Outcome::Finished {
            student: folder.student(),
        });
    }
    let result = begin(run, &folder, events);
    if result.is_err() {
        folder.forget();
    }
    result
}

fn begin(run: &Run<'_>, folder: &Folder, events: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
    let config = run.config;
    checkpoint::clear_leftovers(run.out);
    let newest = checkpoint::newest(run.out);
    let path = newest.map(|step| checkpoint::path_of(run.out, step));
    let setup = setup(config, path.as_deref(), events)?;
    events(Event::Note(&format!("training rows: {}", setup.counts)));
    for warning in warnings::at_start(config, &setup)? {
        events(Event::Warning(&warning.to_string()));
    }
    let Setup {
        mut material,
        eval,
        counts,
        sha256,
        ..
    } = setup;
    folder.same_inputs(&sha256)?;
    let mut state = match newest {
        Some(step) => {
            events(Event::Note(&format!("continuing after step {step}")));
            let mut state = checkpoint::read_state(run.out, step)?;
            if let Some(best) = &state.best
                && !checkpoint::path_of(run.out, best.step).exists()
            {
                let text = format!("the best checkpoint, of step {}, is gone", best.step);
                events(Event::Note(&text));
                state.best = None;
            }
            state
        }
        None => {
            let inputs = folder::Inputs {
                sha256,
                counts: &counts,
                eval: eval.as_ref(),
                teacher: material.teacher.as_ref().map(|t| &t.outline.config),
                student: material.student.network.config(),
            };
            folder.write_json("environment.json", &folder::environment(config, inputs))?;
            State::default()
        }
    };
    let mut student = material.student.clone();
    // Evaluations hold on to the teacher only if they ask it something.
    let teacher = match &mut material.teacher {
        Some(teacher) if config.measures_with_teacher() => Some(teacher.model()?.clone()),
        _ => None,
    };
    let mut preparation = Preparation {
        config,
        folder: folder.path(),
        interrupt: run.interrupt,
        events,
    };
    let start = Instant::now();
    let Some(mut method) = prepare(material, &mut preparation)? else {
        return Ok(Outcome::Interrupted { step: state.step });
    };
    state.preparation_seconds += start.elapsed().as_secs_f64();
    let mut optimizer = Optimizer::new(&config.train, &student.network);
    if let Some(step) = newest {
        let path = checkpoint::path_of(run.out, step).join("optimizer.safetensors");
        optimizer.load(&path, step as u32)?;
        method.load(&checkpoint::path_of(run.out, step))?;
    }
    // What a killed run wrote after its last checkpoint is made again.
    for name in ["metrics.jsonl", "samples.jsonl"] {
        folder.keep_until(name, newest)?;
    }
    student.network = student.network.trainable();
    let steps = config.train.steps(method.rows());
    check_warmup(config, steps)?;
    let trainer = Trainer {
        run,
        folder,
        method,
        teacher,
        eval,
        student,
        optimizer,
        state,
        steps,
    };
    trainer.run(events)
}

/// Refuses a warm-up that is longer than the run, which is known once the rows are counted.
pub(crate) fn check_warmup(config: &Config, steps: usize) -> Result<()> {
    let warmup = config.train.warmup_steps;
    if warmup < steps || warmup == 0 {
        return Ok(());
    }
    Err(Error::Config {
        place: "train.warmup_steps".into(),
        what: format!(
            "{warmup} steps of warm-up in a run of {steps} steps never reach the learning rate"
        ),
        fix: format!("lower it below {steps}, or train longer"),
    })
}

struct Trainer<'a> {
    run: &'a Run<'a>,
    folder: &'a Folder,
    method: Box<dyn Method>,
    /// For metrics that compare with it.
    teacher: Option<Model>,
    eval: Option<EvalSet>,
    /// The student in training, tracked.
    student: Model,
    optimizer: Optimizer,
    state: State,
    steps: usize,
}

impl Trainer<'_> {
    fn run(mut self, events: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
        if self.state.step == 0 {
            self.measure(events)?;
        }
        let (every, save_every) = (
            self.run.config.eval.every,
            self.run.config.train.checkpoint_every,
        );
        while !self.is_last() {
            let line = self.step()?;
            self.folder.append("metrics.jsonl", &line)?;
            events(Event::Step(&line));
            let step = self.state.step;
            if let Some(warning) = self.state.collapse.after(step, &line.terms) {
                let line = json!({"step": step, "warning": warning});
                self.folder.append("metrics.jsonl", &line)?;
                events(Event::Warning(&warning));
            }
            let last = self.is_last();
            if last || (every > 0 && step.is_multiple_of(every)) {
                self.measure(events)?;
            }
            let stop = self.run.interrupt.load(Ordering::Relaxed);
            if last || stop || (save_every > 0 && step.is_multiple_of(save_every)) {
                self.save(events)?;
            }
            if stop && !last {
                return Ok(Outcome::Interrupted { step });
            }
        }
        self.finish(events)
    }

    /// Whether the run has its length, in steps or in tokens.
    fn is_last(&self) -> bool {
        let tokens = self.run.config.train.tokens;
        self.state.step >= self.steps || tokens.is_some_and(|most| self.state.tokens >= most)
    }

    /// Share of the run that is done, by steps or by tokens, whichever ends it first.
    fn progress(&self) -> f64 {
        let of_steps = self.state.step as f64 / self.steps.max(1) as f64;
        let of_tokens = self
            .run
            .config
            .train
            .tokens
            .map_or(0.0, |most| self.state.tokens as f64 / most.max(1) as f64);
        of_steps.max(of_tokens)
    }

    /// Rows of a step: consecutive parts of one epoch's order; the last part may be smaller.
    fn rows(&self, step: usize) -> (Vec<usize>, f64) {
        let (rows, batch) = (self.method.rows(), self.run.config.train.batch);
        let per_epoch = rows.div_ceil(batch);
        let (epoch, part) = ((step - 1) / per_epoch, (step - 1) % per_epoch);
        let order = order(self.run.config.seed, epoch as u64, rows);
        let end = ((part + 1) * batch).min(rows);
        (
            order[part * batch..end].to_vec(),
            epoch as f64 + end as f64 / rows as f64,
        )
    }

    fn step(&mut self) -> Result<StepLine> {
        let start = Instant::now();
        let settings = &self.run.config.train;
        let step = self.state.step + 1;
        let (rows, epoch) = self.rows(step);
        let mut work = Work {
            gradients: Gradients::default(),
            micro_batch_tokens: settings.micro_batch_tokens,
            step,
            seed: self.run.config.seed,
            phases: Phases::default(),
            batch: settings.batch,
            progress: self.progress(),
            logit_squares: BTreeMap::new(),
        };
        let report = self.method.step(&self.student.network, &rows, &mut work)?;
        let Work {
            gradients,
            mut phases,
            logit_squares,
            ..
        } = work;
        let rate = learning_rate(settings, step, self.steps);
        let clip = settings.clip_norm;
        let (network, optimizer) = (&mut self.student.network, &mut self.optimizer);
        let norm = phases.time("optimiser", || {
            let norm = gradients.norm();
            if norm.is_finite() {
                let scale = if clip > 0.0 && norm > clip {
                    clip / norm
                } else {
                    1.0
                };
                optimizer.update(network, gradients, rate, scale);
            }
            norm
        });
        if !norm.is_finite() {
            return Err(Error::NotFinite {
                step,
                term: "the gradient".into(),
                rows: rows.iter().map(|&row| self.method.data_row(row)).collect(),
            });
        }
        let seconds = start.elapsed().as_secs_f64();
        self.state.step = step;
        self.state.tokens += report.tokens as u64;
        self.state.seconds += seconds;
        Ok(StepLine {
            step,
            steps: self.steps,
            left: steps_left(step, self.steps, self.state.tokens, settings.tokens),
            epoch,
            tokens: self.state.tokens,
            loss: report.loss,
            terms: report.terms.into_iter().collect(),
            gradient_norm: norm,
            logit_gradients: logit_squares
                .into_iter()
                .map(|(term, square)| (term, square.sqrt()))
                .collect(),
            learning_rate: rate,
            tokens_per_second: report.tokens as f64 / seconds.max(1e-9),
            seconds,
            phases: phases
                .0
                .into_iter()
                .map(|(name, time)| (name, time.as_secs_f64()))
                .collect(),
        })
    }

    /// The student as it is now.
    fn model(&self) -> Model {
        self.student.with_network(self.student.network.frozen())
    }

    fn settings(&self) -> Settings {
        let eval = &self.run.config.eval;
        Settings {
            metrics: eval.metrics.clone(),
            sampling: GREEDY,
            sampling_precision: Some(self.run.config.student.sampling_precision),
            max_new_tokens: eval.max_new_tokens,
            batch: eval.batch,
            seed: self.run.config.seed,
            micro_batch_tokens: self.run.config.train.micro_batch_tokens,
        }
    }

    /// Evaluates, keeps samples, and notes whether this is the best student so far.
    fn measure(&mut self, events: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let Some(set) = &self.eval else { return Ok(()) };
        let (model, settings, step) = (self.model(), self.settings(), self.state.step);
        let mut progress = |done, total| {
            events(Event::Progress {
                what: "evaluating",
                done,
                total,
            });
        };
        let evaluation = evaluate(&model, self.teacher.as_ref(), set, &settings, &mut progress)?;
        let count = self.run.config.eval.samples;
        let answers = match evaluation.answers.is_empty() && count > 0 {
            true => {
                let few = EvalSet {
                    prompts: set.prompts.iter().take(count).cloned().collect(),
                    examples: Vec::new(),
                };
                answer(&model, &few, &settings, &mut |_, _| {})?
            }
            false => evaluation.answers,
        };
        for Answer {
            prompt,
            response,
            finish,
            ..
        } in answers.iter().take(count)
        {
            let line = json!({
                "step": step, "prompt": prompt, "response": response, "finish_reason": finish,
            });
            self.folder.append("samples.jsonl", &line)?;
        }
        if let Some((name, _)) = evaluation.metrics.iter().find(|(_, v)| v.is_nan()) {
            return Err(Error::NotFinite {
                step,
                term: name.clone(),
                rows: Vec::new(),
            });
        }
        if step == 0 {
            self.state.start = evaluation.metrics.clone();
        }
        self.state.latest = evaluation.metrics;
        let line = json!({
            "step": step,
            "eval": self.state.latest.iter().cloned().collect::<BTreeMap<String, f64>>(),
        });
        self.folder.append("metrics.jsonl", &line)?;
        self.note_best();
        self.method.evaluated(&self.state.latest);
        events(Event::Evaluated {
            step,
            metrics: &self.state.latest,
        });
        Ok(())
    }

    fn note_best(&mut self) {
        let settings = self.run.config;
        let every = settings.train.checkpoint_every;
        let step = self.state.step;
        // Only what is saved can be kept.
        let saved = self.is_last() || (every > 0 && step > 0 && step.is_multiple_of(every));
        let Some(name) = settings.eval.best_metric.as_ref().filter(|_| saved) else {
            return;
        };
        let value = self
            .state
            .latest
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| *v);
        let (Some(value), Some(info)) = (value, metric(name)) else {
            return;
        };
        let better = self
            .state
            .best
            .as_ref()
            .is_none_or(|best| match info.better {
                Some(Better::Higher) => value > best.value,
                _ => value < best.value,
            });
        if better && value.is_finite() && settings.train.keep_best {
            self.state.best = Some(Best {
                step,
                value,
                metrics: self.state.latest.clone(),
            });
        }
    }

    fn save(&mut self, events: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let path = checkpoint::save(
            self.run.out,
            &self.model(),
            &self.optimizer,
            &*self.method,
            &self.state,
        )?;
        let best = self.state.best.as_ref().map(|best| best.step);
        checkpoint::prune(self.run.out, self.run.config.train.keep_last, best)?;
        events(Event::Saved {
            step: self.state.step,
            path: &path,
        });
        Ok(())
    }

    /// Writes `eval.json` and the student: the best checkpoint's where one is kept, else the last. Its
    /// card is made of what the run's folder holds then.
    fn finish(self, events: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
        let kept = |best: &&Best| checkpoint::path_of(self.run.out, best.step).exists();
        let best = self.state.best.as_ref().filter(kept);
        let model = match best {
            Some(best) if best.step != self.state.step => {
                let text = format!("the student is the best checkpoint, of step {}", best.step);
                events(Event::Note(&text));
                let path = checkpoint::path_of(self.run.out, best.step);
                checkpoint::open(&path, &self.student.network.device())?
            }
            _ => self.model(),
        };
        let object =
            |metrics: &[(String, f64)]| metrics.iter().cloned().collect::<BTreeMap<_, _>>();
        self.folder.write_json(
            "eval.json",
            &json!({
                "start": object(&self.state.start),
                "student": object(best.map_or(&self.state.latest, |best| &best.metrics)),
                "student_step": best.map_or(self.state.step, |best| best.step),
                "steps": self.state.step,
                "tokens": self.state.tokens,
                "preparation_seconds": self.state.preparation_seconds,
                "training_seconds": self.state.seconds,
            }),
        )?;
        let student = self.folder.student();
        let card = card::at_the_end(&Record::read(self.run.out)?);
        files::folder_whole(&student, |inside| -> Result<()> {
            model.save_into(inside)?;
            Ok(files::write_whole(
                &inside.join(card::FILE),
                card.as_bytes(),
            )?)
        })?;
        Ok(Outcome::Finished { student })
    }
}
