//! A report of one run or of several side by side: one HTML file that needs nothing else.
//!
//! The file has its style and a small script in it and asks no network for anything. All that can be
//! read can be read without the script, which only shows values under the pointer. Each section is a
//! function of the runs to HTML, or to nothing where there is no data; what a reader would look for
//! and does not find is said in a sentence, with the command that makes it.

mod by_length;
mod compare;
mod curves;
mod differences;
mod family;
mod forest;
mod format;
mod html;
mod landscape;
mod plot;
mod results;
mod run;
mod samples;
mod setting;
mod student_t;
mod summary;
#[cfg(test)]
mod tests;
mod thin;
mod tokens;
mod verdict;
mod words;

use std::path::PathBuf;

use crate::error::Result;
use html::{Section, page};
use run::{Run, distinguish};

/// The report of the runs in these folders, as HTML. Several runs are laid over each other; runs that
/// differ in their seed alone are one student.
///
/// # Errors
/// A folder is not a run's, or a file of it cannot be read.
pub fn report(folders: &[PathBuf]) -> Result<String> {
    let mut runs = Vec::with_capacity(folders.len());
    for folder in folders {
        runs.push(Run::read(folder)?);
    }
    distinguish(&mut runs);
    family::assign(&mut runs);
    Ok(render(&runs))
}

fn render(runs: &[Run]) -> String {
    let families = family::families(runs);
    let labels: Vec<&str> = families.iter().map(|family| family.label).collect();
    let mut title = match labels[..] {
        [one] => one.to_owned(),
        [one, other] => format!("{one} and {other}"),
        _ => format!("{} students", labels.len()),
    };
    if runs.len() > families.len() {
        title += &format!(", {} runs", runs.len());
    }
    let sections = [
        summary::section,
        results::section,
        curves::section,
        by_length::section,
        landscape::section,
        tokens::section,
        samples::section,
        setting::configuration,
        setting::environment,
        setting::cost,
        setting::warnings,
    ];
    let sections: Vec<Section> = sections
        .iter()
        .filter_map(|section| section(runs))
        .collect();
    page(&title, &summary::subtitle(runs), &sections)
}
