//! A plan as text, for a terminal or a file.

use std::fmt;

use super::marked::{Style, lines};
use super::{Level, Place, Plan, Rendered, Rows, Size, Spread, Warning};

/// Characters of a line of prose before it is folded.
const WIDTH: usize = 92;

/// A plan with a terminal's colours.
#[derive(Debug, Clone, Copy)]
pub struct Coloured<'a>(&'a Plan);

impl Plan {
    /// The plan with a terminal's colours. Without them nothing is lost: what is trained on has its
    /// brackets in either case.
    pub fn coloured(&self) -> Coloured<'_> {
        Coloured(self)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plan(self, false, f)
    }
}

impl fmt::Display for Coloured<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plan(self.0, true, f)
    }
}

fn write_plan(plan: &Plan, colours: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    models(plan, f)?;
    rows(plan, f)?;
    cost(plan, f)?;
    writeln!(
        f,
        "{}",
        Style::Heading.paint(
            "prompts   as the model reads them; the loss is on what stands between ⟦ and ⟧",
            colours
        )
    )?;
    for row in &plan.prompts {
        writeln!(f, "\n  {}", Style::Heading.paint(&heading(row), colours))?;
        for line in lines(row, colours) {
            writeln!(f, "{line}")?;
        }
    }
    writeln!(f)?;
    warnings(&plan.warnings, colours, f)
}

fn models(plan: &Plan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let size = |size: &Size| {
        format!(
            "{} layers, {:.1}M parameters, {}",
            size.layers,
            size.parameters as f64 / 1e6,
            size.precision.name()
        )
    };
    let samples = match plan.sampling_precision == plan.student.precision {
        true => String::new(),
        false => format!(", samples in {}", plan.sampling_precision.name()),
    };
    writeln!(f, "method    {}", plan.method)?;
    let text = folded(&plan.trained_on, "          ", "");
    writeln!(f, "loss on   {}", text.trim_start())?;
    if let Some(teacher) = &plan.teacher {
        writeln!(f, "teacher   {}", size(teacher))?;
    }
    writeln!(f, "student   {}{samples}", size(&plan.student))
}

fn rows(plan: &Plan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let all = &plan.rows;
    match all.read == plan.rows_used && all.left_out.is_empty() && all.windows == 0 {
        true => writeln!(f, "rows      {} used, all there are", plan.rows_used)?,
        false => {
            writeln!(f, "rows      {} used", plan.rows_used)?;
            table(all, f)?;
        }
    }
    // Windows are used, not the texts that they are made of.
    if plan.rows_used < plan.rows.kept && plan.rows.windows == 0 {
        writeln!(
            f,
            "  {:>9}  used, the first of them (data.limit)",
            plan.rows_used
        )?;
    }
    if let Some(rows) = &plan.text_rows {
        writeln!(f, "  as text of the language-modelling term")?;
        table(rows, f)?;
    }
    if !plan.lengths.is_empty() {
        let each = |s: &Spread| {
            format!(
                "{} {} (median), {} (90 %), {} (longest)",
                s.what, s.median, s.nine_tenths, s.longest
            )
        };
        let all: Vec<String> = plan.lengths.iter().map(each).collect();
        let text = folded(&all.join("; "), "          ", "");
        writeln!(f, "tokens    {}", text.trim_start())?;
    }
    match &plan.held_out {
        Some(held_out) => writeln!(
            f,
            "held out  {} prompts and {} references within the limits, of {} rows",
            held_out.prompts, held_out.references, held_out.read
        ),
        None => writeln!(f, "held out  none: nothing is measured"),
    }
}

fn table(rows: &Rows, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "  {:>9}  read", rows.read)?;
    for left_out in &rows.left_out {
        let example = left_out.example.as_ref();
        let example = example.map(|place| format!(": {place}{}", more(left_out.rows)));
        writeln!(
            f,
            "  {:>9}  left out {}{}",
            left_out.rows,
            left_out.reason,
            example.unwrap_or_default()
        )?;
    }
    let windows = match rows.split_texts {
        0 => String::new(),
        texts => format!(
            ", {texts} texts of them split into {} windows",
            rows.windows
        ),
    };
    writeln!(f, "  {:>9}  kept{windows}", rows.kept)
}

fn more(rows: usize) -> &'static str {
    match rows {
        1 => "",
        _ => ", …",
    }
}

fn cost(plan: &Plan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let until = match plan.ended_by_tokens {
        true => " or so, until train.tokens is reached,",
        false => "",
    };
    let steps = format!(
        "{}{until} of {} rows, {:.1} times over the rows; about {:.0} tokens each, sequences of at \
         most {} tokens",
        plan.steps, plan.batch, plan.epochs, plan.tokens_per_step, plan.longest
    );
    writeln!(
        f,
        "steps     {}",
        folded(&steps, "          ", "").trim_start()
    )?;
    for (name, all, parts) in [
        ("memory", plan.memory_bytes(), &plan.memory),
        ("disk", plan.disk_bytes(), &plan.disk),
    ] {
        writeln!(f, "{name:<9} about {}", bytes(all))?;
        for part in parts {
            writeln!(f, "  {:>9}  {}", bytes(part.bytes), part.what)?;
        }
    }
    let mut parts = vec![format!(
        "{} steps of {}",
        plan.steps,
        span(plan.seconds_per_step)
    )];
    if plan.seconds_before > 0.0 {
        parts.insert(
            0,
            format!("{} before the first step", span(plan.seconds_before)),
        );
    }
    if plan.evaluations > 0 {
        parts.push(format!(
            "{} evaluations of {}",
            plan.evaluations,
            span(plan.seconds_per_evaluation)
        ));
    }
    writeln!(f, "time      about {}: {}\n", plan.time, parts.join(", "))
}

/// What stands above a row.
fn heading(row: &Rendered) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(row.place.as_ref().map(Place::to_string));
    words.extend(row.what.clone());
    words.push(format!("prompt {} tokens", row.prompt_tokens));
    if row.response.is_some() {
        let eos = match row.ends_with_eos {
            Some(false) => "without EOS",
            _ => "EOS among them",
        };
        words.push(format!("trained on {} tokens, {eos}", row.response_tokens));
    }
    words.join(", ")
}

fn warnings(warnings: &[Warning], colours: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let count = |level: Level| warnings.iter().filter(|w| w.level == level).count();
    let (serious, notes) = (count(Level::Warning), count(Level::Note));
    let words = match (serious, notes) {
        (0, 0) => "none".to_owned(),
        (0, notes) => format!("none, {}", counted(notes, "note")),
        (serious, 0) => serious.to_string(),
        (serious, notes) => format!("{serious}, and {}", counted(notes, "note")),
    };
    write!(
        f,
        "{}",
        Style::Heading.paint(&format!("warnings  {words}"), colours)
    )?;
    for warning in warnings {
        let (mark, style) = match warning.level {
            Level::Warning => ("!", Style::Warning),
            Level::Note => ("·", Style::Aside),
        };
        let places: Vec<String> = warning.examples.iter().map(Place::to_string).collect();
        let what = match places.is_empty() {
            true => warning.what.clone(),
            false => format!("{} (for example {})", warning.what, places.join(" and ")),
        };
        let text = folded(&what, "    ", "");
        write!(
            f,
            "\n  {} {}",
            style.paint(mark, colours),
            text.trim_start()
        )?;
        write!(f, "\n{}", folded(&warning.fix, "      ", "→ "))?;
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// Prose in lines after `indent`, the first of them with `mark` in the indent's last places.
fn folded(text: &str, indent: &str, mark: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    let place = indent.len() - mark.chars().count().min(indent.len());
    let text = lines.join("\n");
    match mark {
        "" => text,
        mark => format!("{}{mark}{}", &indent[..place], &text[indent.len()..]),
    }
}

/// `1.2 GB`.
pub fn bytes(count: u64) -> String {
    match count as f64 {
        count if count >= 1e9 => format!("{:.1} GB", count / 1e9),
        count => format!("{:.1} MB", count / 1e6),
    }
}

/// A time as people say it: `3 d 4 h`, `2 h 5 min`, `3 min`, `20 s`, `2.1 s`, `0.02 s`.
pub fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round();
    let hours = (seconds / 3600.0).round();
    match seconds {
        seconds if seconds < 0.095 => format!("{seconds:.2} s"),
        seconds if seconds < 9.95 => format!("{seconds:.1} s"),
        seconds if seconds < 89.5 => format!("{seconds:.0} s"),
        _ if minutes < 90.0 => format!("{minutes:.0} min"),
        _ if hours < 48.0 => format!(
            "{:.0} h {:.0} min",
            (minutes / 60.0).floor(),
            minutes % 60.0
        ),
        _ => format!("{:.0} d {:.0} h", (hours / 24.0).floor(), hours % 24.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(bytes(1_234_567), "1.2 MB");
        assert_eq!(bytes(2_500_000_000), "2.5 GB");
        for (seconds, words) in [
            (0.0, "0.00 s"),
            (0.021, "0.02 s"),
            (2.14, "2.1 s"),
            (20.4, "20 s"),
            (89.4, "89 s"),
            (89.6, "1 min"),
            (181.0, "3 min"),
            (7500.0, "2 h 5 min"),
            (7199.0, "2 h 0 min"),
            (273_600.0, "3 d 4 h"),
        ] {
            assert_eq!(span(seconds), words);
        }
    }

    #[test]
    fn prose_is_folded_between_words() {
        let text = "word ".repeat(40);
        let lines = folded(text.trim(), "      ", "→ ");
        assert!(lines.starts_with("    → word"), "{lines}");
        assert!(lines.lines().count() > 1);
        assert!(
            lines
                .lines()
                .skip(1)
                .all(|line| line.starts_with("      word"))
        );
        assert!(lines.lines().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(folded("", "  ", ""), "  ");
    }

    #[test]
    fn warnings_stand_with_their_place_and_their_fix() {
        let warning = Warning {
            name: "x",
            level: Level::Warning,
            what: "2 rows are odd".into(),
            rows: Some(2),
            examples: vec![Place {
                path: "/d/x.jsonl".into(),
                line: 3,
            }],
            fix: "mend them".into(),
        };
        let note = Warning {
            level: Level::Note,
            examples: Vec::new(),
            ..warning.clone()
        };
        struct Shown<'a>(&'a [Warning], bool);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                super::warnings(self.0, self.1, f)
            }
        }
        assert_eq!(
            Shown(&[warning.clone(), note], false).to_string(),
            "warnings  1, and 1 note\n  ! 2 rows are odd (for example d/x.jsonl:3)\n    → mend them\n  \
             · 2 rows are odd\n    → mend them"
        );
        assert_eq!(Shown(&[], false).to_string(), "warnings  none");
        assert!(
            Shown(&[warning], true)
                .to_string()
                .contains("\x1b[33m!\x1b[0m")
        );
    }
}
