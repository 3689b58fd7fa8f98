//! What student and teacher say of a text that is trained on anyway, seen in passing: the numbers
//! behind `student_entropy` and its kin in `metrics.jsonl`.

use std::sync::{Mutex, PoisonError};

use distil_kernels::{RowObjective, RowTerms, TeacherHead, embedding, head_rows};

use crate::objective::look::{Look, look};

/// Of so many positions one is looked at: a look reads the vocabulary several times, and a mean
/// over an eighth of a step's positions says as much.
const EVERY: usize = 8;

/// An objective whose rows are looked at before it works on them.
pub(crate) struct Watched<'a> {
    objective: &'a dyn RowObjective,
    targets: &'a [u32],
    /// By row: rows come in any order.
    seen: Mutex<Vec<(usize, Look)>>,
}

impl<'a> Watched<'a> {
    /// `targets` is the token of each row.
    pub(crate) fn new(objective: &'a dyn RowObjective, targets: &'a [u32]) -> Self {
        Self {
            objective,
            targets,
            seen: Mutex::default(),
        }
    }

    /// What was seen, in the order of the rows.
    pub(crate) fn looks(self) -> Vec<Look> {
        let mut seen = self
            .seen
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        seen.sort_by_key(|&(row, _)| row);
        seen.into_iter().map(|(_, look)| look).collect()
    }
}

impl RowObjective for Watched<'_> {
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> RowTerms {
        if row.is_multiple_of(EVERY) {
            let look = look(student, teacher.as_deref(), self.targets[row] as usize);
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((row, look));
        }
        self.objective.row(row, student, teacher, gradient)
    }
}

/// Looks at every eighth of `rows`, where no pass over the head has both models' logits.
pub(crate) fn looks_at(
    student: &TeacherHead,
    teacher: &TeacherHead,
    targets: &[u32],
    rows: impl Iterator<Item = usize>,
    vocabulary: usize,
) -> Vec<Look> {
    let rows: Vec<u32> = rows.step_by(EVERY).map(|row| row as u32).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let teacher = TeacherHead {
        hidden: embedding(teacher.hidden.clone(), &rows),
        weight: teacher.weight.clone(),
    };
    head_rows(
        embedding(student.hidden.clone(), &rows),
        &student.weight,
        Some(&teacher),
        vocabulary,
        |i, s, t| look(s, t.as_deref(), targets[rows[i] as usize] as usize),
    )
}
