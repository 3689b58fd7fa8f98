//! A model's own answers to the training prompts, generated once and kept in the run's folder: the
//! teacher's, and the student's as it was at the start.
//!
//! Samples are written as they are finished, so that an interrupted generation goes on where it
//! stopped. A row's sample depends on the seed and the row alone. In a schedule, a stage takes over
//! what the teacher has said to the same prompts in an earlier one: beside the samples stands a key,
//! the sha256 of everything that they depend on.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

use distil_kernels::Precision;
use distil_model::{Llama, Model, files};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Preparation;
use crate::config::{Config, Rollout};
use crate::data::example::{Example, PromptExample};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::rollout::{Finish, Generation, Prompt, generate};
use crate::teacher::TeacherModel;

/// Whose answers.
pub(crate) enum Whose<'a> {
    /// The teacher's; it is read if there is something left to answer.
    Teacher(&'a mut TeacherModel),
    /// The student's before its first step.
    FirstStudent(&'a Model),
}

impl Whose<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Teacher(_) => "teacher",
            Self::FirstStudent(_) => "student",
        }
    }

    fn doing(&self) -> &'static str {
        match self {
            Self::Teacher(_) => "the teacher answers",
            Self::FirstStudent(_) => "the student answers",
        }
    }

    /// Number of leading ids that are tokens.
    fn tokens(&self) -> usize {
        match self {
            Self::Teacher(teacher) => teacher.outline.tokenizer.vocabulary_size(),
            Self::FirstStudent(model) => model.network.tokens(),
        }
    }

    /// Equal numbers for both models would draw equal answers where they agree.
    fn seed(&self, of_run: u64) -> u64 {
        match self {
            Self::Teacher(_) => of_run,
            Self::FirstStudent(_) => of_run ^ 0x5354_5544_454E_5400,
        }
    }

    /// The network that answers, in the precision of its samples, and the tokens that end an answer.
    fn answering(&mut self, config: &Config) -> Result<(Llama, Vec<u32>)> {
        let (network, stop_ids) = match self {
            Self::Teacher(teacher) => {
                let model = teacher.model()?;
                (model.network.clone(), model.stop_ids.clone())
            }
            Self::FirstStudent(model) => {
                let precision = config.student.sampling_precision.into();
                let network = model.network.clone().in_precision(precision);
                (network, model.stop_ids.clone())
            }
        };
        // Once for all chunks.
        Ok((network.packed(), stop_ids))
    }
}

/// A line of `teacher-samples.jsonl` or `student-samples.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// Number of the sample: `prompt · samples_per_prompt + i`.
    sample: usize,
    token_ids: Vec<u32>,
    finish_reason: Finish,
}

/// The file beside the teacher's samples that says what they are samples of.
const KEY: &str = "teacher-samples.key";

/// Rows generated between two looks at the interrupt flag.
const CHUNK: usize = 64;

/// `per_prompt` samples of the model for each prompt, in the prompts' order. `None` if the user
/// interrupted.
pub(crate) fn kept_samples(
    mut whose: Whose<'_>,
    prompts: &[PromptExample],
    per_prompt: usize,
    rollout: Rollout,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Vec<Example>>> {
    let (folder, name) = (preparation.folder, whose.name());
    let path = folder.join(format!("{name}-samples.jsonl"));
    let partial = folder.join(format!("{name}-samples.partial.jsonl"));
    let config = preparation.config;
    if let Whose::Teacher(teacher) = &whose {
        let key = Key {
            path: teacher.outline.path(),
            precision: teacher.precision(),
            prompts,
            per_prompt,
            rollout,
            seed: config.seed,
        };
        let key = key.hash();
        if !path.exists() && !partial.exists() {
            take_over(folder, &path, &key)?;
        }
        files::write_whole(&folder.join(KEY), key.as_bytes())?;
    }
    let total = prompts.len() * per_prompt;
    let tokens = whose.tokens();
    let mut samples = match path.exists() {
        true => read(&path, total, tokens, false)?,
        false => read(&partial, total, tokens, true)?,
    };
    if samples.len() < total {
        // Chunks are the same whenever a run is resumed, and done whole: not even rounding may
        // depend on where it was broken off.
        let chunks: Vec<Vec<usize>> = (0..total.div_ceil(CHUNK))
            .map(|chunk| (chunk * CHUNK..((chunk + 1) * CHUNK).min(total)).collect())
            .filter(|chunk: &Vec<usize>| !chunk.iter().all(|i| samples.contains_key(i)))
            .collect();
        samples.retain(|i, _| !chunks.iter().any(|chunk| chunk.contains(i)));
        // Written anew: a line that was cut off by a kill would swallow the next one.
        write(&partial, &samples)?;
        let failed = |source| Error::Write {
            path: partial.clone(),
            source,
        };
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(&partial)
            .map_err(failed)?;
        let generation = Generation {
            sampling: rollout.sampling,
            max_new_tokens: rollout.max_new_tokens,
            seed: whose.seed(config.seed),
            batch: config.eval.batch,
        };
        let (network, stop_ids) = whose.answering(config)?;
        let mut done = samples.len();
        for chunk in &chunks {
            if preparation.interrupt.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let rows: Vec<Prompt> = chunk
                .iter()
                .map(|&i| Prompt {
                    ids: &prompts[i / per_prompt].prompt,
                    stream: i as u64,
                })
                .collect();
            let events = &mut *preparation.events;
            let responses = generate(&network, &stop_ids, &rows, &generation, &mut |_, _| {
                done += 1;
                events(Event::Progress {
                    what: whose.doing(),
                    done,
                    total,
                });
            })?;
            for (&sample, response) in chunk.iter().zip(responses) {
                let line = Line {
                    sample,
                    token_ids: response.tokens,
                    finish_reason: response.finish,
                };
                writeln!(file, "{}", json(&line)).map_err(failed)?;
                samples.insert(sample, line);
            }
            file.sync_data().map_err(failed)?;
        }
        write(&path, &samples)?;
        // Its content is in the finished file.
        let _ = fs::remove_file(&partial);
    }
    let example = |(i, line): (usize, Line)| Example {
        prompt: prompts[i / per_prompt].prompt.clone(),
        response: line.token_ids,
        row: prompts[i / per_prompt].row,
    };
    Ok(Some(samples.into_iter().map(example).collect()))
}

/// What the samples depend on: the model and the precision it is computed in, the prompts, how often
/// and how they are answered, the seed.
struct Key<'a> {
    path: &'a Path,
    precision: Precision,
    prompts: &'a [PromptExample],
    per_prompt: usize,
    rollout: Rollout,
    seed: u64,
}

impl Key<'_> {
    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.path.as_os_str().as_encoded_bytes());
        // Samples in f32 have the key that they had before there was another precision.
        if self.precision != Precision::F32 {
            hash.update(crate::config::Precision::from(self.precision).name());
        }
        let how = (self.per_prompt, self.rollout, self.seed, self.prompts.len());
        hash.update(serde_json::to_string(&how).unwrap_or_default());
        for prompt in self.prompts {
            hash.update((prompt.prompt.len() as u64).to_le_bytes());
            for id in &prompt.prompt {
                hash.update(id.to_le_bytes());
            }
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Copies the samples of an earlier stage of the same schedule, if one has them.
fn take_over(folder: &Path, path: &Path, key: &str) -> Result<()> {
    let stages = folder.parent();
    let Some(stages) = stages.filter(|stages| stages.file_name().is_some_and(|n| n == "stages"))
    else {
        return Ok(());
    };
    for entry in fs::read_dir(stages).into_iter().flatten().flatten() {
        let same = fs::read_to_string(entry.path().join(KEY)).is_ok_and(|other| other == key);
        if same && let Ok(samples) = fs::read(entry.path().join("teacher-samples.jsonl")) {
            return Ok(files::write_whole(path, &samples)?);
        }
    }
    Ok(())
}

fn json(line: &Line) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

fn write(path: &Path, samples: &BTreeMap<usize, Line>) -> Result<()> {
    let text: String = samples.values().map(|line| json(line) + "\n").collect();
    Ok(files::write_whole(path, text.as_bytes())?)
}

/// Whether these can be a response of a model with so many tokens.
fn is_response(ids: &[u32], tokens: usize) -> bool {
    !ids.is_empty() && ids.iter().all(|&id| (id as usize) < tokens)
}

/// The samples of a file; none if there is no file. Lines that do not parse are the end of an
/// interrupted write where `lenient`, and damage where not.
fn read(path: &Path, total: usize, tokens: usize, lenient: bool) -> Result<BTreeMap<usize, Line>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => {
            return Err(Error::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut samples = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str::<Line>(line) {
            Ok(line) if line.sample < total && is_response(&line.token_ids, tokens) => {
                samples.insert(line.sample, line);
            }
            _ if lenient => {}
            _ => {
                return Err(Error::Row {
                    path: path.to_owned(),
                    line: number + 1,
                    what: "not a sample of this run".into(),
                    fix: "remove the file to have the prompts answered again".into(),
                });
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sampling;

    #[test]
    fn samples_in_bf16_have_a_key_of_their_own_and_those_in_f32_the_one_they_always_had() {
        let prompts = [PromptExample {
            prompt: vec![3, 4],
            text: String::new(),
            references: Vec::new(),
            row: 0,
        }];
        let key = |precision| {
            let key = Key {
                path: Path::new("/m"),
                precision,
                prompts: &prompts,
                per_prompt: 1,
                rollout: Rollout {
                    max_new_tokens: 6,
                    sampling: Sampling {
                        temperature: 1.0,
                        top_k: 0,
                        top_p: 1.0,
                    },
                },
                seed: 7,
            };
            key.hash()
        };
        let before = "c93c9307bf3c8aae19378567dcb6a8dbabe944fc09f82840e096d44c08afddf2";
        assert_eq!(key(Precision::F32), before);
        assert_ne!(key(Precision::Bf16), before);
    }

    #[test]
    fn samples_of_an_earlier_stage_are_taken_over_if_they_are_of_the_same_kind() {
        let home = tempfile::tempdir().unwrap();
        let stage = |stages: &str, name: &str| {
            let folder = home.path().join(stages).join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let first = stage("stages", "1-seqkd");
        fs::write(first.join(KEY), "abc").unwrap();
        fs::write(first.join("teacher-samples.jsonl"), "said once\n").unwrap();
        let take = |folder: &Path, key: &str| {
            let path = folder.join("teacher-samples.jsonl");
            take_over(folder, &path, key).unwrap();
            fs::read_to_string(path).ok()
        };
        let second = stage("stages", "2-dpkd");
        assert_eq!(take(&second, "of other prompts"), None);
        assert_eq!(take(&second, "abc").as_deref(), Some("said once\n"));
        // Runs that only happen to lie beside each other share nothing.
        fs::rename(home.path().join("stages"), home.path().join("runs")).unwrap();
        assert_eq!(take(&stage("runs", "3-dpkd"), "abc"), None);
    }
}
