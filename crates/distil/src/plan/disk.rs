//! Largest use of the disk, by use.
//!
//! ```text
//! min(keep_last + best + the one being written, all that are saved) · 12P (checkpoints) + 4P (student)
//! ```
//!
//! A checkpoint holds the P weights and AdamW's two moments. A third network of R parameters adds 12R to
//! each if it is trained and 4R if it is not; a teacher that is cached, 4 bytes a number of its hidden states.

use super::networks::Networks;
use super::texts::{Text, Texts};
use super::{F32, Part};
use crate::config::Config;

/// `steps`: those of the run.
pub(super) fn disk(config: &Config, networks: &Networks<'_>, steps: usize) -> Vec<Part> {
    let parameters = networks.student.size() as u64;
    let train = &config.train;
    let saved = match train.checkpoint_every {
        0 => 1,
        every => steps.div_ceil(every),
    };
    let kept = saved.min(train.keep_last + usize::from(train.keep_best) + 1) as u64;
    let part = |what, numbers: u64| Part {
        what,
        bytes: numbers * F32,
    };
    let mut parts = vec![
        part("checkpoints", kept * 3 * parameters),
        part("student", parameters),
    ];
    if let Some(third) = &networks.third {
        let copies = match third.trained {
            true => 3,
            false => 1,
        };
        parts.push(part(third.what[1], kept * copies * third.parameters()));
    }
    parts
}

/// What the cached teacher keeps of so many rows, if it is cached.
pub(super) fn hidden_states(
    config: &Config,
    networks: &Networks<'_>,
    texts: &Texts,
    rows: usize,
) -> Option<Part> {
    let (teacher, settings) = (networks.teacher?, config.teacher.as_ref()?);
    let text = match config.method.reads_responses() {
        true => Text::Data,
        false => Text::Sampled,
    };
    let positions = rows as f64 * texts.sum(&[(text, 1.0)], |lengths| lengths.response);
    settings.cache.then(|| Part {
        what: "teacher's hidden states",
        bytes: positions as u64 * teacher.config().width as u64 * F32,
    })
}
