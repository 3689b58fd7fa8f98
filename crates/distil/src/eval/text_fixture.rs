//! What the reference implementations say of texts that break tokenizers: the fixture that
//! `oracles/text_metrics.py` makes, for the tests of the text metrics.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// One row: an answer, its references, and what the oracles make of them.
#[derive(Deserialize)]
pub(super) struct Row {
    pub(super) references: Vec<String>,
    pub(super) answer: String,
    pub(super) words: Vec<String>,
    pub(super) tokens_13a: Vec<String>,
    pub(super) normalised: String,
    pub(super) repetition: f64,
    /// Precision, recall, F of ROUGE-1, -2, -L, -Lsum with stems, then of the four without. This and
    /// what follows only with references.
    pub(super) rouge: Option<[[f64; 3]; 8]>,
    pub(super) exact: Option<bool>,
    pub(super) nltk: Option<Counted>,
    pub(super) bleu: Option<Counted>,
    pub(super) chrf: Option<Counted>,
}

/// A row's statistics and the scores of a corpus that is this row alone.
#[derive(Deserialize)]
pub(super) struct Counted {
    pub(super) sums: Vec<f64>,
    pub(super) scores: Vec<f64>,
}

/// Scores of several rows.
#[derive(Deserialize)]
pub(super) struct Corpus {
    rows: [usize; 3],
    pub(super) nltk: [f64; 4],
    pub(super) bleu: f64,
    pub(super) bleu_signature: String,
    pub(super) chrf: f64,
    pub(super) chrf_signature: String,
    pub(super) distinct: [f64; 2],
}

impl Corpus {
    /// Its rows.
    pub(super) fn of<'a>(&self, rows: &'a [Row]) -> impl Iterator<Item = &'a Row> {
        let [start, stop, step] = self.rows;
        rows[start..stop].iter().step_by(step)
    }

    /// The sum over its rows of their statistics.
    pub(super) fn sums(&self, rows: &[Row], sums: fn(&[String], &str) -> Vec<f64>) -> Vec<f64> {
        self.of(rows)
            .map(|row| sums(&row.references, &row.answer))
            .reduce(|mut total, row| {
                assert_eq!(total.len(), row.len());
                total
                    .iter_mut()
                    .zip(row)
                    .for_each(|(total, row)| *total += row);
                total
            })
            .unwrap()
    }
}

/// All rows.
pub(super) fn rows() -> Vec<Row> {
    let rows: Vec<Row> = read(include_str!("../../tests/fixtures/text_metrics.jsonl"));
    assert!(rows.len() >= 600, "{}", rows.len());
    rows
}

/// All corpora.
pub(super) fn corpora() -> Vec<Corpus> {
    let corpora: Vec<Corpus> = read(include_str!("../../tests/fixtures/text_corpora.jsonl"));
    assert!(corpora.len() >= 7, "{}", corpora.len());
    corpora
}

/// Equal but for what another C library's `exp` and `ln` may round otherwise.
pub(super) fn assert_close(got: f64, expected: f64, row: &str) {
    assert!(
        (got - expected).abs() <= 1e-12 * expected.abs(),
        "{got} is not {expected}: {row:?}"
    );
}

fn read<T: DeserializeOwned>(text: &str) -> Vec<T> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
