//! What the metrics are called, counted in, and say, and in which direction they are compared.

use crate::eval::metric::{Better, METRICS, metric};
use crate::record::column_words;

/// Title, unit and meaning of a column; the key itself if it has no words.
pub(super) fn column(key: &str) -> (String, &'static str, &'static str) {
    match column_words(key) {
        Some(words) => (words.title.to_owned(), words.unit, words.meaning),
        None => (readable(key), "value", ""),
    }
}

/// A metric's name for people.
pub(super) fn title(name: &str) -> String {
    match name {
        "forward_kl" => "forward KL".to_owned(),
        "reverse_kl" => "reverse KL".to_owned(),
        "tvd" => "TVD".to_owned(),
        "rouge_1" => "ROUGE-1".to_owned(),
        "rouge_2" => "ROUGE-2".to_owned(),
        "rouge_l" => "ROUGE-L".to_owned(),
        "rouge_lsum" => "ROUGE-Lsum".to_owned(),
        "sacrebleu" => "BLEU (sacreBLEU)".to_owned(),
        "chrf" => "chrF2".to_owned(),
        "exact_match" => "exact match".to_owned(),
        "response_tokens" => "response length".to_owned(),
        "eos_rate" => "EOS rate".to_owned(),
        "reward" => "induced reward".to_owned(),
        "implicit_reward" => "implicit reward".to_owned(),
        name => match name.strip_prefix("bleu_") {
            Some(order) => format!("BLEU-{order} (NLTK)"),
            None => readable(name),
        },
    }
}

fn readable(key: &str) -> String {
    key.replace('_', " ")
}

/// What a metric is counted in.
pub(super) fn unit(name: &str) -> &'static str {
    metric(name).map_or("", |metric| metric.unit)
}

/// What a metric says.
pub(super) fn meaning(name: &str) -> &'static str {
    metric(name).map_or("", |metric| metric.meaning)
}

/// Which direction is better.
pub(super) fn better(name: &str) -> Option<Better> {
    metric(name)?.better
}

/// The direction in words.
pub(super) fn direction(name: &str) -> &'static str {
    match better(name) {
        Some(Better::Lower) => "lower is better",
        Some(Better::Higher) => "higher is better",
        None => "neither direction is better",
    }
}

/// Whether `a` is better than `b`.
pub(super) fn beats(name: &str, a: f64, b: f64) -> bool {
    match better(name) {
        Some(Better::Lower) => a < b,
        Some(Better::Higher) => a > b,
        None => false,
    }
}

/// The metrics by which students are compared, best evidence first: quality of whole answers before
/// agreement with the teacher on given text.
const MAIN: [&str; 5] = [
    "rouge_l",
    "exact_match",
    "forward_kl",
    "reverse_kl",
    "perplexity",
];

/// The main metric of these: by [`MAIN`], else the first with a direction.
pub(super) fn main(names: &[String]) -> Option<&String> {
    let known = MAIN
        .iter()
        .find_map(|main| names.iter().find(|name| name == main));
    known.or_else(|| names.iter().find(|name| better(name).is_some()))
}

/// Each name once, in the order of the list of metrics, others behind them by alphabet.
pub(super) fn in_order(mut names: Vec<String>) -> Vec<String> {
    let place = |name: &str| {
        let known = METRICS.iter().position(|metric| metric.name == name);
        known.unwrap_or(METRICS.len())
    };
    names.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_ordered_and_compared_in_their_direction() {
        let names = ["zeta", "rouge_l", "alpha", "forward_kl", "rouge_l"];
        let names = in_order(names.map(str::to_owned).to_vec());
        assert_eq!(names, ["forward_kl", "rouge_l", "alpha", "zeta"]);
        assert_eq!(main(&names).unwrap(), "rouge_l");
        assert_eq!(main(&["zeta".to_owned()]), None);
        assert!(beats("forward_kl", 0.1, 0.2) && beats("rouge_l", 0.2, 0.1));
        assert!(!beats("eos_rate", 1.0, 0.0) && !beats("zeta", 1.0, 0.0));
        assert!(MAIN.iter().all(|name| better(name).is_some()));
    }
}
