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
    assert!(html.contains("There are no evaluations with intervals"));

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
