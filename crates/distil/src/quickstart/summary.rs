//! What a quickstart ends with: the numbers before and after, and a few answers side by side.

use std::fmt;
use std::path::{Path, PathBuf};

use distil_model::files;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The result of a quickstart, as in `quickstart.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Folder of the student, a Hugging Face directory.
    pub student: PathBuf,
    /// The student as it was pruned.
    pub before: Quality,
    /// The student after the training.
    pub after: Quality,
    /// Size and speed of the teacher.
    pub teacher_size: Size,
    /// Size and speed of the student.
    pub student_size: Size,
    /// Held-out prompts that the quality was measured on.
    pub held_out_prompts: usize,
    /// Training prompts.
    pub train_prompts: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// Response tokens trained on.
    pub tokens: u64,
    /// Seconds spent in optimiser steps.
    pub training_seconds: f64,
    /// Seconds of everything but the download; of the last part alone if `continued`.
    pub wall_seconds: f64,
    /// Whether this quickstart was broken off and continued.
    pub continued: bool,
    /// Held-out prompts with their answers.
    pub exchanges: Vec<Exchange>,
}

/// How close a student is to its teacher, on held-out prompts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// KL(teacher ‖ student) on the teacher's greedy answers, in nats a token; 0 is the teacher itself.
    pub forward_kl: f64,
    /// ROUGE-L of the student's greedy answers against the teacher's; 1 is the teacher itself.
    pub rouge_l: f64,
}

/// How large and how fast a model is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Layers.
    pub layers: usize,
    /// Parameters.
    pub parameters: usize,
    /// Megabytes (10⁶ bytes) of the weights in f32.
    pub megabytes: f64,
    /// Sampled tokens a second, many sequences at once.
    pub tokens_per_second: f64,
}

/// One prompt and what three models say to it, greedily.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The prompt.
    pub prompt: String,
    /// The teacher's answer.
    pub teacher: String,
    /// The answer of the student as it was pruned.
    pub before: String,
    /// The answer of the student after the training.
    pub after: String,
}

impl Summary {
    /// Reads a `quickstart.json`; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(Error::Read { path, source });
            }
        };
        let summary = serde_json::from_str(&text).map_err(|error| Error::Run {
            path: path.to_owned(),
            what: format!("the file is damaged ({error})"),
            fix: "remove it to have the summary made again".into(),
        })?;
        Ok(Some(summary))
    }

    /// Writes a `quickstart.json`.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        Ok(files::write_whole(path, text.as_bytes())?)
    }
}

/// Columns of the text.
const WIDTH: usize = 80;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before, self.after);
        let (teacher, student) = (self.teacher_size, self.student_size);
        let mut line = |what: &str, [teacher, before, after]: [&str; 3]| {
            writeln!(f, "{what:<28}{teacher:>14}{before:>18}{after:>18}")
        };
        line("", ["teacher", "student before", "student after"])?;
        let both = |before: f64, after: f64| [format!("{before:.3}"), format!("{after:.3}")];
        let [first, last] = both(before.forward_kl, after.forward_kl);
        line("forward KL (nats a token)", ["–", &first, &last])?;
        let [first, last] = both(before.rouge_l, after.rouge_l);
        line("ROUGE-L (0 to 1)", ["–", &first, &last])?;
        let mut size = |what: &str, of: &dyn Fn(Size) -> String| {
            line(what, [&of(teacher), &of(student), &of(student)])
        };
        size("layers", &|size| size.layers.to_string())?;
        let millions = |size: Size| format!("{:.1} M", size.parameters as f64 / 1e6);
        size("parameters", &millions)?;
        size("weights in f32", &|size| {
            format!("{:.0} MB", size.megabytes)
        })?;
        size("sampling (tokens/s)", &|size| {
            format!("{:.0}", size.tokens_per_second)
        })?;
        writeln!(f)?;
        let about = format!(
            "Measured on {} prompts of topics that no training prompt has, against the teacher's \
             greedy answers. Trained with DPKD: {} steps, {} answer tokens, {} training prompts, \
             {:.0} s; all in all {}{}.",
            self.held_out_prompts,
            self.steps,
            self.tokens,
            self.train_prompts,
            self.training_seconds,
            minutes(self.wall_seconds),
            if self.continued {
                " since it was continued"
            } else {
                ""
            },
        );
        paragraph(f, "", &about)?;
        for exchange in &self.exchanges {
            writeln!(f)?;
            paragraph(f, "prompt          ", &exchange.prompt)?;
            paragraph(f, "teacher         ", &exchange.teacher)?;
            paragraph(f, "student before  ", &exchange.before)?;
            paragraph(f, "student after   ", &exchange.after)?;
        }
        writeln!(f)?;
        // Not wrapped: a path is copied in one piece.
        write!(f, "The student: {}", self.student.display())
    }
}

fn minutes(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{} min {:02} s", seconds / 60, seconds % 60)
}

/// `text` in lines of at most [`WIDTH`] columns, `label` in front of the first, the others indented
/// as far.
fn paragraph(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    let mut label = label.to_owned();
    // A student that lost layers often ends its answer before it begins.
    let text = match text.trim().is_empty() {
        true => "(nothing)",
        false => text,
    };
    for line in wrapped(text, WIDTH.saturating_sub(label.len())) {
        writeln!(f, "{label}{line}")?;
        label = " ".repeat(label.len());
    }
    Ok(())
}

/// Lines of at most `width` columns, at least one. A broken model says anything: control characters
/// become spaces, and a word that is longer than a line is cut.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let text = text.replace(char::is_control, " ");
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut gap = usize::from(used > 0);
        if gap + columns(word) > width - used {
            gap = 0;
            if used > 0 {
                lines.push(String::new());
                used = 0;
            }
        }
        for character in std::iter::repeat_n(' ', gap).chain(word.chars()) {
            if used + column(character) > width {
                lines.push(String::new());
                used = 0;
            }
            used += column(character);
            if let Some(line) = lines.last_mut() {
                line.push(character);
            }
        }
    }
    lines
}

fn columns(word: &str) -> usize {
    word.chars().map(column).sum()
}

/// Columns of a character, at most: many scripts' characters take two.
fn column(character: char) -> usize {
    if character.is_ascii() { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let size = |layers, parameters, tokens_per_second| Size {
            layers,
            parameters,
            megabytes: parameters as f64 * 4e-6,
            tokens_per_second,
        };
        Summary {
            student: "/q/run/student".into(),
            before: Quality {
                forward_kl: 3.4412,
                rouge_l: 0.0871,
            },
            after: Quality {
                forward_kl: 0.6,
                rouge_l: 0.4666,
            },
            teacher_size: size(30, 134_515_008, 612.4),
            student_size: size(24, 113_276_736, 744.5),
            held_out_prompts: 64,
            train_prompts: 320,
            steps: 60,
            tokens: 20_000,
            training_seconds: 321.4,
            wall_seconds: 421.6,
            continued: false,
            exchanges: vec![Exchange {
                prompt: "In one sentence, what is rain?".into(),
                teacher: "Rain is water that falls from clouds.".into(),
                before: format!("the\n\n\u{7} {} 雨雨雨", "x".repeat(200)),
                after: "Rain is water.".into(),
            }],
        }
    }

    #[test]
    fn the_table() {
        let text = format!("\n{}", summary());
        let expected = "
                                   teacher    student before     student after
forward KL (nats a token)                –             3.441             0.600
ROUGE-L (0 to 1)                         –             0.087             0.467
layers                                  30                24                24
parameters                         134.5 M           113.3 M           113.3 M
weights in f32                      538 MB            453 MB            453 MB
sampling (tokens/s)                    612               744               744

";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("321 s; all in all 7 min 02 s."), "{text}");
        assert!(
            text.contains("\nstudent after   Rain is water.\n"),
            "{text}"
        );
        assert!(text.ends_with("The student: /q/run/student"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let text = summary().to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert!(!line.contains(char::is_control));
        }
        assert_eq!(wrapped("aaaaa bb c", 4), ["aaaa", "a bb", "c"]);
        assert_eq!(wrapped("雨雨雨", 4), ["雨雨", "雨"]);
        assert_eq!(wrapped(" \n ", 4), [""]);
    }

    #[test]
    fn a_summary_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quickstart.json");
        assert_eq!(Summary::read(&path).unwrap(), None);
        summary().write(&path).unwrap();
        assert_eq!(Summary::read(&path).unwrap(), Some(summary()));
        std::fs::write(&path, "{").unwrap();
        let error = Summary::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("damaged") && error.contains("remove it"),
            "{error}"
        );
    }
}
