//! A cached teacher: its hidden states at every position of the training texts that predicts a
//! response token, computed once and kept in the run's folder.
//!
//! With them the teacher's trunk is done; its head still makes the logits, chunk by chunk, so that
//! its whole distribution takes part and nothing is truncated. A position costs width · 4 bytes, a
//! hundredth of its logits. `teacher-states.f32` holds the rows of the texts in their order,
//! [positions, width], little-endian f32. They are states of the teacher in the precision of
//! `teacher.precision`, which cannot change within a run's folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use distil_kernels::to_host;

use super::kd::{live_teacher, teacher_of};
use super::pass::{Teacher, predicted};
use super::{Material, Preparation};
use crate::config::TeacherInSteps;
use crate::data::batch::{micro_batches, pack};
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::event::Event;

/// Texts computed between two looks at the interrupt flag; a broken run goes on behind the last of
/// these that is whole.
const CHUNK: usize = 64;

/// The kept states of a list of texts.
#[derive(Debug)]
pub(crate) struct KeptStates {
    file: Mutex<File>,
    path: PathBuf,
    /// First row of each text, and the end of the last.
    starts: Vec<usize>,
    width: usize,
    device: Device,
}

/// The method's teacher: with its states on `texts`, if the configuration asks for a cache, and then
/// without its network where the method asks about no other text. `None` if the user interrupted.
pub(crate) fn teacher(
    material: &mut Material,
    texts: &[Example],
    preparation: &mut Preparation<'_>,
) -> Result<Option<Teacher>> {
    let config = preparation.config;
    if !config.teacher.as_ref().is_some_and(|t| t.cache) {
        return live_teacher(material).map(Some);
    }
    let vocabulary = material.vocabulary;
    let asked = teacher_of(material)?;
    let (width, device) = (asked.outline.config.width, asked.device().clone());
    let live = || Ok(Teacher::live(asked.network()?.clone(), vocabulary));
    let states = KeptStates::prepare(width, &device, live, texts, preparation)?;
    let Some(states) = states else {
        return Ok(None);
    };
    let network = match config.method.teacher_in_steps(true) {
        TeacherInSteps::Whole => Some(asked.network()?.clone()),
        TeacherInSteps::Head | TeacherInSteps::Nothing => None,
    };
    let head = asked.head()?;
    Ok(Some(Teacher::cached(states, network, head, vocabulary)))
}

impl KeptStates {
    /// The states on `texts`, of so many numbers each; `live` gives the teacher, if some are missing.
    pub(super) fn prepare(
        width: usize,
        device: &Device,
        live: impl FnOnce() -> Result<Teacher>,
        texts: &[Example],
        preparation: &mut Preparation<'_>,
    ) -> Result<Option<Self>> {
        let folder = preparation.folder;
        let path = folder.join("teacher-states.f32");
        let partial = folder.join("teacher-states.partial.f32");
        let mut starts = vec![0];
        for text in texts {
            starts.push(starts[starts.len() - 1] + predicted(text));
        }
        let bytes = |row: usize| (row * width * size_of::<f32>()) as u64;
        let total = bytes(starts[texts.len()]);
        if !path.exists() {
            let failed = |source| Error::Write {
                path: partial.clone(),
                source,
            };
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&partial)
                .map_err(failed)?;
            let there = file.metadata().map_err(failed)?.len();
            let whole = |chunk: &usize| bytes(starts[(chunk * CHUNK).min(texts.len())]) <= there;
            let chunks = texts.len().div_ceil(CHUNK);
            let done = (0..=chunks).take_while(whole).last().unwrap_or(0);
            file.set_len(bytes(starts[(done * CHUNK).min(texts.len())]))
                .map_err(failed)?;
            file.seek(SeekFrom::End(0)).map_err(failed)?;
            let teacher = live()?;
            for chunk in done..chunks {
                if preparation.interrupt.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let part = &texts[chunk * CHUNK..((chunk + 1) * CHUNK).min(texts.len())];
                let most = preparation.config.train.micro_batch_tokens;
                file.write_all(&states_of(&teacher, part, most))
                    .and_then(|()| file.sync_data())
                    .map_err(failed)?;
                (preparation.events)(Event::Progress {
                    what: "the teacher reads",
                    done: chunk * CHUNK + part.len(),
                    total: texts.len(),
                });
            }
            drop(file);
            std::fs::rename(&partial, &path).map_err(failed)?;
        }
        let unreadable = |source| Error::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        if length != total {
            return Err(Error::Run {
                path,
                what: format!("has {length} bytes where {total} were written"),
                fix: "remove it to have the teacher read the texts again".into(),
            });
        }
        Ok(Some(Self {
            file: Mutex::new(file),
            path,
            starts,
            width,
            device: device.clone(),
        }))
    }

    /// The states of these texts, one after the other, [positions, width].
    pub(crate) fn hidden(&self, texts: &[usize]) -> Result<Tensor<2>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.width * size_of::<f32>();
        let mut bytes = Vec::new();
        for &text in texts {
            let rows = self.starts[text]..self.starts[text + 1];
            let first = bytes.len();
            bytes.resize(first + rows.len() * row, 0);
            file.seek(SeekFrom::Start((rows.start * row) as u64))
                .and_then(|_| file.read_exact(&mut bytes[first..]))
                .map_err(|source| Error::Read {
                    path: self.path.clone(),
                    source,
                })?;
        }
        let (numbers, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = numbers.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let shape = [values.len() / self.width, self.width];
        Ok(Tensor::from_data(
            TensorData::new(values, shape),
            &self.device,
        ))
    }
}

/// The teacher's states on these texts, as they are written.
fn states_of(teacher: &Teacher, texts: &[Example], max_tokens: usize) -> Vec<u8> {
    let lengths: Vec<usize> = texts.iter().map(Example::len).collect();
    let mut bytes = Vec::new();
    for range in micro_batches(&lengths, max_tokens) {
        let batch = pack(&texts[range].iter().collect::<Vec<_>>());
        if !batch.predict.is_empty() {
            let values = to_host(teacher.head(&batch).hidden);
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
    bytes
}
