//! `distil watch` on a terminal and in a pipe, on a folder as a run leaves it.

use crate::home::Home;

/// A step of a run of four.
fn step(number: usize) -> String {
    format!(
        "{{\"step\":{number},\"steps\":4,\"epoch\":0.5,\"tokens\":{},\"loss\":{}.5,\
         \"gradient_norm\":2.0,\"learning_rate\":1e-4,\"tokens_per_second\":40.0,\"seconds\":90.0}}\n",
        10 * number,
        9 - number
    )
}

/// A run of which two steps were made.
fn run() -> Home {
    let home = Home::new();
    std::fs::create_dir(home.path("run")).unwrap();
    home.write("run/config.toml", "[method]\nname = \"kd\"\n");
    let eval = |step: usize, value: f64| {
        format!("{{\"step\":{step},\"eval\":{{\"forward_kl\":{value}}}}}\n")
    };
    let lines = eval(0, 2.0) + &step(1) + &step(2) + &eval(2, 1.5);
    home.write("run/metrics.jsonl", &lines);
    home.write(
        "run/samples.jsonl",
        "{\"step\":2,\"prompt\":\"Hello.\",\"response\":\"Hi!\",\"finish_reason\":\"stop\"}\n",
    );
    home
}

#[test]
fn a_pipe_gets_a_summary() {
    let home = run();
    for arguments in [&["watch", "run"][..], &["watch", "run", "--once"]] {
        let out = home.ok(arguments);
        for words in [
            "run  kd: running\n",
            "step 2 of 4  50 %  3 min 00 s left  epoch 0.50\n",
            "loss 7.500 (first 8.500, lowest 7.500, highest 8.500)\n",
            "evaluation of step 2\n",
            "-0.5000 better\n",
            "sample 1 of 1, step 2\n  prompt: Hello.\n  answer: Hi!\n",
        ] {
            assert!(out.contains(words), "`{words}` is not in: {out}");
        }
        assert!(!out.contains('\x1b'), "{out}");
    }
    home.write("run/metrics.jsonl", "");
    assert!(home.ok(&["watch", "run"]).contains("no step yet"));
}

#[test]
fn what_is_no_run_is_refused() {
    let home = run();
    home.refused(&["watch", "nowhere"], &["nowhere", "no such folder"]);
    home.refused(&["watch", "model"], &["no config.toml", "distil train"]);
    home.write("run/config.toml", "[method");
    home.refused(&["watch", "run"], &["config.toml is damaged"]);
}

/// A run of the program itself has all that is read here.
#[test]
fn a_run_that_was_made_is_finished() {
    let home = Home::new();
    home.configure("name = \"kd\"", "steps = 3");
    home.ok(&["train", "run.toml", "--out", "made"]);
    let out = home.ok(&["watch", "made"]);
    for words in [
        "made  kd: finished\n",
        "step 3 of 3  100 %",
        "steps took ",
        "sample 1 of",
    ] {
        assert!(out.contains(words), "`{words}` is not in: {out}");
    }
}

#[cfg(unix)]
mod on_a_terminal {
    use std::fs::OpenOptions;
    use std::io::{Read, Write};
    use std::num::NonZeroU16;
    use std::process::{Child, Command as Plain};
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    use pty_process::Size;
    use pty_process::blocking::{Command, Pty, open};

    use super::{run, step};
    use crate::home::Home;

    fn not_0(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    /// A program on a terminal, and what the terminal shows.
    struct Terminal {
        pty: Arc<Pty>,
        child: Child,
        output: Receiver<Vec<u8>>,
        parser: vt100::Parser,
    }

    impl Terminal {
        fn new(home: &Home, program: &str, arguments: &[&str]) -> Self {
            let (pty, pts) = open().unwrap();
            pty.resize(Size::new(24, 80)).unwrap();
            let command = Command::new(program)
                .args(arguments)
                .current_dir(home.path(""))
                .env("TERM", "xterm-256color")
                .env_remove("NO_COLOR");
            let child = command.spawn(pts).unwrap();
            let pty = Arc::new(pty);
            let (from, (to, output)) = (Arc::clone(&pty), channel());
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                // Reading fails once nobody has the terminal open any more.
                while let Ok(count @ 1..) = (&*from).read(&mut bytes) {
                    if to.send(bytes[..count].to_vec()).is_err() {
                        break;
                    }
                }
            });
            Self {
                pty,
                child,
                output,
                parser: vt100::Parser::new(not_0(24), not_0(80), 0),
            }
        }

        fn type_in(&self, keys: &str) {
            (&*self.pty).write_all(keys.as_bytes()).unwrap();
        }

        fn resize(&mut self, rows: u16, columns: u16) {
            self.parser.set_size(not_0(rows), not_0(columns));
            self.pty.resize(Size::new(rows, columns)).unwrap();
        }

        /// Waits until these words are on the screen.
        #[track_caller]
        fn until(&mut self, words: &str) {
            let start = Instant::now();
            while !self.parser.screen().contents().contains(words) {
                if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
                    self.parser.process(&bytes);
                }
                assert!(
                    start.elapsed() < Duration::from_secs(60),
                    "`{words}` does not come:\n{}",
                    self.parser.screen().contents()
                );
            }
        }

        /// Waits for the end; the exit status.
        fn end(&mut self) -> Option<i32> {
            let status = self.child.wait().unwrap();
            while let Ok(bytes) = self.output.recv_timeout(Duration::from_secs(5)) {
                self.parser.process(&bytes);
            }
            status.code()
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            let _ = self.child.kill();
        }
    }

    /// A window that is closed takes the program with it, which would otherwise wait for keys of a
    /// terminal that is gone.
    #[test]
    fn a_terminal_that_goes_away_ends_it() {
        let home = run();
        let (pty, pts) = open().unwrap();
        pty.resize(Size::new(24, 80)).unwrap();
        let command = Command::new(env!("CARGO_BIN_EXE_distil"))
            .args(["watch", "run"])
            .current_dir(home.path(""))
            .env("TERM", "xterm-256color");
        let mut child = command.spawn(pts).unwrap();
        let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&shown).contains("loss") {
            let count = (&pty).read(&mut bytes).unwrap();
            shown.extend_from_slice(&bytes[..count]);
        }
        drop(pty);
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("it goes on without a terminal");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_run_is_followed_and_the_terminal_is_left_as_it_was() {
        let home = run();
        let distil = env!("CARGO_BIN_EXE_distil");
        // A shell, to ask afterwards for what the program set.
        let script = "\"$0\" watch run; echo status $?; stty -a";
        let mut terminal = Terminal::new(&home, "sh", &["-c", script, distil]);
        terminal.until("step 2 of 4");
        let metrics = OpenOptions::new()
            .append(true)
            .open(home.path("run/metrics.jsonl"));
        metrics.unwrap().write_all(step(3).as_bytes()).unwrap();
        terminal.until("step 3 of 4");
        terminal.until("1 min 30 s left");
        let screen = terminal.parser.screen();
        assert!(screen.alternate_screen() && screen.hide_cursor());
        terminal.type_in("\t");
        terminal.until("gradient_norm 2.000");
        terminal.type_in("?");
        terminal.until("Shift-Tab");
        terminal.resize(5, 30);
        terminal.until("too small");
        terminal.resize(30, 120);
        terminal.until("Shift-Tab");
        terminal.type_in("\x1b");
        terminal.until("answer: Hi!");
        std::fs::create_dir(home.path("run/student")).unwrap();
        terminal.until("finished");
        terminal.type_in("q");
        assert_eq!(terminal.end(), Some(0));
        let screen = terminal.parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
        let text = screen.contents();
        assert!(text.contains("status 0"), "{text}");
        for set in [" icanon", " echo ", " isig"] {
            assert!(
                text.replace('\n', " ").contains(set),
                "{set} is not set: {text}"
            );
        }
    }

    #[test]
    fn a_signal_leaves_the_terminal_as_it_was() {
        let home = run();
        let mut terminal = Terminal::new(&home, env!("CARGO_BIN_EXE_distil"), &["watch", "run"]);
        terminal.until("step 2 of 4");
        let pid = terminal.child.id().to_string();
        assert!(Plain::new("kill").arg(pid).status().unwrap().success());
        assert_eq!(terminal.end(), Some(1));
        let screen = terminal.parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
    }
}
