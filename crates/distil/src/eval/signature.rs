//! What has to be said beside a BLEU or chrF so that others can compare with it.
//!
//! sacreBLEU prints a line such as
//!
//! ```text
//! nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0
//! ```
//!
//! (M. Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018). The lines here have its form and
//! its values, since the numbers are equal to those of that version, though this program computed them.

/// The version of sacreBLEU that the numbers are tested against.
pub const SACREBLEU_VERSION: &str = "2.6.0";

/// sacreBLEU's signature of [`bleu::sacrebleu`](super::bleu::sacrebleu), from the numbers of the rows'
/// references.
pub fn bleu(references: impl IntoIterator<Item = usize>) -> String {
    let nrefs = nrefs(references);
    format!("nrefs:{nrefs}|case:mixed|eff:no|tok:13a|smooth:exp|version:{SACREBLEU_VERSION}")
}

/// sacreBLEU's signature of [`chrf`](super::chrf), from the numbers of the rows' references.
pub fn chrf(references: impl IntoIterator<Item = usize>) -> String {
    let nrefs = nrefs(references);
    format!("nrefs:{nrefs}|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{SACREBLEU_VERSION}")
}

/// How many references the rows have, "var" if not all as many. Rows without any do not count, as they
/// do not in the scores.
fn nrefs(references: impl IntoIterator<Item = usize>) -> String {
    let mut counts = references.into_iter().filter(|&count| count > 0);
    let first = counts.next().unwrap_or_default();
    if counts.all(|count| count == first) {
        first.to_string()
    } else {
        "var".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture;

    #[test]
    fn equals_sacrebleu_on_the_fixture() {
        let rows = text_fixture::rows();
        for corpus in text_fixture::corpora() {
            let references = || corpus.of(&rows).map(|row| row.references.len());
            assert_eq!(bleu(references()), corpus.bleu_signature);
            assert_eq!(chrf(references()), corpus.chrf_signature);
        }
    }

    #[test]
    fn number_of_references() {
        assert_eq!(nrefs([]), "0");
        assert_eq!(nrefs([2, 0, 2]), "2");
        assert_eq!(nrefs([1, 2]), "var");
    }
}
