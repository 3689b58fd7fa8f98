//! The Porter stemmer: words with one stem count as one word in ROUGE.
//!
//! M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, pp. 130–137. A word is
//! read as `[C](VC)^m[V]`, with C a run of consonants and V a run of vowels; `m` is its *measure*.
//! Eight steps each try a list of suffixes: the first that fits decides, and it is replaced only if
//! what stands before it meets the rule's condition.
//!
//! ROUGE implementations stem with NLTK's `PorterStemmer` in its default mode, which departs from
//! the paper; so does this file:
//! - a dozen irregular words have their stem in a table, and words of one or two letters stay;
//! - step 1a: *-ies* in a word of four letters becomes *-ie* (dies → die);
//! - step 1b: *-ied* becomes *-i*, in a word of four letters *-ie* (spied → spi, died → die);
//! - step 1c: *-y* becomes *-i* after a consonant that is not the word's first letter
//!   (fly → fli, enjoy stays);
//! - step 2: *-alli* is tried before all others and its result goes through step 2 again; *-bli*
//!   stands for *-abli*; *-fulli* → *-ful* and *-logi* → *-log* are added;
//! - the condition "ends consonant, vowel, consonant" also holds for a vowel and a consonant alone.

/// A suffix, what replaces it, and the least measure of the stem before it.
type Rule = (&'static str, &'static str, usize);

const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("inning", "inning"),
    ("innings", "inning"),
    ("outing", "outing"),
    ("outings", "outing"),
    ("canning", "canning"),
    ("cannings", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

const STEP_1A: [Rule; 4] = [
    ("sses", "ss", 0),
    ("ies", "i", 0),
    ("ss", "ss", 0),
    ("s", "", 0),
];

const STEP_2: [Rule; 21] = [
    ("ational", "ate", 1),
    ("tional", "tion", 1),
    ("enci", "ence", 1),
    ("anci", "ance", 1),
    ("izer", "ize", 1),
    ("bli", "ble", 1),
    ("alli", "al", 1),
    ("entli", "ent", 1),
    ("eli", "e", 1),
    ("ousli", "ous", 1),
    ("ization", "ize", 1),
    ("ation", "ate", 1),
    ("ator", "ate", 1),
    ("alism", "al", 1),
    ("iveness", "ive", 1),
    ("fulness", "ful", 1),
    ("ousness", "ous", 1),
    ("aliti", "al", 1),
    ("iviti", "ive", 1),
    ("biliti", "ble", 1),
    ("fulli", "ful", 1),
];

const STEP_3: [Rule; 7] = [
    ("icate", "ic", 1),
    ("ative", "", 1),
    ("alize", "al", 1),
    ("iciti", "ic", 1),
    ("ical", "ic", 1),
    ("ful", "", 1),
    ("ness", "", 1),
];

const STEP_4: [Rule; 19] = [
    ("al", "", 2),
    ("ance", "", 2),
    ("ence", "", 2),
    ("er", "", 2),
    ("ic", "", 2),
    ("able", "", 2),
    ("ible", "", 2),
    ("ant", "", 2),
    ("ement", "", 2),
    ("ment", "", 2),
    ("ent", "", 2),
    ("ion", "", 2),
    ("ou", "", 2),
    ("ism", "", 2),
    ("ate", "", 2),
    ("iti", "", 2),
    ("ous", "", 2),
    ("ive", "", 2),
    ("ize", "", 2),
];

/// The stem of a lower-case word. A word with a character outside ASCII is its own stem: the rules
/// are about English spelling.
pub fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 || !word.is_ascii() {
        return word.to_owned();
    }
    let mut word = word.to_owned();
    step_1a(&mut word);
    step_1b(&mut word);
    step_1c(&mut word);
    step_2(&mut word);
    apply(&mut word, &STEP_3);
    step_4(&mut word);
    step_5(&mut word);
    word
}

/// Plurals.
fn step_1a(word: &mut String) {
    if word.len() == 4 && word.ends_with("ies") {
        word.pop();
    } else {
        apply(word, &STEP_1A);
    }
}

/// Past tenses and *-ing* forms.
fn step_1b(word: &mut String) {
    if word.ends_with("ied") {
        let kept = if word.len() == 4 { "ie" } else { "i" };
        replace(word, "ied", kept);
        return;
    }
    if let Some(stem) = word.strip_suffix("eed") {
        if measure(stem) > 0 {
            word.pop();
        }
        return;
    }
    let Some(stem) = ["ed", "ing"]
        .iter()
        .find_map(|suffix| word.strip_suffix(suffix))
        .filter(|stem| contains_vowel(stem))
    else {
        return;
    };
    word.truncate(stem.len());
    if ["at", "bl", "iz"].iter().any(|end| word.ends_with(end)) {
        word.push('e');
    } else if ends_double_consonant(word) {
        if !word.ends_with(['l', 's', 'z']) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_short(word) {
        word.push('e');
    }
}

/// *-y* after a consonant.
fn step_1c(word: &mut String) {
    let turns = word
        .strip_suffix('y')
        .is_some_and(|stem| stem.len() > 1 && consonants(stem).last() == Some(true));
    if turns {
        replace(word, "y", "i");
    }
}

/// Double suffixes to single ones.
fn step_2(word: &mut String) {
    if word
        .strip_suffix("alli")
        .is_some_and(|stem| measure(stem) > 0)
    {
        // The result ends in "al", so this happens once.
        replace(word, "alli", "al");
    }
    if STEP_2.iter().any(|(suffix, _, _)| word.ends_with(suffix)) {
        apply(word, &STEP_2);
    } else if let Some(stem) = word.strip_suffix("ogi").filter(|stem| stem.ends_with('l')) {
        // The "l" of -logi counts for the stem, so that geo- goes the way of archaeo-.
        if measure(stem) > 0 {
            word.pop();
        }
    }
}

/// Single suffixes after a long stem.
fn step_4(word: &mut String) {
    // No other suffix of the list ends in -ion, so this rule may be looked at first.
    if word
        .strip_suffix("ion")
        .is_some_and(|stem| !stem.ends_with(['s', 't']))
    {
        return;
    }
    apply(word, &STEP_4);
}

/// A last *-e*, a last double *l*.
fn step_5(word: &mut String) {
    if let Some(stem) = word.strip_suffix('e') {
        let measure = measure(stem);
        if measure > 1 || (measure == 1 && !ends_short(stem)) {
            word.pop();
        }
    }
    if word
        .strip_suffix('l')
        .is_some_and(|stem| stem.ends_with('l') && measure(stem) > 1)
    {
        word.pop();
    }
}

/// Applies the first rule whose suffix fits, if its condition holds; no other rule is tried.
fn apply(word: &mut String, rules: &[Rule]) {
    for (suffix, replacement, least_measure) in rules {
        if let Some(stem) = word.strip_suffix(suffix) {
            if measure(stem) >= *least_measure {
                replace(word, suffix, replacement);
            }
            return;
        }
    }
}

fn replace(word: &mut String, suffix: &str, replacement: &str) {
    word.truncate(word.len() - suffix.len());
    word.push_str(replacement);
}

/// For each letter, whether it is a consonant: not a, e, i, o, u, nor y after a consonant. A digit
/// counts as a consonant.
fn consonants(word: &str) -> impl Iterator<Item = bool> {
    let mut previous = false;
    word.bytes().map(move |letter| {
        previous = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !previous,
            _ => true,
        };
        previous
    })
}

/// m, the number of changes from a vowel to a consonant.
fn measure(stem: &str) -> usize {
    let mut after_vowel = false;
    consonants(stem)
        .filter(|&consonant| {
            let change = after_vowel && consonant;
            after_vowel = !consonant;
            change
        })
        .count()
}

fn contains_vowel(stem: &str) -> bool {
    consonants(stem).any(|consonant| !consonant)
}

fn ends_double_consonant(word: &str) -> bool {
    let mut letters = word.bytes().rev();
    letters.next() == letters.next() && consonants(word).last() == Some(true)
}

/// Consonant, vowel, consonant at the end, the last one not w, x or y; or just a vowel and a
/// consonant.
fn ends_short(word: &str) -> bool {
    let consonants: Vec<bool> = consonants(word).collect();
    match consonants[..] {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_paper() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("bled", "bled"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("relational", "relat"),
            ("vietnamization", "vietnam"),
            ("triplicate", "triplic"),
            ("replacement", "replac"),
            ("adoption", "adopt"),
            ("controlling", "control"),
            ("rate", "rate"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn departures_of_nltk() {
        for (word, expected) in [
            ("skies", "sky"),
            ("dying", "die"),
            ("dies", "die"),
            ("died", "die"),
            ("spied", "spi"),
            ("fly", "fli"),
            ("enjoy", "enjoy"),
            ("radically", "radic"),
            ("usefully", "use"),
            ("geology", "geolog"),
            ("archaeology", "archaeolog"),
            ("ied", "i"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn odd_words_stay_whole() {
        for word in ["", "a", "is", "größen", "1234", "yyy"] {
            assert_eq!(stem(word), word);
        }
    }

    #[test]
    fn equals_nltk_on_the_fixture() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/porter.tsv");
        let fixture = std::fs::read_to_string(path).unwrap();
        let mut words = 0;
        for line in fixture.lines() {
            let (word, expected) = line.split_once('\t').unwrap();
            assert_eq!(stem(word), expected, "{word}");
            words += 1;
        }
        assert!(words >= 2000, "{words}");
    }
}
