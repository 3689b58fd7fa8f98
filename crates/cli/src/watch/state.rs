//! What the user chose to see, and how keys change it. Knows nothing of files and terminals.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Steps that are shown when the user asks for the newest ones.
const NEWEST: usize = 100;

/// Fewer steps than this are not worth a plot.
const FEWEST: usize = 10;

/// The keys, for the help and the book.
pub(crate) const KEYS: [(&str, &str); 15] = [
    ("Tab, Right", "next curve; Shift-Tab, Left: the one before"),
    ("z", "all steps, or the newest 100"),
    ("+, -", "half as many steps, twice as many"),
    (
        "s",
        "lowest to highest of the steps of a column, or their mean",
    ),
    ("l", "logarithmic scale, and back"),
    ("n, p", "next sample, sample before"),
    ("<, >", "samples of the evaluation before, after"),
    ("Enter", "samples on the whole screen, and back"),
    ("w", "warnings on the whole screen, and back"),
    (
        "Up, Down",
        "scroll a text that is too long; also PageUp, PageDown",
    ),
    ("[, ]", "stage before, after"),
    ("Space", "stop reading the run's files, and go on"),
    ("r", "read the run's files now"),
    ("?", "this help, and back"),
    ("q, Ctrl-C", "end; Esc: back, or end"),
];

/// What fills the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum View {
    #[default]
    Overview,
    Samples,
    Warnings,
    Help,
}

/// The user's choices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) view: View,
    /// Name of the curve; none is the first there is.
    pub(crate) curve: Option<String>,
    /// Only so many of the newest steps.
    pub(crate) newest: Option<usize>,
    /// Means instead of extremes.
    pub(crate) means: bool,
    /// Logarithms instead of values.
    pub(crate) logarithms: bool,
    /// Which of the samples of an evaluation.
    pub(crate) sample: usize,
    /// The step of the evaluation whose samples are shown; none is the newest.
    pub(crate) evaluation: Option<usize>,
    /// Lines of a long text that are scrolled away.
    pub(crate) scroll: u16,
    /// Index of the stage; none is the newest, whichever that is.
    pub(crate) stage: Option<usize>,
    pub(crate) paused: bool,
}

/// What there is to choose from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Choices {
    /// Names of the curves.
    pub(crate) curves: Vec<String>,
    /// Optimiser steps so far.
    pub(crate) steps: usize,
    /// Steps of the evaluations with samples, in order.
    pub(crate) evaluations: Vec<usize>,
    /// Samples of the evaluation that is shown.
    pub(crate) samples: usize,
    pub(crate) stages: usize,
}

/// What is to be done after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Show the state.
    Show,
    /// Read the files first.
    Read,
    End,
}

impl State {
    /// The name of the curve that is shown, if there is any.
    pub(crate) fn shown<'a>(&self, curves: &'a [String]) -> Option<&'a str> {
        curves.get(self.place(curves)).map(String::as_str)
    }

    fn place(&self, curves: &[String]) -> usize {
        let same = |name: &String| curves.iter().position(|curve| curve == name);
        self.curve.as_ref().and_then(same).unwrap_or(0)
    }

    /// Takes in a key.
    pub(crate) fn key(&mut self, key: KeyEvent, choices: &Choices) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Show;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Wish::End,
            _ if control => {}
            KeyCode::Char('q') => return Wish::End,
            KeyCode::Esc if self.view == View::Overview => return Wish::End,
            KeyCode::Esc => self.turn_to(View::Overview),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.toggle(View::Help),
            KeyCode::Char('w') => self.toggle(View::Warnings),
            KeyCode::Enter => self.toggle(View::Samples),
            KeyCode::Tab | KeyCode::Right => self.turn(&choices.curves, 1),
            KeyCode::BackTab | KeyCode::Left => self.turn(&choices.curves, -1),
            KeyCode::Char('z') => {
                self.newest = match self.newest {
                    None => Some(NEWEST),
                    Some(_) => None,
                }
            }
            KeyCode::Char('+' | '=') => {
                let shown = self.newest.unwrap_or(choices.steps).min(choices.steps);
                self.newest = Some((shown / 2).max(FEWEST));
            }
            KeyCode::Char('-') => {
                let twice = self.newest.map(|newest| newest.saturating_mul(2));
                self.newest = twice.filter(|&newest| newest < choices.steps);
            }
            KeyCode::Char('s') => self.means = !self.means,
            KeyCode::Char('l') => self.logarithms = !self.logarithms,
            KeyCode::Char('n') => self.page(choices.samples, 1),
            KeyCode::Char('p') => self.page(choices.samples, -1),
            KeyCode::Char('<' | ',') => self.evaluation(&choices.evaluations, -1),
            KeyCode::Char('>' | '.') => self.evaluation(&choices.evaluations, 1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(10),
            KeyCode::Home => self.scroll = 0,
            KeyCode::Char('[') => return self.stage(choices.stages, -1),
            KeyCode::Char(']') => return self.stage(choices.stages, 1),
            KeyCode::Char(' ') => {
                self.paused = !self.paused;
                return match self.paused {
                    true => Wish::Show,
                    false => Wish::Read,
                };
            }
            KeyCode::Char('r') => return Wish::Read,
            _ => {}
        }
        Wish::Show
    }

    fn toggle(&mut self, view: View) {
        let now = self.view;
        self.turn_to(if now == view { View::Overview } else { view });
    }

    fn turn_to(&mut self, view: View) {
        (self.view, self.scroll) = (view, 0);
    }

    /// Another curve, in a circle.
    fn turn(&mut self, curves: &[String], by: isize) {
        if !curves.is_empty() {
            let place = around(self.place(curves), by, curves.len());
            self.curve = Some(curves[place].clone());
        }
    }

    /// Another sample, in a circle.
    fn page(&mut self, samples: usize, by: isize) {
        if samples > 0 {
            self.sample = around(self.sample.min(samples - 1), by, samples);
            self.scroll = 0;
        }
    }

    /// An earlier or later evaluation; the newest is followed.
    fn evaluation(&mut self, evaluations: &[usize], by: isize) {
        let Some(newest) = evaluations.len().checked_sub(1) else {
            return;
        };
        let same = |step| evaluations.iter().position(|e| *e == step);
        let place = self.evaluation.and_then(same).unwrap_or(newest);
        let place = place.saturating_add_signed(by).min(newest);
        self.evaluation = (place < newest).then(|| evaluations[place]);
        self.scroll = 0;
    }

    /// An earlier or later stage; the newest is followed. Steps and samples of another stage are
    /// others.
    fn stage(&mut self, stages: usize, by: isize) -> Wish {
        let newest = stages.saturating_sub(1);
        let place = self.stage.unwrap_or(newest).min(newest);
        let place = place.saturating_add_signed(by).min(newest);
        self.stage = (place < newest).then_some(place);
        (self.evaluation, self.sample, self.scroll) = (None, 0, 0);
        Wish::Read
    }
}

/// One place on or back in a circle.
fn around(place: usize, by: isize, count: usize) -> usize {
    (place as isize + by).rem_euclid(count as isize) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices() -> Choices {
        Choices {
            curves: ["loss", "reward", "seconds"].map(str::to_owned).to_vec(),
            steps: 1000,
            evaluations: vec![0, 50, 100],
            samples: 4,
            stages: 3,
        }
    }

    fn press(state: &mut State, code: KeyCode) -> Wish {
        state.key(KeyEvent::new(code, KeyModifiers::NONE), &choices())
    }

    fn type_in(state: &mut State, keys: &str) {
        for key in keys.chars() {
            press(state, KeyCode::Char(key));
        }
    }

    #[test]
    fn the_program_ends_by_q_escape_and_control_c() {
        let mut state = State::default();
        assert_eq!(press(&mut state, KeyCode::Char('q')), Wish::End);
        assert_eq!(press(&mut state, KeyCode::Char('c')), Wish::Show);
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(state.key(key, &choices()), Wish::End);
        type_in(&mut state, "?");
        assert_eq!(state.view, View::Help);
        assert_eq!(
            press(&mut state, KeyCode::Esc),
            Wish::Show,
            "out of the help"
        );
        assert_eq!(state.view, View::Overview);
        assert_eq!(press(&mut state, KeyCode::Esc), Wish::End);
        let mut released = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(state.key(released, &choices()), Wish::Show);
    }

    #[test]
    fn curves_turn_in_a_circle_and_are_known_by_name() {
        let mut state = State::default();
        let all = choices().curves;
        assert_eq!(state.shown(&all), Some("loss"));
        press(&mut state, KeyCode::Left);
        assert_eq!(state.shown(&all), Some("seconds"));
        press(&mut state, KeyCode::Tab);
        press(&mut state, KeyCode::Tab);
        assert_eq!(state.shown(&all), Some("reward"));
        let more = ["kl", "loss", "reward"].map(str::to_owned);
        assert_eq!(state.shown(&more), Some("reward"), "another came before it");
        assert_eq!(state.shown(&more[..2]), Some("kl"), "it is gone");
        assert_eq!(state.shown(&[]), None);
        state.key(KeyCode::Tab.into(), &Choices::default());
        assert_eq!(state.shown(&all), Some("reward"), "nothing to turn to");
    }

    #[test]
    fn the_range_is_halved_doubled_and_whole_again() {
        let mut state = State::default();
        type_in(&mut state, "z");
        assert_eq!(state.newest, Some(100));
        type_in(&mut state, "z");
        assert_eq!(state.newest, None);
        type_in(&mut state, "++");
        assert_eq!(state.newest, Some(250));
        type_in(&mut state, "--");
        assert_eq!(state.newest, None, "1000 is all");
        type_in(&mut state, "++++++++++++");
        assert_eq!(state.newest, Some(FEWEST));
        type_in(&mut state, "--------------------");
        assert_eq!(state.newest, None);
    }

    #[test]
    fn samples_are_paged_and_evaluations_end_with_the_newest() {
        let mut state = State::default();
        type_in(&mut state, "p");
        assert_eq!(state.sample, 3);
        type_in(&mut state, "nn");
        assert_eq!(state.sample, 1);
        type_in(&mut state, "<");
        assert_eq!(state.evaluation, Some(50));
        type_in(&mut state, "<<<<");
        assert_eq!(state.evaluation, Some(0));
        type_in(&mut state, ">>>");
        assert_eq!(state.evaluation, None, "the newest is followed");
        for key in ['n', 'p', '<', '>', '[', ']', '+', '-'] {
            state.key(KeyCode::Char(key).into(), &Choices::default());
        }
        assert_eq!(state.evaluation, None, "nothing to choose from");
    }

    #[test]
    fn the_newest_stage_is_followed_until_another_is_chosen() {
        let mut state = State::default();
        assert_eq!(press(&mut state, KeyCode::Char('[')), Wish::Read);
        assert_eq!(state.stage, Some(1));
        type_in(&mut state, "[[[");
        assert_eq!(state.stage, Some(0));
        type_in(&mut state, "]]]");
        assert_eq!(state.stage, None);
    }

    #[test]
    fn a_pause_ends_with_a_look_at_the_files() {
        let mut state = State::default();
        assert_eq!(press(&mut state, KeyCode::Char(' ')), Wish::Show);
        assert!(state.paused);
        assert_eq!(press(&mut state, KeyCode::Char(' ')), Wish::Read);
        assert!(!state.paused);
    }

    #[test]
    fn scrolling_begins_anew_with_another_text() {
        let mut state = State::default();
        press(&mut state, KeyCode::Enter);
        assert_eq!(state.view, View::Samples);
        press(&mut state, KeyCode::PageDown);
        press(&mut state, KeyCode::Up);
        assert_eq!(state.scroll, 9);
        type_in(&mut state, "n");
        assert_eq!(state.scroll, 0);
    }
}
