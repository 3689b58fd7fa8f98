//! The list of keys as text for people: the reference in the user's book, and the hyperparameters of one method.

use super::keys::{self, KEYS, Key, METHODS, Owner, TABLES};
use super::suggest::belongs;

/// Every key as Markdown, one table for each table of the configuration; the methods' keys by method.
pub fn reference() -> String {
    let mut out = String::from("### Outside any table\n\n");
    section(
        &mut out,
        KEYS.iter().filter(|key| !key.path.contains('.')),
        "",
    );
    for (table, about) in TABLES {
        out.push_str(&format!("\n### `[{table}]`\n\n{about}\n\n"));
        let inside = || KEYS.iter().filter(|key| name_in(key, table).is_some());
        section(
            &mut out,
            inside().filter(|key| key.owner == Owner::Every),
            table,
        );
        for method in METHODS {
            let own =
                || inside().filter(|key| key.owner != Owner::Every && belongs(key.owner, method));
            if own().next().is_some() {
                out.push_str(&format!("\nOf method `{method}`:\n\n"));
                section(&mut out, own(), table);
            }
        }
    }
    out
}

/// The hyperparameters of one method, named as in `method.name`, in the order of the resolved file; none
/// for a name that is no method.
pub fn reference_of(method: &str) -> Vec<&'static Key> {
    let own = |key: &&Key| key.owner != Owner::Every && belongs(key.owner, method);
    KEYS.iter().filter(own).collect()
}

/// The key's name as written inside `table`, if it belongs there.
fn name_in(key: &Key, table: &str) -> Option<&'static str> {
    let (outer, name) = key.path.split_once('.')?;
    (outer == table && keys::is_table(outer)).then_some(name)
}

fn section<'a>(out: &mut String, keys: impl Iterator<Item = &'a Key>, table: &str) {
    out.push_str("| key | allowed | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let name = name_in(key, table).unwrap_or(key.path);
        out.push_str(&format!(
            "| `{name}` | {} | {} | {} |\n",
            key.kind, key.default, key.help
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_holds_the_reference_word_for_word() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/src/configuration.md"
        );
        let book = std::fs::read_to_string(path).unwrap();
        let reference = reference();
        if std::env::var_os("UPDATE_BOOK").is_some() {
            let (before, rest) = book.split_once("### Outside any table").unwrap();
            let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
            std::fs::write(path, format!("{before}{reference}{after}")).unwrap();
            return;
        }
        assert!(
            book.contains(&reference),
            "docs/src/configuration.md is out of date; run UPDATE_BOOK=1 cargo test --workspace -- the_book_holds"
        );
    }

    #[test]
    fn every_key_is_in_the_reference_once_for_each_of_its_methods() {
        let rows = reference()
            .lines()
            .filter(|line| line.starts_with("| `"))
            .count();
        let times = KEYS.iter().map(|key| match key.owner {
            Owner::Every => 1,
            Owner::Of(methods) => methods.len(),
        });
        assert_eq!(rows, times.sum::<usize>());
    }

    #[test]
    fn hyperparameters_of_a_method() {
        let names: Vec<&str> = reference_of("seqkd").iter().map(|key| key.path).collect();
        let expected = "samples_per_prompt max_new_tokens temperature top_k top_p";
        let expected: Vec<String> = expected
            .split(' ')
            .map(|name| format!("method.{name}"))
            .collect();
        assert_eq!(names, expected);
        assert!(reference_of("sft").is_empty());
    }
}
