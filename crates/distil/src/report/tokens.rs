//! Texts token by token, coloured by what the teacher's reward makes of each, or by the log-ratio
//! log p/q of teacher and student. Radio buttons switch between the two by style alone; the numbers
//! stand in the tokens' titles.

use std::fmt::Write as _;

use super::format::{number, plural};
use super::html::{Section, about, code, escape, missing, named};
use super::run::Run;
use crate::record::TokenRow;

/// Tokens in a report, so that it opens at once.
const MOST: usize = 6000;

/// Shades of each sign.
const SHADES: i32 = 5;

/// The section.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    if runs.iter().all(|run| run.evaluations.is_empty()) {
        return None;
    }
    let mut rows: Vec<(usize, &str, &TokenRow)> = Vec::new();
    let mut students: Vec<usize> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        // Of several training seeds, the first run stands for all.
        if students.contains(&run.style) {
            continue;
        }
        students.push(run.style);
        for evaluation in &run.evaluations {
            let of = evaluation
                .tokens
                .iter()
                .filter(|row| !row.tokens.is_empty());
            rows.extend(of.map(|row| (index, evaluation.name.as_str(), row)));
        }
    }
    // A prompt's texts stand together.
    rows.sort_by(|a, b| (a.1, a.2.row, a.0).cmp(&(b.1, b.2.row, b.0)));
    let body = match rows.is_empty() {
        true => missing(&format!(
            "There is no view of tokens: it needs a teacher. {} writes it.",
            code("distil eval … --teacher MODEL --out RUN/evaluations/NAME.json")
        )),
        false => view(runs, &rows),
    };
    Some(Section {
        id: "tokens",
        title: "Token by token",
        body,
    })
}

fn view(runs: &[Run], rows: &[(usize, &str, &TokenRow)]) -> String {
    let rewards = rows
        .iter()
        .flat_map(|(_, _, row)| row.reward.iter().copied());
    let ratios = rows
        .iter()
        .flat_map(|(_, _, row)| (0..row.tokens.len()).map(|t| ratio(row, t)));
    let reward_scale = typical(rewards);
    let ratio_scale = typical(ratios);
    let mut text = about(
        "Each token is coloured. By reward, the one that the teacher's logits induce (LLMR), in nats: blue above 0, \
         orange below. By log p/q = log p − log q, in nats, with the teacher's probability p of the token and the \
         student's q: blue where the teacher finds the token likelier than the student does, orange where less \
         likely. Point at a token for its numbers.",
    );
    text += "<div class=\"tokens\">\n";
    let ways = [
        ("reward", "reward", reward_scale),
        ("ratio", "log p/q", ratio_scale),
    ];
    let mut checked = " checked";
    for (id, name, scale) in ways {
        if scale.is_some() {
            let _ = writeln!(
                text,
                "<input type=\"radio\" name=\"tokens-by\" id=\"by-{id}\"{checked}>\
                 <label for=\"by-{id}\">{name}</label>"
            );
            checked = "";
        }
    }
    for (id, _, scale) in ways {
        if let Some(scale) = scale {
            text += &legend(id, scale);
        }
    }
    let mut used = 0;
    let mut shown = 0;
    let mut last = None;
    for (index, name, row) in rows {
        // The first text is shown whatever its length, as far as it fits.
        if used > 0 && used + row.tokens.len() > MOST {
            break;
        }
        if last != Some((*name, row.row)) {
            let _ = write!(text, "<h4>{}, row {}</h4>", escape(name), row.row);
            last = Some((*name, row.row));
        }
        let run = match runs.len() {
            1 => String::new(),
            _ => named(runs[*index].style, &runs[*index].label) + " ",
        };
        let _ = write!(
            text,
            "<div class=\"text\"><p class=\"who\">{run}{}</p><p>",
            escape(who(&row.source))
        );
        for place in 0..row.tokens.len().min(MOST) {
            text += &token(row, place, reward_scale, ratio_scale);
        }
        text += "</p></div>\n";
        used += row.tokens.len();
        shown += 1;
    }
    text += "</div>\n";
    if shown < rows.len() {
        text += &missing(&format!(
            "{} of {} are shown; the others are in the .tokens.jsonl files of the evaluations.",
            shown,
            plural(rows.len(), "text")
        ));
    }
    text
}

fn who(source: &str) -> &str {
    match source {
        "student" => "student's answer",
        "teacher" => "teacher's answer",
        "reference" => "reference",
        other => other,
    }
}

fn ratio(row: &TokenRow, place: usize) -> f64 {
    let of = |list: &[f64]| list.get(place).copied().unwrap_or(f64::NAN);
    of(&row.teacher_logprobs) - of(&row.logprobs)
}

/// What counts as much: the 95th percentile of the absolute values.
fn typical(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sizes: Vec<f64> = values.filter(|v| v.is_finite()).map(f64::abs).collect();
    sizes.sort_by(f64::total_cmp);
    let at = (sizes.len().checked_sub(1)? as f64 * 0.95).round() as usize;
    sizes.get(at).map(|&size| size.max(1e-9))
}

/// From −5 to 5.
fn shade(value: f64, scale: Option<f64>) -> Option<i32> {
    let scale = scale?;
    value.is_finite().then(|| {
        let shade = (value / scale * f64::from(SHADES)).round();
        shade.clamp(f64::from(-SHADES), f64::from(SHADES)) as i32
    })
}

/// The class of a shade: `r` reward, `l` log-ratio; `p` above and `n` below 0.
fn class(kind: char, shade: Option<i32>) -> String {
    match shade {
        Some(0) | None => String::new(),
        Some(shade) if shade > 0 => format!("{kind}p{shade} "),
        Some(shade) => format!("{kind}n{} ", -shade),
    }
}

fn token(
    row: &TokenRow,
    place: usize,
    reward_scale: Option<f64>,
    ratio_scale: Option<f64>,
) -> String {
    let of = |list: &[f64]| list.get(place).copied().unwrap_or(f64::NAN);
    let (reward, ratio) = (of(&row.reward), ratio(row, place));
    let classes = class('r', shade(reward, reward_scale)) + &class('l', shade(ratio, ratio_scale));
    let mut numbers = Vec::new();
    for (name, value) in [
        ("reward", reward),
        ("log q", of(&row.logprobs)),
        ("log p", of(&row.teacher_logprobs)),
        ("log p/q", ratio),
    ] {
        if value.is_finite() {
            numbers.push(format!("{name} {}", number(value)));
        }
    }
    // A line's end must be seen as a token and still end the line.
    let raw = row.tokens[place].as_str();
    let shown = escape(raw).replace('\n', "⏎\n").replace('\t', "⇥");
    let shown = if raw.is_empty() {
        "∅".to_owned()
    } else {
        shown
    };
    format!(
        "<span class=\"{}\" title=\"{}\">{shown}</span>",
        classes.trim_end(),
        numbers.join("; ")
    )
}

fn legend(id: &str, scale: f64) -> String {
    let kind = if id == "reward" { 'r' } else { 'l' };
    let mut text = format!("<p class=\"scale by-{id}\">{} ", number(-scale));
    for shade in -SHADES..=SHADES {
        let _ = write!(
            text,
            "<span class=\"{}\">&nbsp;</span>",
            class(kind, Some(shade)).trim_end()
        );
    }
    let _ = writeln!(text, " {} and beyond</p>", number(scale));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_follow_the_sign_and_stop_at_the_ends() {
        let scale = Some(2.0);
        assert_eq!(shade(0.1, scale), Some(0));
        assert_eq!(shade(-1.0, scale), Some(-3));
        assert_eq!(shade(99.0, scale), Some(5));
        assert_eq!(shade(f64::NAN, scale), None);
        assert_eq!(
            (
                class('r', Some(-3)),
                class('l', Some(5)),
                class('r', Some(0))
            ),
            ("rn3 ".into(), "lp5 ".into(), String::new())
        );
    }

    #[test]
    fn a_token_is_text_with_its_numbers_and_lists_may_be_short() {
        let row = TokenRow {
            tokens: vec!["<b>\n".into(), String::new()],
            logprobs: vec![-0.5],
            teacher_logprobs: vec![-1.5, -1.0],
            reward: vec![],
            ..TokenRow::default()
        };
        let first = token(&row, 0, Some(1.0), Some(1.0));
        assert_eq!(
            first,
            "<span class=\"ln5\" title=\"log q −0.500; log p −1.500; log p/q −1\">&lt;b&gt;⏎\n</span>"
        );
        let second = token(&row, 1, Some(1.0), Some(1.0));
        assert_eq!(second, "<span class=\"\" title=\"log p −1\">∅</span>");
    }
}
