//! Reports of runs in every state: whole, cut off, without a file, with names that are markup.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::report;
use super::thin::{Column, MOST, extremes};

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn run(home: &Path, name: &str, method: &str) -> PathBuf {
    let path = home.join(name);
    let config = format!(
        "[teacher]\nmodel = \"t\"\n[data]\ntrain = [\"a.jsonl\"]\n[method]\nname = \"{method}\"\n"
    );
    write(&path, "config.toml", &config);
    path
}

fn steps(count: usize, line: impl Fn(usize) -> String) -> String {
    (1..=count).map(|step| line(step) + "\n").collect()
}

/// An evaluation of 40 rows whose ROUGE-L is `center` give or take what the row makes of it.
fn evaluation(path: &Path, center: f64) {
    let interval = format!("[{}, {}]", center - 0.05, center + 0.05);
    let file = format!(
        "{{\"name\": \"dolly\", \"model\": \"{}/student\", \"data_sha256\": \"x\", \"rows\": 40,
          \"runs\": [{{\"seed\": 10, \"temperature\": 1.0}}],
          \"metrics\": {{\"rouge_l\": {{\"by_seed\": [{center}], \"mean\": {center}, \"interval\": {interval}}}}}}}",
        path.display()
    );
    write(path, "evaluations/dolly.json", &file);
    let row = |row: usize| {
        let value = center + 0.2 * ((row % 5) as f64 - 2.0) / 2.0 + 0.002 * (row % 3) as f64;
        format!("{{\"run\":0,\"row\":{row},\"metrics\":{{\"rouge_l\":{value}}}}}")
    };
    write(path, "evaluations/dolly.answers.jsonl", &steps(40, row));
}

/// Every tag that is opened is closed in its place.
fn is_balanced(html: &str) {
    const EMPTY: [&str; 12] = [
        "meta", "link", "br", "input", "path", "circle", "rect", "!DOCTYPE", "hr", "img", "line",
        "use",
    ];
    let body = html.split("<body>").nth(1).unwrap();
    let body = body.split("<script>").next().unwrap();
    let mut open: Vec<&str> = Vec::new();
    for tag in body.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag
            .split([' ', '\n', '/'])
            .find(|part| !part.is_empty())
            .unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            let last = open.pop();
            assert!(
                last == Some(closed) || closed == "circle",
                "</{closed}> closes {last:?}"
            );
            if closed == "circle" {
                open.extend(last);
            }
        } else if !EMPTY.contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn a_reader_learns_which_student_is_better_and_how_sure_that_is() {
    let home = tempfile::tempdir().unwrap();
    let [a, b, c] = ["good", "bad", "other"].map(|name| run(home.path(), name, "kd"));
    evaluation(&a, 0.30);
    evaluation(&b, 0.28);
    evaluation(&c, 0.30);
    let html = report(&[a.clone(), b.clone(), c]).unwrap();
    is_balanced(&html);
    // The two intervals overlap; the pairs do not.
    let sure = |winner: &str, loser: &str| {
        let part = html.split(&format!(">{winner}</b> is better than ")).nth(1);
        part.is_some_and(|part| {
            part.split("</strong>")
                .next()
                .unwrap()
                .contains(&format!(">{loser}</b>"))
        })
    };
    assert!(sure("good", "bad") && sure("other", "bad"));
    assert!(!sure("bad", "good") && !sure("good", "other"));
    assert!(html.contains("Not decided between "), "good and other");
    assert!(html.contains("the same 40 rows answered by both"));

    // Numbers of the runs alone are no evidence.
    for (path, value) in [(&a, 0.3), (&b, 0.2)] {
        fs::remove_dir_all(path.join("evaluations")).unwrap();
        write(
            path,
            "eval.json",
            &format!("{{\"student\": {{\"rouge_l\": {value}}}}}"),
        );
    }
    let html = report(&[a, b]).unwrap();
    assert!(html.contains("No evidence between ") && !html.contains(" is better than "));
    assert!(html.contains("distil eval ") && html.contains("/evaluations/test.json"));
}

/// `<b class="best"` marks numbers, and names in the table of differences.
fn marks(html: &str) -> usize {
    html.matches("title=\"better than all others: ").count()
}

#[test]
fn the_best_number_is_marked_only_where_it_is_sure() {
    let home = tempfile::tempdir().unwrap();
    let [a, b, c] = ["good", "bad", "other"].map(|name| run(home.path(), name, "kd"));
    evaluation(&a, 0.30);
    evaluation(&b, 0.28);
    evaluation(&c, 0.30);
    for path in [&a, &b] {
        write(
            path,
            "eval.json",
            "{\"start\": {\"rouge_l\": 0.1}, \"student\": {\"rouge_l\": 0.3}}",
        );
    }
    let html = report(&[a.clone(), b.clone()]).unwrap();
    assert_eq!(marks(&html), 1);
    assert!(html.contains(" by ROUGE-L of sampled answers on dolly: "));
    assert!(html.contains("Each was trained once: this is about these two students"));
    assert!(html.contains("leaves out 0\">0.300</b>") && html.contains(">good better</b>"));
    assert!(html.contains("Marked is a number that is better than all others"));
    let html = report(&[a.clone(), b.clone(), c]).unwrap();
    assert_eq!(marks(&html), 0, "good and other are alike");
    let html = report(std::slice::from_ref(&a)).unwrap();
    assert!(!html.contains("class=\"best\"") && !html.contains("Marked is"));
}

/// A run of a method and seed, with its own numbers and an evaluation.
fn seeded(home: &Path, method: &str, seed: usize, center: f64) -> PathBuf {
    let path = home.join(format!("{method}-{seed}"));
    let config =
        format!("seed = {seed}\n[teacher]\nmodel = \"t\"\n[method]\nname = \"{method}\"\n");
    write(&path, "config.toml", &config);
    let line = |step| {
        format!(
            "{{\"step\":{step},\"loss\":{}.5,\"phases\":{{\"teacher\":1}}}}",
            step + seed
        )
    };
    write(&path, "metrics.jsonl", &steps(5, line));
    let end =
        format!("{{\"start\": {{\"rouge_l\": 0.1}}, \"student\": {{\"rouge_l\": {center}}}}}");
    write(&path, "eval.json", &end);
    evaluation(&path, center);
    path
}

/// The main metric decides the sentence; what the others say stands below it.
#[test]
fn the_other_metrics_are_told_by_whom_they_favour() {
    let home = tempfile::tempdir().unwrap();
    let evaluated = |name: &str, chrf: f64, tvd: f64, tokens: f64| {
        let path = seeded(home.path(), name, 0, 0.2);
        let of = |value: f64| {
            format!(
                "{{\"mean\": {value}, \"interval\": [{}, {}]}}",
                value - 0.1,
                value + 0.1
            )
        };
        let file = format!(
            "{{\"name\": \"dolly\", \"rows\": 40, \"metrics\": {{\"rouge_l\": {}, \"chrf\": {}, \
              \"tvd\": {}, \"response_tokens\": {}}}}}",
            of(0.2),
            of(chrf),
            of(tvd),
            of(tokens)
        );
        write(&path, "evaluations/dolly.json", &file);
        path
    };
    let paths = [
        evaluated("long", 9.0, 0.5, 40.0),
        evaluated("short", 5.0, 0.2, 20.0),
    ];
    let html = report(&paths).unwrap();
    for said in [
        "Not decided between ",
        "Other metrics: long-0 is better by chrF2; short-0 is better by TVD.",
        "Answers have 40 against 20 tokens",
    ] {
        assert!(html.contains(said), "{said}");
    }
}

#[test]
fn runs_that_differ_in_their_seed_are_one_student() {
    let home = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (seed, (kd, sft)) in [(0.30, 0.20), (0.32, 0.21), (0.31, 0.19)]
        .into_iter()
        .enumerate()
    {
        paths.push(seeded(home.path(), "kd", seed, kd));
        paths.push(seeded(home.path(), "sft", seed, sft));
    }
    let html = report(&paths).unwrap();
    is_balanced(&html);
    for said in [
        "<title>kd and sft, 6 runs</title>",
        "(3 training seeds)",
        "kd-0 (seed 0), kd-1 (seed 1), kd-2 (seed 2)",
        "<h3>Over training seeds: dolly</h3>",
        "<h3>Over training seeds: measured by the runs themselves</h3>",
        // s = 0.01, so 4.303 · 0.01 / √3.
        ">0.310</b> ± 0.025<small>3 runs: 0.300, 0.320, 0.310</small>",
        // Welch: 2.776 · 0.01 · √(2/3) around 0.11.
        "Over training seeds it is, with 95 % confidence, +0.087 to +0.133, which leaves out 0 (3 runs against 3 runs)",
        "+0.087 to +0.133, over seeds",
        "Over the rows it is, with 95 % confidence, ",
    ] {
        assert!(html.contains(said), "{said}");
    }
    // In the evaluation's means, and in the runs' own.
    assert_eq!(marks(&html), 2);
    let loss = html.split("<h4>loss</h4>").nth(1).unwrap();
    let loss = loss.split("</figure>").next().unwrap();
    let entries = |name: &str| loss.matches(&format!(">{name}</text>")).count();
    assert_eq!((entries("kd"), entries("sft"), entries("kd-0")), (1, 1, 0));
    assert_eq!(
        loss.matches("class=\"line\" data-name=\"kd\"").count(),
        1,
        "the mean"
    );

    // Evaluated is one run of each: the others say nothing of that evaluation.
    for path in &paths[2..] {
        std::fs::remove_dir_all(path.join("evaluations")).unwrap();
    }
    let html = report(&paths).unwrap();
    assert!(!html.contains("<h3>Over training seeds: dolly</h3>"));
    assert!(html.contains("Not all training runs were evaluated (kd has 3 runs, sft has 3)"));
    // But the runs measured something themselves.
    assert!(html.contains(" by ROUGE-L of greedy answers on the runs' own held-out rows: "));
    assert!(html.contains("<h3>Over training seeds: measured by the runs themselves</h3>"));
    assert_eq!(marks(&html), 2);

    // Seeds that scatter widely decide nothing, whatever rows say.
    let mut paths = Vec::new();
    for (seed, (kd, sft)) in [(0.20, 0.20), (0.40, 0.21)].into_iter().enumerate() {
        paths.push(seeded(home.path(), "kd", seed, kd));
        paths.push(seeded(home.path(), "sft", seed, sft));
    }
    let html = report(&paths).unwrap();
    assert!(html.contains("Not decided between ") && !html.contains(" is better than <"));
    assert!(html.contains("More training seeds would narrow this."));
    assert_eq!(marks(&html), 0);
}

#[test]
fn thirty_runs_stay_readable_and_small() {
    let home = tempfile::tempdir().unwrap();
    let methods = [
        "sft", "kd", "seqkd", "gkd", "distillm", "minillm", "llmr", "dpkd", "pbkd", "mm_pbkd",
    ];
    let mut paths = Vec::new();
    for (place, method) in methods.into_iter().enumerate() {
        for seed in 0..3 {
            let center = 0.2 + 0.01 * place as f64 + 0.002 * seed as f64;
            let path = seeded(home.path(), method, seed, center);
            let line = |step: usize| {
                let keys = (0..30).map(|key| format!(",\"key_{key}\":{}", step * (key + seed + 2)));
                format!("{{\"step\":{step}{}}}", keys.collect::<String>())
            };
            write(&path, "metrics.jsonl", &steps(700, line));
            paths.push(path);
        }
    }
    let html = report(&paths).unwrap();
    is_balanced(&html);
    assert!(html.len() < 4_000_000, "{} bytes", html.len());
    assert!(html.contains("<title>10 students, 30 runs</title>"));
    let plot = html.split("<h4>key 7</h4>").nth(1).unwrap();
    let plot = plot.split("</figure>").next().unwrap();
    assert_eq!(
        plot.matches("class=\"line\" data-name").count(),
        10,
        "a line a method"
    );
    // Students are rows, not columns.
    let evaluation = html.split("<h3>Evaluation: dolly</h3>").nth(1).unwrap();
    let row = evaluation
        .split("<tr>")
        .find(|row| row.contains(">kd-1</b>"))
        .unwrap();
    assert_eq!(row.matches("<td>").count(), 1, "one metric: {row}");
    // Nine pairs: each with the best.
    assert_eq!(html.matches("<li><strong").count(), 9);
}

/// Of BLEU, all answers of a draw are counted together.
#[test]
fn metrics_of_a_corpus_are_compared_on_the_same_rows() {
    let home = tempfile::tempdir().unwrap();
    let of = |name: &str, answer: &str| {
        let path = run(home.path(), name, name);
        let file = "{\"name\": \"mt\", \"data_sha256\": \"x\", \"runs\": [{\"seed\": null}],
            \"metrics\": {\"sacrebleu\": {\"greedy\": 50.0, \"greedy_interval\": [1, 99]}}}";
        write(&path, "evaluations/mt.json", file);
        let line = |row: usize| {
            format!(
                "{{\"run\":0,\"row\":{row},\"response\":\"{answer} {row}\",\"references\":[\"one two three four five {row}\"]}}"
            )
        };
        write(&path, "evaluations/mt.answers.jsonl", &steps(30, line));
        path
    };
    let html = report(&[
        of("kd", "one two three four five"),
        of("sft", "one two three five four"),
    ])
    .unwrap();
    assert!(html.contains("the same 30 rows answered by both"));
    assert!(
        html.contains(">kd</b> is better than "),
        "the intervals alone do not say so"
    );
}

#[test]
fn many_warnings_and_a_long_text_stay_readable() {
    let home = tempfile::tempdir().unwrap();
    let path = run(home.path(), "a", "kd");
    let line = |step| format!("{{\"step\":{step},\"warning\":\"short\"}}");
    write(&path, "metrics.jsonl", &steps(70, line));
    write(&path, "evaluations/e.json", "{}");
    let tokens = vec!["\"a\""; 7000].join(",");
    let line = format!("{{\"row\":0,\"source\":\"student\",\"tokens\":[{tokens}]}}");
    write(&path, "evaluations/e.tokens.jsonl", &line);
    let html = report(&[path]).unwrap();
    assert_eq!(html.matches(": short</li>").count(), 50);
    assert!(html.contains("20 more of its warnings are in metrics.jsonl"));
    assert_eq!(html.matches(">a</span>").count(), 6000);
}

#[test]
fn runs_with_different_metrics_are_laid_side_by_side() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (run(home.path(), "a", "llmr"), run(home.path(), "b", "kd"));
    let line = |step| {
        format!(
            "{{\"step\":{step},\"loss\":1.5,\"reward\":{step},\"kl_k3\":0.5,\"phases\":{{\"rollout\":1}}}}"
        )
    };
    write(&a, "metrics.jsonl", &steps(5, line));
    let line =
        |step| format!("{{\"step\":{step},\"loss\":2.5,\"divergence\":null,\"strange\":{step}}}");
    write(&b, "metrics.jsonl", &steps(5, line));
    write(&a, "eval.json", "{\"student\": {\"rouge_l\": 0.5}}");
    write(&b, "eval.json", "{\"student\": {\"forward_kl\": 0.5}}");
    let html = report(&[a, b]).unwrap();
    is_balanced(&html);
    assert!(html.contains("have no metric in common"));
    for title in ["loss", "strange", "a"] {
        assert!(
            html.contains(&format!("<figure><h4>{title}</h4>")),
            "{title}"
        );
    }
    assert!(
        !html.contains("<h4>divergence</h4>"),
        "a column without numbers has no plot"
    );
    assert!(html.contains("(right axis)"), "reward and KL share a plot");
    assert!(
        html.contains("<code>method.name</code>"),
        "the keys that differ"
    );
    assert!(
        !html.contains("<code>teacher.model</code>"),
        "and those alone"
    );
}

#[test]
fn whatever_a_run_left_is_shown() {
    let home = tempfile::tempdir().unwrap();
    let bare = run(home.path(), "bare", "sft");
    let html = report(std::slice::from_ref(&bare)).unwrap();
    is_balanced(&html);
    assert!(html.contains("has no step in its metrics.jsonl"));
    assert!(html.contains("The run has not ended"));
    assert!(html.contains("There are no evaluations with intervals over rows"));

    let cut = run(home.path(), "cut", "sft");
    let lines = "{\"step\":1,\"steps\":9,\"loss\":2.0}\nnoise\n{\"step\":2,\"loss\":null}\n{\"step\":2,\"warning\":\"<short>\"}\n{\"step\":3,\"lo";
    write(&cut, "metrics.jsonl", lines);
    write(&cut, "eval.json", "{\"start\"");
    write(
        &cut,
        "samples.jsonl",
        "{\"step\":0,\"prompt\":\"p\",\"response\":\"\",\"finish_reason\":\"length\"}\n{",
    );
    write(&cut, "evaluations/half.json", "{\"name\":");
    write(&cut, "evaluations/empty.json", "{}");
    let html = report(&[cut, bare]).unwrap();
    is_balanced(&html);
    for said in [
        "step 2 of 9 is the last one logged",
        "1 line of metrics.jsonl could not be read",
        "half.json is left out",
        "&lt;short&gt;",
        "(nothing)",
        "cut off at the length limit",
    ] {
        assert!(html.contains(said), "{said}");
    }
    let error = report(&[home.path().join("none")]).unwrap_err();
    assert!(error.is_input(), "{error}");
}

#[test]
fn nothing_from_a_file_becomes_markup() {
    const EVIL: &str = "<script>alert('1')</script>\\\"&";
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("<script>x & \"y\"");
    let config = format!(
        "[teacher]\nmodel = \"{EVIL}\"\n[data]\ntrain = [\"{EVIL}\"]\n[method]\nname = \"{EVIL}\"\n\"{EVIL}\" = 1\n"
    );
    write(&path, "config.toml", &config);
    let metrics = format!(
        "{{\"step\":1,\"{EVIL}\":1.5,\"phases\":{{\"{EVIL}\":1}},\"logit_gradients\":{{\"{EVIL}\":1}}}}\n\
         {{\"step\":1,\"eval\":{{\"{EVIL}\":1}}}}\n{{\"step\":1,\"warning\":\"{EVIL}\"}}\n"
    );
    write(&path, "metrics.jsonl", &metrics);
    write(
        &path,
        "environment.json",
        &format!("{{\"{EVIL}\":\"{EVIL}\",\"sha256\":{{\"{EVIL}\":\"{EVIL}\"}}}}"),
    );
    write(
        &path,
        "eval.json",
        &format!("{{\"start\":{{\"{EVIL}\":1}},\"student\":{{\"{EVIL}\":2}}}}"),
    );
    let sample = format!(
        "{{\"step\":0,\"prompt\":\"{EVIL}\",\"response\":\"{EVIL}\",\"finish_reason\":\"{EVIL}\"}}"
    );
    write(&path, "samples.jsonl", &sample);
    let measured = format!("{{\"{EVIL}\":{{\"value\":1,\"interval\":[0,2]}}}}");
    let file = format!(
        "{{\"name\":\"{EVIL}\",\"model\":\"{EVIL}\",\"teacher\":\"{EVIL}\",\"data\":\"{EVIL}\",\"precision\":\"{EVIL}\",
         \"metrics\":{measured},\"buckets\":[{{\"from\":0,\"metrics\":{measured}}}],
         \"exposure_bias\":{{\"lengths\":[1],\"ex_error_percent\":[1],\"by_position\":{{\"student_prefix\":[1,2]}}}}}}"
    );
    write(&path, "evaluations/e.json", &file);
    let answer = format!(
        "{{\"run\":0,\"row\":0,\"prompt\":\"{EVIL}\",\"response\":\"{EVIL}\",\"tokens\":2,\"references\":[\"{EVIL}\"],
         \"metrics\":{{\"rouge_l\":0.5,\"reward\":1,\"{EVIL}\":1}}}}"
    );
    write(
        &path,
        "evaluations/e.answers.jsonl",
        &answer.replace('\n', ""),
    );
    let tokens = format!(
        "{{\"row\":0,\"source\":\"{EVIL}\",\"tokens\":[\"{EVIL}\"],\"logprobs\":[-1],\"teacher_logprobs\":[-2],\"reward\":[3]}}"
    );
    write(&path, "evaluations/e.tokens.jsonl", &tokens);
    for runs in [vec![path.clone()], vec![path.clone(), path]] {
        let html = report(&runs).unwrap();
        assert_eq!(html.matches("<script").count(), 1, "its own");
        assert_eq!(html.matches("</script").count(), 1);
        is_balanced(&html);
        assert!(
            html.matches("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;")
                .count()
                > 15
        );
    }
}

/// 100 000 steps from a file; a million are tested on columns in `thin.rs` and below.
#[test]
fn a_long_run_gives_a_small_report() {
    const STEPS: usize = 100_000;
    let home = tempfile::tempdir().unwrap();
    let path = run(home.path(), "long", "llmr");
    let line = |step: usize| {
        let wave = (step as f64 * 0.7).sin();
        let keys = [
            "loss",
            "reward",
            "kl_k3",
            "gradient_norm",
            "student_entropy",
            "ratio",
        ];
        let keys: String = keys
            .iter()
            .map(|key| format!(",\"{key}\":{wave}"))
            .collect();
        format!("{{\"step\":{step}{keys}}}")
    };
    let mut text = steps(STEPS, line);
    text = text.replacen("\"loss\":", "\"loss\":1000.5,\"was\":", 1);
    write(&path, "metrics.jsonl", &text);
    let start = Instant::now();
    let html = report(&[path]).unwrap();
    assert!(html.len() < 500_000, "{} bytes", html.len());
    assert!(html.contains("Of 100\u{202f}000 steps, a curve has about 600 points"));
    // Minutes would mean that something is quadratic.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

#[test]
fn a_million_steps_make_a_plot_of_a_few_thousand_bytes() {
    use super::plot::{Axis, Curve, Plot};
    let steps: Vec<usize> = (1..=1_000_000).collect();
    let values: Vec<f64> = steps.iter().map(|&step| (step as f64).sin()).collect();
    let column = Column {
        offset: 0,
        steps: &steps,
        values: &values,
    };
    let plot = Plot {
        x: Axis::of("step"),
        curves: vec![Curve {
            line: extremes(column, MOST),
            ..Curve::default()
        }],
        ..Plot::default()
    };
    let svg = plot.svg();
    // Forty such curves in three runs stay far below 5 MB.
    assert!(svg.len() < 15_000, "{} bytes", svg.len());
    assert!(svg.contains(">1M</text>"));
}
