//! Messages about keys that do not exist: what the user probably meant, and what there is.

use toml::Value;

use super::document::{Document, Entry};
use super::keys::{self, Owner};
use crate::Error;

/// Whether a method has the keys of `owner`.
pub(crate) fn belongs(owner: Owner, method: &str) -> bool {
    match owner {
        Owner::Every => true,
        Owner::Of(names) => names.contains(&method),
    }
}

/// The names in a table, as the user would write them there, for one method.
pub(crate) fn names_in(table: &str, method: &str) -> String {
    let mut names = Vec::new();
    for key in keys::KEYS.iter().filter(|key| belongs(key.owner, method)) {
        let inner = if table.is_empty() {
            Some(key.path)
        } else {
            key.path
                .strip_prefix(table)
                .and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(name) = inner.filter(|name| !table.is_empty() || !name.contains('.')) {
            names.push(format!("`{name}`"));
        }
    }
    names.join(", ")
}

/// The error that there is no such key or table, or that a table was given a value.
pub(crate) fn unknown(document: &Document, entry: &Entry) -> Error {
    let path = entry.path.as_str();
    let (table, name) = keys::split(path);
    if keys::is_table(path) {
        let what = format!("is a table, not a value ({})", short(&entry.value));
        let method = document.text("method.name").unwrap_or("dpkd");
        let fix = format!(
            "write [{path}] and below it its keys: {}",
            names_in(path, method)
        );
        return document.refuse(path, what, fix);
    }
    let what = if matches!(entry.value, Value::Table(_)) {
        "there is no such table"
    } else {
        "there is no such key"
    };
    let siblings = keys::KEYS.iter().filter_map(|key| {
        let (parent, name) = keys::split(key.path);
        (parent == table).then_some(name)
    });
    let tables = keys::TABLES
        .iter()
        .map(|(name, _)| *name)
        .filter(|_| table.is_empty());
    let near = nearest(name, siblings.chain(tables)).map(str::to_owned);
    let elsewhere = || {
        keys::KEYS
            .iter()
            .find(|key| keys::split(key.path).1 == name)
            .map(|key| key.path.to_owned())
    };
    let hint = match near.or_else(elsewhere) {
        Some(name) => format!("did you mean `{name}`? "),
        None => String::new(),
    };
    let method = document.text("method.name").unwrap_or("dpkd");
    let tables: Vec<String> = keys::TABLES
        .iter()
        .map(|(name, _)| format!("[{name}]"))
        .collect();
    let valid = if table.is_empty() || !keys::is_table(table) {
        format!("the file has `seed` and the tables {}", tables.join(", "))
    } else {
        format!("[{table}] has {}", names_in(table, method))
    };
    document.refuse(path, what, format!("{hint}{valid}"))
}

/// The candidate that `name` most resembles, if it resembles one: at most a third of its letters differ.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance with insertions, deletions, replacements and swaps of neighbours, each one edit
/// (optimal string alignment, after Damerau and Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Option<(char, Vec<usize>)> = None;
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for (j, (other, pair)) in b.iter().zip(row.windows(2)).enumerate() {
            let &[diagonal, up] = pair else { continue };
            let replaced = diagonal + usize::from(*other != letter);
            left = replaced.min(up + 1).min(left + 1);
            if let (Some((earlier, row)), Some(previous)) = (&before, j.checked_sub(1))
                && *other == *earlier
                && b.get(previous) == Some(&letter)
                && let Some(swapped) = row.get(previous)
            {
                left = left.min(swapped + 1);
            }
            next.push(left);
        }
        before = Some((letter, std::mem::replace(&mut row, next)));
    }
    row.last().copied().unwrap_or_default()
}

/// A typed value for a message, cut where it is long.
pub(crate) fn short(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    if text.chars().count() <= 60 {
        text
    } else {
        text.chars().take(57).chain("…".chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("trian", "train"), 1);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(nearest("stpse", ["steps", "epochs"].into_iter()), None);
        assert_eq!(
            nearest("step", ["epochs", "steps"].into_iter()),
            Some("steps")
        );
    }
}
