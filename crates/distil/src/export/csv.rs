//! A run as comma-separated values (RFC 4180): one row a step, the first row the columns' names.
//!
//! ```text
//! run,step,steps,epoch,tokens,loss,…,phases.teacher,…,eval.rouge_l
//! first,0,,,,,…,,…,0.1875
//! first,1,300,0.05,812,2.25,…,0.125,…,
//! ```
//!
//! A number is the shortest decimal that reads back as the same bits. A number that a step does not
//! have is an empty cell. Lines end with CR LF, as the RFC has it. A name that a spreadsheet would
//! compute as a formula has an apostrophe before it.

use std::fmt::Write;

use super::history::History;
use crate::record::Record;

/// The table of these runs, below each other; columns are those that any of them has.
pub fn table(records: &[Record]) -> String {
    let histories: Vec<History<'_>> = records.iter().map(History::new).collect();
    let mut columns: Vec<_> = histories.iter().flat_map(History::columns).collect();
    columns.sort();
    columns.dedup();
    let mut out = String::from("run,step");
    for column in &columns {
        out.push(',');
        out += &text(&column.dotted());
    }
    out += "\r\n";
    for (record, history) in records.iter().zip(&histories) {
        let name = text(&record.name);
        for row in history.rows() {
            // Writing to a String cannot fail.
            let _ = write!(out, "{name},{}", row.step);
            for column in &columns {
                out.push(',');
                if let Some(value) = history.value(&row, column) {
                    number(&mut out, value);
                }
            }
            out += "\r\n";
        }
    }
    out
}

/// Counts without a point, everything else as Rust writes it: `812`, `2.25`, `1e-5`.
fn number(out: &mut String, value: f64) {
    let _ = match value.fract() == 0.0 && value.abs() < 1e15 {
        true => write!(out, "{value}"),
        false => write!(out, "{value:?}"),
    };
}

/// A text, in quotes where it has to be. It is the name of a folder or of a number, which others may
/// have chosen; no table that is opened may run what stands there.
fn text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        return self::text(&format!("'{text}"));
    }
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn runs_stand_below_each_other_under_all_columns() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two, \"2\""));
        run(
            &one,
            "",
            "{\"step\":0,\"eval\":{\"rouge_l\":0.1}}\n{\"step\":1,\"tokens\":812,\"loss\":2.25}\n",
        );
        run(&two, "", "{\"step\":1,\"loss\":1e-7,\"kl_k3\":0.1}\n");
        let records = [Record::read(&one).unwrap(), Record::read(&two).unwrap()];
        assert_eq!(
            table(&records),
            "run,step,tokens,loss,kl_k3,eval.rouge_l\r\n\
             one,0,,,,0.1\r\n\
             one,1,812,2.25,,\r\n\
             \"two, \"\"2\"\"\",1,,1e-7,0.1,\r\n"
        );
    }

    #[test]
    fn no_name_is_a_formula() {
        assert_eq!(
            text("=HYPERLINK(\"http://x\")"),
            "\"'=HYPERLINK(\"\"http://x\"\")\""
        );
        assert_eq!(
            ["+1", "-1", "@a", "a-1", ""].map(text),
            ["'+1", "'-1", "'@a", "a-1", ""]
        );
    }

    #[test]
    fn numbers_read_back_as_the_same_bits() {
        for value in [
            0.1 + 0.2,
            1e-300,
            1e300,
            2_f64.powi(60),
            -0.0,
            f64::MIN_POSITIVE,
            812.0,
        ] {
            let mut out = String::new();
            number(&mut out, value);
            let back: f64 = out.parse().unwrap();
            assert_eq!(back.to_bits(), value.to_bits(), "{out}");
        }
    }
}
