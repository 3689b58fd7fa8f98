//! Whole screens of runs in every condition, on every size.

use std::fs;
use std::path::{Path, PathBuf};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;
use tempfile::TempDir;

use super::draw::draw;
use super::run::Run;
use super::state::{State, View};
use super::summary::summary;

const SIZES: [(u16, u16); 8] = [
    (80, 24),
    (120, 40),
    (40, 10),
    (1, 1),
    (39, 9),
    (300, 3),
    (41, 100),
    (110, 14),
];

const CONFIG: &str =
    "[data]\neval = \"dev.jsonl\"\n[method]\nname = \"dpkd\"\n[eval]\nevery = 50\n";

/// A run's folder.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("config.toml", CONFIG);
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("run")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self) -> Run {
        read(&self.path())
    }
}

fn read(path: &Path) -> Run {
    let mut run = Run::open(path).unwrap();
    assert!(run.update(None, u64::MAX));
    run
}

/// A run of 100 steps, of which these are made, with an evaluation at its start.
fn steps(steps: std::ops::RangeInclusive<usize>) -> String {
    let mut text = "{\"step\":0,\"eval\":{\"rouge_l\":0.2,\"forward_kl\":1.0}}\n".to_owned();
    for step in steps {
        let loss = 10.0 / step as f64;
        text.push_str(&format!(
            "{{\"step\":{step},\"steps\":100,\"epoch\":0.25,\"tokens\":{},\"loss\":{loss},\
             \"reward\":-0.5,\"kl_k3\":0.125,\"gradient_norm\":2.0,\"learning_rate\":1e-4,\
             \"tokens_per_second\":41.25,\"seconds\":2.0,\"phases\":{{\"head\":1.0}}}}\n",
            step * 20
        ));
    }
    text
}

fn sample(step: usize, prompt: &str, response: &str) -> String {
    let line = serde_json::json!({
        "step": step, "prompt": prompt, "response": response, "finish_reason": "length"
    });
    format!("{line}\n")
}

/// The screen, line by line.
fn screen(run: &Run, state: &State, (width, height): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| _ = draw(frame.buffer_mut(), state, run, true))
        .unwrap();
    let buffer = terminal.backend().buffer();
    // What stands behind a wide character is no cell of its own.
    let row = |y| {
        let (mut line, mut x) = (String::new(), 0);
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += super::text::width(symbol).max(1) as u16;
        }
        line
    };
    (0..height).map(row).collect()
}

/// Whether all of these are on the screen.
#[track_caller]
fn shows(lines: &[String], words: &[&str]) {
    let text = lines.join("\n");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in\n{text}");
    }
}

fn every_view() -> Vec<State> {
    [View::Overview, View::Samples, View::Warnings, View::Help]
        .into_iter()
        .flat_map(|view| {
            [None, Some(7), Some(usize::MAX)].map(|newest| State {
                view,
                newest,
                means: newest.is_some(),
                logarithms: newest.is_some(),
                sample: newest.unwrap_or(0),
                scroll: if newest.is_some() { u16::MAX } else { 0 },
                ..State::default()
            })
        })
        .collect()
}

/// Nothing that a run can contain is too much for any size.
fn draws_everywhere(run: &Run) {
    for size in SIZES {
        for state in every_view() {
            screen(run, &state, size);
        }
    }
    summary(run);
}

#[test]
fn a_run_in_progress_at_80_by_24() {
    let folder = Folder::new();
    folder.write("metrics.jsonl", &steps(1..=25));
    folder.write("samples.jsonl", &sample(0, "Name a color.", "Blue."));
    let lines = screen(&folder.run(), &State::default(), (80, 24));
    shows(
        &lines,
        &[
            "run  dpkd",
            "running",
            "step 25 of 100",
            " 25 %  2 min 30 s left  epoch 0.25",
            "loss 0.4000  reward -0.5000  kl_k3 0.1250  gradient norm 2.000  41.25 tokens/s",
            " loss 0.4000 nats ",
            "all 25 steps",
            "evaluation of step 0",
            "rouge_l",
            "sample 1 of 1, step 0",
            "prompt: Name a color.",
            "answer: Blue. [cut off",
            "? help",
        ],
    );
    assert!(lines[0].ends_with("running"), "{}", lines[0]);
    assert!(!lines.join("").contains("warning"));
}

#[test]
fn a_wide_screen_shows_more_curves() {
    let folder = Folder::new();
    folder.write("metrics.jsonl", &steps(1..=25));
    let run = folder.run();
    let lines = screen(&run, &State::default(), (120, 40));
    shows(
        &lines,
        &[
            " loss 0.4000 ",
            " reward -0.5000 ",
            " kl_k3 0.1250 ",
            " gradient_norm 2.000 ",
        ],
    );
    let mut state = State::default();
    state.key(KeyCode::Tab.into(), &run.choices(&state));
    let lines = screen(&run, &state, (80, 24));
    shows(&lines, &[" reward -0.5000 "]);
    assert!(!lines.join("").contains(" loss 0.4000 nats ──"));
}

#[test]
fn a_small_screen_keeps_the_numbers_and_a_smaller_one_says_so() {
    let folder = Folder::new();
    folder.write("metrics.jsonl", &steps(1..=25));
    let run = folder.run();
    shows(
        &screen(&run, &State::default(), (40, 10)),
        &[
            "step 25 of 100  25 %  2 min 30 s left",
            "loss 0.4000",
            "? help",
        ],
    );
    let small = screen(&run, &State::default(), (39, 10));
    shows(&small, &["too small: 39 by 10", "40 by 10 are", "q ends"]);
}

#[test]
fn a_run_that_has_not_begun() {
    let folder = Folder::new();
    let run = folder.run();
    shows(
        &screen(&run, &State::default(), (80, 24)),
        &["no step yet", "models and data are read"],
    );
    draws_everywhere(&run);
    folder.write("teacher-samples.partial.jsonl", "");
    let run = folder.run();
    shows(
        &screen(&run, &State::default(), (80, 24)),
        &["the teacher answers"],
    );
    assert_eq!(summary(&run)[0], "run  dpkd: running");
}

#[test]
fn a_run_that_has_ended_and_one_that_has_stopped() {
    let folder = Folder::new();
    folder.write("metrics.jsonl", &steps(1..=100));
    let mut run = folder.run();
    run.standing = distil::record::Standing::Stopped {
        quiet: std::time::Duration::from_secs(3905),
    };
    let lines = screen(&run, &State::default(), (80, 24));
    shows(&lines, &["stopped (no new step for 1 h 05 min)"]);
    folder.write("student/config.json", "{}");
    let run = folder.run();
    let lines = screen(&run, &State::default(), (80, 24));
    shows(&lines, &["finished", "100 %", "steps took 3 min 20 s"]);
}

/// The configuration asks for more steps than its tokens last for.
#[test]
fn a_run_that_ends_by_tokens_has_fewer_steps() {
    let folder = Folder::new();
    let text = format!("{CONFIG}[train]\nsteps = 100\ntokens = 600\n");
    folder.write("config.toml", &text);
    for (made, words) in [(25, "step 25 of about 30 "), (30, "step 30 of 30 ")] {
        folder.write("metrics.jsonl", &steps(1..=made));
        shows(
            &screen(&folder.run(), &State::default(), (80, 24)),
            &[words],
        );
    }
}

#[test]
fn the_change_since_the_start_is_said_in_words_and_signs() {
    let folder = Folder::new();
    let eval = "{\"step\":50,\"eval\":{\"rouge_l\":0.15,\"forward_kl\":0.75,\"new\":1}}\n";
    folder.write("metrics.jsonl", &(steps(1..=50) + eval));
    let lines = screen(&folder.run(), &State::default(), (80, 24));
    let row = |name: &str| {
        lines
            .iter()
            .find(|line| line.starts_with(name))
            .unwrap()
            .clone()
    };
    shows(&lines, &["evaluation of step 50", "since step 0"]);
    shows(&[row("rouge_l")], &["0.1500", "-0.0500 worse"]);
    shows(&[row("forward_kl")], &["0.7500", "-0.2500 better"]);
    shows(&[row("new ")], &["1.000"]);
}

#[test]
fn numbers_that_are_none_leave_gaps() {
    let folder = Folder::new();
    let none =
        "{\"step\":26,\"steps\":100,\"loss\":null,\"seconds\":null,\"gradient_norm\":null}\n";
    folder.write("metrics.jsonl", &(steps(1..=25) + none));
    let run = folder.run();
    shows(
        &screen(&run, &State::default(), (80, 24)),
        &[
            "step 26 of 100",
            "loss none  gradient norm none",
            " loss 0.4000 ",
        ],
    );
    draws_everywhere(&run);
    folder.write("metrics.jsonl", &none.repeat(3));
    draws_everywhere(&folder.run());
    // Not what a run writes, but what somebody may have in a file of this name.
    let odd = "{\"step\":1,\"steps\":-5,\"seconds\":1e300,\"tokens\":1e300,\"loss\":1e308}\n\
               {\"step\":9007199254740993,\"steps\":1e300,\"seconds\":-1,\"loss\":-1e308}\n\
               {\"step\":3}\n{\"loss\":1}\n[]\n";
    folder.write("metrics.jsonl", odd);
    draws_everywhere(&folder.run());
}

#[test]
fn long_warnings_are_cut_and_shown_whole_on_a_screen_of_their_own() {
    let folder = Folder::new();
    let warning = |step: usize, text: &str| {
        format!("{}\n", serde_json::json!({"step": step, "warning": text}))
    };
    let long = format!("first words {} last words", "and more ".repeat(40));
    let lines = steps(1..=25) + &warning(10, "old") + &warning(20, &long) + "nonsense\n";
    folder.write("metrics.jsonl", &lines);
    let run = folder.run();
    let lines = screen(&run, &State::default(), (80, 24));
    shows(
        &lines,
        &["! 2 warnings (w shows all), step 20: first words", "…"],
    );
    let mut state = State::default();
    state.key(KeyCode::Char('w').into(), &run.choices(&state));
    let words = [
        "step 20: first words",
        "last words",
        "step 10: old",
        "1 line of metrics.jsonl cannot be read",
    ];
    shows(&screen(&run, &state, (80, 24)), &words);
    draws_everywhere(&run);
}

#[test]
fn samples_in_every_script_and_with_commands_for_the_terminal() {
    let folder = Folder::new();
    let wide = "日本語の文章です。".repeat(40);
    let lines = sample(0, "old", "old")
        + &sample(50, &wide, &format!("{wide} e\u{301}👩‍👩‍👧 end"))
        + &sample(50, "\u{1b}[2J\u{7}\u{202e}", "\u{1b}]0;title\u{7}a\tb\r\nc")
        + "{\"step\":50}\n{\"st";
    folder.write("samples.jsonl", &lines);
    folder.write("metrics.jsonl", &steps(1..=50));
    let run = folder.run();
    let mut state = State::default();
    shows(
        &screen(&run, &state, (80, 24)),
        &["sample 1 of 2, step 50", "日本語"],
    );
    let press = |state: &mut State, key: KeyCode| _ = state.key(key.into(), &run.choices(state));
    press(&mut state, KeyCode::Enter);
    shows(
        &screen(&run, &state, (80, 24)),
        &["from line 1 of", "prompt:", "日本語", "…"],
    );
    state.scroll = u16::MAX;
    shows(&screen(&run, &state, (80, 24)), &["end [cut off"]);
    press(&mut state, KeyCode::Char('n'));
    shows(
        &screen(&run, &state, (80, 24)),
        &["sample 2 of 2, step 50", "a    b"],
    );
    press(&mut state, KeyCode::Char('<'));
    shows(
        &screen(&run, &state, (80, 24)),
        &["sample 1 of 1, step 0", "old"],
    );
    draws_everywhere(&run);
}

/// At 80 by 24 there are 34 cells for it, of which a template leaves none.
#[test]
fn of_a_prompt_in_a_template_the_question_is_shown() {
    let folder = Folder::new();
    let prompt = |text: &str| {
        format!(
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        )
    };
    let lines = sample(0, &prompt("Which play is the longest?"), "Hamlet.")
        + &sample(0, &prompt("Name a color."), "Blue.");
    folder.write("samples.jsonl", &lines);
    folder.write("metrics.jsonl", &steps(1..=25));
    let run = folder.run();
    let mut state = State::default();
    let lines = screen(&run, &state, (80, 24));
    shows(
        &lines,
        &["  prompt: Which play is the longest?", "answer: Hamlet."],
    );
    assert!(summary(&run).contains(&"  prompt: Which play is the longest?".to_owned()));
    state.key(KeyCode::Enter.into(), &run.choices(&state));
    shows(&screen(&run, &state, (80, 24)), &["Be kind.<|im_end|>"]);
}

#[test]
fn lines_that_cannot_be_read_are_no_secret() {
    let folder = Folder::new();
    folder.write("metrics.jsonl", &(steps(1..=25) + "nonsense\nmore\n"));
    let run = folder.run();
    let words = "2 lines of metrics.jsonl cannot be read";
    shows(
        &screen(&run, &State::default(), (80, 24)),
        &["! 2 lines", words],
    );
    shows(&summary(&run), &[words]);
}

#[test]
fn stages_are_followed_and_chosen() {
    let folder = Folder::new();
    fs::remove_file(folder.path().join("config.toml")).unwrap();
    fs::create_dir(folder.path().join("stages")).unwrap();
    let mut run = folder.run();
    shows(&screen(&run, &State::default(), (80, 24)), &["no step yet"]);
    folder.write("stages/1-sft/config.toml", "[method]\nname = \"sft\"\n");
    folder.write("stages/1-sft/metrics.jsonl", &steps(1..=9));
    run.update(None, u64::MAX);
    shows(
        &screen(&run, &State::default(), (80, 24)),
        &["run/1-sft  sft", "step 9 of 100"],
    );
    folder.write("stages/2-kd/config.toml", "[method]\nname = \"kd\"\n");
    run.update(None, u64::MAX);
    let lines = screen(&run, &State::default(), (80, 24));
    shows(&lines, &["run/2-kd  kd  stage 2 of 2 begun", "no step yet"]);
    let mut state = State::default();
    state.key(KeyCode::Char('[').into(), &run.choices(&state));
    run.update(state.stage, u64::MAX);
    shows(
        &screen(&run, &state, (80, 24)),
        &["run/1-sft  sft  stage 1 of 2", "step 9 of 100"],
    );
    assert!(summary(&run)[0].starts_with("run/2-kd  kd  stage 2 of 2"));
}

#[test]
fn a_run_that_is_resumed_while_it_is_watched() {
    let folder = Folder::new();
    folder.write("metrics.jsonl", &steps(1..=25));
    let mut run = folder.run();
    folder.write("metrics.jsonl", &steps(1..=20));
    run.update(None, u64::MAX);
    shows(
        &screen(&run, &State::default(), (80, 24)),
        &["step 20 of 100", "all 20 steps"],
    );
}

#[test]
fn what_cannot_be_read_is_said_and_what_was_read_stays() {
    let folder = Folder::new();
    folder.write("metrics.jsonl", &steps(1..=25));
    let mut run = folder.run();
    fs::remove_file(folder.path().join("config.toml")).unwrap();
    run.update(None, u64::MAX);
    let lines = screen(&run, &State::default(), (80, 24));
    shows(&lines, &["step 25 of 100", "! ", "config.toml"]);
    draws_everywhere(&run);
}

#[test]
fn all_keys_of_the_help_fit_a_usual_screen() {
    let folder = Folder::new();
    let state = State {
        view: View::Help,
        ..State::default()
    };
    shows(
        &screen(&folder.run(), &state, (80, 24)),
        &["Tab, Right", "q, Ctrl-C"],
    );
    folder.write("metrics.jsonl", &steps(1..=25));
    let words = [
        "Tab, Right",
        "response tokens trained on",
        "loss: What the step minimises",
    ];
    let lines = screen(&folder.run(), &state, (80, 24));
    shows(&lines, &words);
    assert!(!lines.join("").contains("from line"), "{lines:#?}");
}

#[test]
fn the_book_lists_the_keys() {
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/watch.md");
    let book = fs::read_to_string(book).unwrap();
    for (keys, what) in super::state::KEYS {
        let row = format!("| `{keys}` | {what} |");
        assert!(book.contains(&row), "{row}");
    }
}

#[test]
fn without_colours_nothing_is_coloured() {
    let folder = Folder::new();
    folder.write("metrics.jsonl", &steps(1..=25));
    let run = folder.run();
    let coloured = |colours: bool| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let state = State::default();
        terminal
            .draw(|frame| _ = draw(frame.buffer_mut(), &state, &run, colours))
            .unwrap();
        let cells = &terminal.backend().buffer().content;
        cells
            .iter()
            .filter(|cell| cell.fg != ratatui::style::Color::Reset)
            .count()
    };
    assert!(coloured(true) > 0);
    assert_eq!(coloured(false), 0);
}

#[test]
fn a_million_steps_stay_fluid() {
    let folder = Folder::new();
    let lines: String = (1..=1_000_000)
        .map(|step| format!("{{\"step\":{step},\"steps\":2000000,\"loss\":1.5,\"seconds\":1}}\n"))
        .collect();
    folder.write("metrics.jsonl", &lines);
    let mut run = Run::open(&folder.path()).unwrap();
    let mut portions = 1;
    while !run.update(None, 8 << 20) {
        portions += 1;
    }
    assert!(portions > 5, "{portions}");
    let start = std::time::Instant::now();
    for _ in 0..10 {
        screen(&run, &State::default(), (120, 40));
    }
    // Ten screens in the time that two may take, on a machine that is busy and a build without optimisation.
    assert!(start.elapsed().as_secs_f64() < 2.0, "{:?}", start.elapsed());
    shows(
        &screen(&run, &State::default(), (120, 40)),
        &["step 1000000 of 2000000", "11 d 13 h left"],
    );
}
