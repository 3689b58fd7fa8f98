//! The screen: from the run and the user's choices to cells.
//!
//! Colours only repeat what a word, a sign or a place says already.

use distil::record::{Live, Standing};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Block, Borders, Widget};

use super::curve::{Curve, meaning, unit};
use super::panels;
use super::plot::{Labels, plot};
use super::run::Run;
use super::state::{Choices, KEYS, State, View};
use super::text::{clip, flat, width};

/// The smallest screen that has room for the numbers and a curve.
const SMALLEST: (u16, u16) = (40, 10);

/// From this width on, more curves stand beside the one that was chosen.
const WIDE: u16 = 110;

/// What is worth a place beside it.
const BESIDE: [&str; 5] = [
    "loss",
    "reward",
    "kl_k3",
    "gradient_norm",
    "tokens_per_second",
];

/// Draws the screen, and returns how many lines its text can be scrolled at most.
pub(crate) fn draw(buffer: &mut Buffer, state: &State, run: &Run, colours: bool) -> u16 {
    let screen = Screen {
        state,
        run,
        stage: run.stage(state.stage),
        choices: run.choices(state),
        colours,
    };
    let area = buffer.area;
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!(
            "The terminal is too small: {} by {}, at least {} by {} are needed. q ends.",
            area.width, area.height, SMALLEST.0, SMALLEST.1
        );
        let lines = super::text::wrap(&text, area.width.into());
        rows(area, buffer, &lines);
        return 0;
    }
    let alert = panels::alert(run, screen.stage);
    let [head, body, warning, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Fill(1),
        Constraint::Length(alert.is_some().into()),
        Constraint::Length(1),
    ])
    .areas(area);
    screen.head(head, buffer);
    if let Some(alert) = alert {
        let style = screen.style(Color::Yellow).add_modifier(Modifier::BOLD);
        put(warning, buffer, 0, &format!("! {alert}"), style);
    }
    screen.foot(foot, buffer);
    let cells = usize::from(body.width);
    match state.view {
        View::Overview => {
            screen.overview(body, buffer);
            0
        }
        View::Help => screen.text(body, buffer, "keys", &screen.help(cells)),
        View::Warnings => {
            let lines = panels::warnings(screen.stage, cells);
            screen.text(body, buffer, "warnings", &lines)
        }
        View::Samples => {
            let (title, sample) = panels::sample(screen.stage, state, &screen.choices);
            let lines = sample.map_or(vec!["None yet.".into()], |s| panels::whole(s, cells));
            screen.text(body, buffer, &title, &lines)
        }
    }
}

/// What the numbers of the head are, for the help.
const NUMBERS: [(&str, &str); 2] = [
    (
        "tokens/s",
        "response tokens trained on; the median of the newest 50 steps",
    ),
    (
        "left",
        "for the steps to come; evaluations and checkpoints come on top",
    ),
];

/// Words on the left, what they mean on the right.
fn explained(rows: &[(&str, &str)], cells: usize) -> Vec<String> {
    let longest = rows.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    rows.iter()
        .flat_map(|(word, meaning)| {
            let lines = super::text::wrap(meaning, cells.saturating_sub(longest + 2));
            let first = std::iter::once(*word).chain(std::iter::repeat(""));
            let line = |(word, line)| format!("{word:longest$}  {line}");
            first.zip(lines).map(line).collect::<Vec<_>>()
        })
        .collect()
}

struct Screen<'a> {
    state: &'a State,
    run: &'a Run,
    stage: &'a Live,
    choices: Choices,
    colours: bool,
}

impl Screen<'_> {
    fn style(&self, colour: Color) -> Style {
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    /// The keys and what they do, and what the numbers mean.
    fn help(&self, cells: usize) -> Vec<String> {
        let mut rows = [&KEYS[..], &NUMBERS].concat();
        let shown = self.state.shown(&self.choices.curves);
        let curve = shown.map(|name| format!("{}: {}", flat(name), meaning(name)));
        rows.extend(curve.iter().map(|curve| ("the curve", curve.as_str())));
        explained(&rows, cells)
    }

    fn head(&self, area: Rect, buffer: &mut Buffer) {
        let room = usize::from(area.width);
        let mut standing = panels::standing(self.run, self.stage);
        if self.state.paused {
            standing = format!("paused; {standing}");
        } else if self.stage.unread() > LONG {
            standing = format!("reading, {} MB to go", self.stage.unread() >> 20);
        }
        let colour = match self.run.standing {
            Standing::Finished => Color::Green,
            Standing::Running { .. } => Color::Cyan,
            Standing::Stopped { .. } => Color::Yellow,
        };
        let standing = clip(&standing, room);
        let title = panels::title(self.run, self.state, self.stage);
        let title = clip(&title, room.saturating_sub(width(&standing) + 2));
        put(area, buffer, 0, &title, Modifier::BOLD.into());
        let right = Rect {
            x: area.right() - width(&standing).min(room) as u16,
            width: width(&standing).min(room) as u16,
            ..area
        };
        put(
            right,
            buffer,
            0,
            &standing,
            self.style(colour).add_modifier(Modifier::BOLD),
        );
        let progress = panels::progress(self.run, self.stage, room);
        put(area, buffer, 1, &progress, Style::new());
        let numbers = panels::numbers(self.run, self.stage);
        put(
            area,
            buffer,
            2,
            &panels::fitting(&numbers, room),
            Style::new(),
        );
    }

    fn foot(&self, area: Rect, buffer: &mut Buffer) {
        let mut keys = vec!["? help", "q end"];
        match self.state.view {
            View::Overview => {
                keys.extend(["Tab curve", "z newest steps", "n/p sample", "Enter read it"]);
            }
            View::Samples => keys.extend(["Esc back", "n/p sample", "</> evaluation"]),
            View::Warnings | View::Help => keys.push("Esc back"),
        }
        if self.choices.stages > 1 {
            keys.push("[/] stage");
        }
        keys.push(if self.state.paused {
            "Space go on"
        } else {
            "Space pause"
        });
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        let line = panels::fitting(&keys, area.width.into());
        put(area, buffer, 0, &line, Modifier::DIM.into());
    }

    /// Curves above; evaluation and sample below them, if there is room.
    fn overview(&self, area: Rect, buffer: &mut Buffer) {
        let nothing =
            self.stage.metrics().evaluations.is_empty() && self.stage.samples().is_empty();
        let below = match area.height {
            _ if nothing => 0,
            0..14 => 0,
            height => (height * 2 / 5).clamp(6, 16),
        };
        let [curves, below] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(below)]).areas(area);
        self.curves(curves, buffer);
        if below.is_empty() {
            return;
        }
        let [left, right] =
            Layout::horizontal([Constraint::Max(46), Constraint::Fill(1)]).areas(below);
        let left = Rect {
            width: left.width - 1,
            ..left
        };
        let (title, lines) = panels::evaluation(self.stage);
        self.text_from(left, buffer, &title, &lines, 0);
        let (title, sample) = panels::sample(self.stage, self.state, &self.choices);
        let cells = usize::from(right.width);
        let lines = sample.map_or(vec!["None yet.".into()], |s| {
            panels::short(self.stage, s, cells)
        });
        self.text_from(right, buffer, &title, &lines, 0);
    }

    fn curves(&self, area: Rect, buffer: &mut Buffer) {
        let Some(name) = self.state.shown(&self.choices.curves) else {
            let text = format!("No step yet: {}.", self.stage.preparation());
            let lines = super::text::wrap(&text, area.width.into());
            self.text_from(area, buffer, "curves", &lines, 0);
            return;
        };
        let beside: Vec<&str> = BESIDE
            .into_iter()
            .filter(|other| *other != name && self.choices.curves.iter().any(|c| c == other))
            .take(usize::from(area.height / 6).min(3))
            .collect();
        if area.width < WIDE || beside.is_empty() {
            self.curve(area, buffer, name, true);
            return;
        }
        let [left, right] =
            Layout::horizontal([Constraint::Fill(2), Constraint::Fill(1)]).areas(area);
        self.curve(
            Rect {
                width: left.width - 1,
                ..left
            },
            buffer,
            name,
            true,
        );
        let heights = vec![Constraint::Fill(1); beside.len()];
        for (place, name) in Layout::vertical(heights).split(right).iter().zip(beside) {
            self.curve(*place, buffer, name, false);
        }
    }

    fn curve(&self, area: Rect, buffer: &mut Buffer, name: &str, chosen: bool) {
        let newest = self
            .state
            .newest
            .filter(|newest| *newest < self.choices.steps);
        let mut range = String::new();
        if chosen {
            range = match newest {
                None => format!("all {} steps", self.choices.steps),
                Some(newest) => format!("newest {newest} of {} steps", self.choices.steps),
            };
            range.push_str(if self.state.means { ", means" } else { "" });
        }
        let curve = Curve::of(self.stage.metrics(), name, newest);
        let labels = Labels {
            name: &flat(name),
            unit: unit(name),
            range,
            means: self.state.means,
            logarithms: self.state.logarithms,
            colour: self.colours.then_some(Color::Cyan),
        };
        plot(area, buffer, &curve, &labels);
    }

    /// A text with a heading that can be scrolled; returns how far.
    fn text(&self, area: Rect, buffer: &mut Buffer, title: &str, lines: &[String]) -> u16 {
        let most = lines
            .len()
            .saturating_sub(usize::from(area.height.saturating_sub(1)));
        let most = u16::try_from(most).unwrap_or(u16::MAX);
        let scroll = self.state.scroll.min(most);
        let title = match most {
            0 => title.to_owned(),
            _ => format!("{title}, from line {} of {}", scroll + 1, lines.len()),
        };
        self.text_from(area, buffer, &title, lines, scroll.into());
        most
    }

    /// The lines from `first` on, under a heading; an ellipsis where there is no room for all.
    fn text_from(
        &self,
        area: Rect,
        buffer: &mut Buffer,
        title: &str,
        lines: &[String],
        first: usize,
    ) {
        let block = Block::new()
            .borders(Borders::TOP)
            .title(format!(" {title} "));
        let inner = block.inner(area);
        block.render(area, buffer);
        let (room, rest) = (usize::from(inner.height), &lines[first.min(lines.len())..]);
        rows(inner, buffer, rest);
        if rest.len() > room && room > 0 {
            let more = Rect {
                x: inner.right().saturating_sub(2),
                width: 2.min(inner.width),
                ..inner
            };
            put(more, buffer, inner.height - 1, " …", Style::new());
        }
    }
}

/// More bytes than this take a moment to read.
const LONG: u64 = 1 << 20;

/// Puts lines one below the other, as far as there is room.
fn rows(area: Rect, buffer: &mut Buffer, lines: &[String]) {
    for (row, line) in (0..area.height).zip(lines) {
        put(area, buffer, row, line, Style::new());
    }
}

/// Puts a line into a row of the area; what does not fit is cut off.
fn put(area: Rect, buffer: &mut Buffer, row: u16, text: &str, style: Style) {
    if row < area.height {
        let text = clip(text, area.width.into());
        buffer.set_stringn(area.x, area.y + row, text, area.width.into(), style);
    }
}
