//! The verbs, one file each.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod convert;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod methods;
pub(crate) mod models;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod quickstart;
pub(crate) mod report;
pub(crate) mod reward;
pub(crate) mod score;
pub(crate) mod train;
pub(crate) mod watch;

/// A whole number, in words that say so.
pub(crate) fn whole<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    let number = text.parse();
    number.map_err(|_| "it must be a whole number from 0".into())
}

/// A count that cannot be 0.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a whole number from 1".into()),
        Ok(count) => Ok(count),
    }
}
