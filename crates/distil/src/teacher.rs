//! The teacher and what it must share with its student.

use distil_model::Model;

use crate::error::{Error, Result};

/// The vocabulary both models speak, as a number of leading ids: the tokenizer's.
///
/// Models of one family often differ in how far their vocabulary is padded; rows without a token are
/// left out, on one side or on both. Tokens themselves must be the same.
///
/// # Errors
/// Some id is another token in the two models, or a token that only one of them has.
pub fn align(teacher: &Model, student: &Model) -> Result<usize> {
    let rows = |model: &Model| model.network.config().vocabulary;
    let common = rows(teacher).min(rows(student));
    let (t, s) = (&teacher.tokenizer, &student.tokenizer);
    if t.fingerprint() != s.fingerprint() {
        let last = t.vocabulary_size().max(s.vocabulary_size());
        for id in 0..last as u32 {
            let (in_teacher, in_student) = (t.token(id), s.token(id));
            if in_teacher != in_student {
                let say = |token: Option<String>| match token {
                    Some(token) => format!("{token:?}"),
                    None => "nothing".to_owned(),
                };
                return Err(Error::Mismatch {
                    what: format!(
                        "teacher and student have different vocabularies: id {id} is {} for the \
                         teacher and {} for the student",
                        say(in_teacher),
                        say(in_student)
                    ),
                    fix: "distillation needs one tokenizer; choose models of the same family, or \
                          prune the student from the teacher"
                        .into(),
                });
            }
        }
    }
    let tokens = t.vocabulary_size().max(s.vocabulary_size());
    if tokens > common {
        return Err(Error::Mismatch {
            what: format!("the tokenizer has {tokens} tokens but one model only {common} rows"),
            fix: "use the weights that belong to this tokenizer".into(),
        });
    }
    Ok(tokens)
}
