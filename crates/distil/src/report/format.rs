//! Numbers as a reader wants them: four digits that matter, a real minus sign, times in hours.

/// Four digits that matter; `–` for what is no number.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    // NLTK's BLEU of texts without a common n-gram is 1e-80 or so, which nobody wants to read.
    if size < 1e-30 {
        return "0".to_owned();
    }
    if !(1e-3..1e7).contains(&size) {
        return scientific(value);
    }
    if value.fract() == 0.0 {
        return grouped(value);
    }
    let decimals = match size {
        _ if size >= 1000.0 => return grouped(value.round()),
        _ if size >= 100.0 => 1,
        _ if size >= 10.0 => 2,
        _ if size >= 0.1 => 3,
        _ if size >= 0.01 => 4,
        _ => 5,
    };
    minus(format!("{value:.decimals$}"))
}

/// With its sign, `+` included.
pub(super) fn signed(value: f64) -> String {
    let text = number(value);
    match value > 0.0 {
        true => format!("+{text}"),
        false => text,
    }
}

/// Both ends with the same number of decimals.
pub(super) fn range((low, high): (f64, f64)) -> String {
    let wide = low.abs().max(high.abs());
    if wide == 0.0 || !(1e-3..1e6).contains(&wide) {
        return format!("{} to {}", number(low), number(high));
    }
    let decimals = (3.0 - wide.log10().floor()).clamp(0.0, 4.0) as usize;
    let decimals = decimals.min(3 + usize::from(wide < 0.1));
    let end = |value: f64| minus(format!("{value:.decimals$}"));
    format!("{} to {}", end(low), end(high))
}

/// A range of differences: both ends with their sign.
pub(super) fn signed_range((low, high): (f64, f64)) -> String {
    let text = range((low, high));
    let sign = |end: &str, value: f64| match value > 0.0
        && end.contains(|c: char| ('1'..='9').contains(&c))
    {
        true => format!("+{end}"),
        false => end.to_owned(),
    };
    match text.split_once(" to ") {
        Some((a, b)) => format!("{} to {}", sign(a, low), sign(b, high)),
        None => text,
    }
}

/// A number that stands beside `value`, with as many decimals.
pub(super) fn like(value: f64, beside: f64) -> String {
    let size = value.abs();
    if !(1e-3..1e4).contains(&size) || !beside.is_finite() {
        return number(beside);
    }
    let decimals = match size {
        _ if size >= 100.0 => 1,
        _ if size >= 10.0 => 2,
        _ => 3 + usize::from(size < 0.1),
    };
    let text = format!("{beside:.decimals$}");
    match text.contains(|c: char| ('1'..='9').contains(&c)) {
        true => minus(text),
        false => number(beside),
    }
}

/// A whole number with its thousands apart.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Seconds in the units that one would say.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".to_owned();
    }
    if seconds < 60.0 {
        return format!("{} s", number((seconds * 100.0).round() / 100.0));
    }
    let whole = seconds.round() as u64;
    match whole < 3600 {
        true => format!("{} min {:02} s", whole / 60, whole % 60),
        false => format!("{} h {:02} min", count(whole / 3600), whole % 3600 / 60),
    }
}

/// A count in thousands, millions or billions: `134.5 M`.
pub(super) fn large(value: f64) -> String {
    match value {
        _ if value >= 1e9 => format!("{:.2} B", value / 1e9),
        _ if value >= 1e6 => format!("{:.1} M", value / 1e6),
        _ if value >= 1e4 => format!("{:.1} k", value / 1e3),
        _ => number(value),
    }
}

/// A word in the plural unless there is one.
pub(super) fn plural(count: usize, word: &str) -> String {
    match count {
        1 => format!("1 {word}"),
        _ => format!("{} {word}s", self::count(count as u64)),
    }
}

/// The minus sign in place of the hyphen; none before zero.
pub(super) fn minus(text: String) -> String {
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| c == '0' || c == '.') => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

fn grouped(value: f64) -> String {
    let text = count(value.abs() as u64);
    match value < 0.0 {
        true => format!("−{text}"),
        false => text,
    }
}

/// `1.23·10⁻⁵`.
pub(super) fn scientific(value: f64) -> String {
    let text = format!("{value:.2e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    let power = superscript(exponent);
    match digits {
        "1" => format!("10{power}"),
        _ => format!("{}·10{power}", minus(digits.to_owned())),
    }
}

fn superscript(text: &str) -> String {
    let up = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => c
            .to_digit(10)
            .and_then(|digit| char::from_u32(0x2070 + digit))
            .unwrap_or(c),
    };
    text.chars().map(up).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_that_matter() {
        let shown = [
            (0.0, "0"),
            (1.84e-80, "0"),
            (0.2345678, "0.235"),
            (0.0345678, "0.0346"),
            (14.73181, "14.73"),
            (-1.5, "−1.500"),
            (5439.0, "5439"),
            (54390.0, "54\u{202f}390"),
            (1234567.8, "1\u{202f}234\u{202f}568"),
            (0.0001, "10⁻⁴"),
            (-0.000025, "−2.5·10⁻⁵"),
            (f64::NAN, "–"),
        ];
        for (value, text) in shown {
            assert_eq!(number(value), text);
        }
        assert_eq!(signed(0.25), "+0.250");
        assert_eq!(signed(-0.25), "−0.250");
        assert_eq!(range((-0.00001, 0.25)), "0.000 to 0.250");
        assert_eq!(range((-0.0104, 0.0461)), "−0.0104 to 0.0461");
        assert_eq!(range((31.21, 1204.7)), "31 to 1205");
        assert_eq!(signed_range((-0.0104, 0.0461)), "−0.0104 to +0.0461");
        assert_eq!(signed_range((0.0, 0.25)), "0.000 to +0.250");
        assert_eq!(like(0.265, 0.00425), "0.004");
        assert_eq!(like(0.265, 0.0000425), "4.25·10⁻⁵");
        assert_eq!(like(118.0, 2.25), "2.2");
    }

    #[test]
    fn times_and_counts() {
        assert_eq!(duration(0.4567), "0.460 s");
        assert_eq!(duration(106.08), "1 min 46 s");
        assert_eq!(duration(7384.0), "2 h 03 min");
        assert_eq!(duration(f64::NAN), "–");
        assert_eq!(large(134_515_008.0), "134.5 M");
        assert_eq!(plural(1, "row"), "1 row");
        assert_eq!(plural(12000, "row"), "12\u{202f}000 rows");
    }
}
