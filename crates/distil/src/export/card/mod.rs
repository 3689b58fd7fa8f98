//! The model card: what a student is, what it was made of and how, what was measured, and what was not.
//!
//! It is the `README.md` of the student's folder, in the form that the Hugging Face hub shows
//! (<https://huggingface.co/docs/hub/model-cards>): facts as YAML between two lines `---`, then
//! Markdown. It holds what the run's folder holds and nothing else. No folder of the machine is named,
//! and no licence is guessed.

mod evaluations;
mod markup;
mod names;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::eval::metric::{Better, METRIC_NAMES, metric};
use crate::method::about::about;
use crate::record::Record;
use markup::{block, cell, code, count, number, yaml};

/// The card's file in a model's folder.
pub const FILE: &str = "README.md";

/// The cards of a run's student, or of those of a schedule's stages, as they are now: with the
/// evaluations that stand in the run's folder. Each with its path.
///
/// # Errors
/// [`Error::Run`] if there is no student yet; [`Error::Read`] if the run's folder or the student's
/// weights cannot be read.
pub fn cards(run: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut cards = Vec::new();
    for folder in Record::folders(run) {
        let record = Record::read(&folder)?;
        let student = folder.join("student");
        if !record.finished {
            continue;
        }
        let runs: &[&Path] = match folder == run {
            true => &[run],
            false => &[&folder, run],
        };
        let text = text(&record, &evaluations::of(&student, runs)?);
        // A schedule's own student is the last stage's, and appears when all are done.
        let whole = run.join("student");
        if folder != run && whole.exists() && Some(&folder) == Record::folders(run).last() {
            cards.push((whole.join(FILE), text.clone()));
        }
        cards.push((student.join(FILE), text));
    }
    match cards.is_empty() {
        true => Err(Error::Run {
            path: run.to_owned(),
            what: "there is no student yet, so there is no card".into(),
            fix: "wait until the run has ended, or go on with it by distil train --resume".into(),
        }),
        false => Ok(cards),
    }
}

/// The card of a run that has just ended.
pub(crate) fn at_the_end(record: &Record) -> String {
    text(record, &[])
}

fn text(record: &Record, measured: &[Value]) -> String {
    let mut chain = stages_before(record);
    chain.push(record.clone());
    [
        front_matter(&chain),
        introduction(&chain),
        data(&chain),
        results(record, measured),
        usage(record),
        making(&chain),
        limits(record, measured),
        licence(&chain),
    ]
    .join("\n")
}

/// The stages that came before this one, if it is one of a schedule.
fn stages_before(record: &Record) -> Vec<Record> {
    let whole = std::fs::canonicalize(&record.path).unwrap_or_else(|_| record.path.clone());
    let stages = whole.parent().filter(|parent| parent.ends_with("stages"));
    let Some(run) = stages.and_then(Path::parent) else {
        return Vec::new();
    };
    let before = Record::folders(run)
        .into_iter()
        .take_while(|stage| *stage != whole);
    before.filter_map(|s| Record::read(&s).ok()).collect()
}

fn front_matter(chain: &[Record]) -> String {
    let mut out = String::from(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n\
         # license: to be filled in, see \"Licence\" below\n",
    );
    let hub: Vec<String> = unique(models(chain).filter_map(|model| names::on_the_hub(&model)));
    match hub.is_empty() {
        true => {
            out +=
                "# base_model: to be filled in with the teacher's name on the hub, if it has one\n"
        }
        false => {
            out += &list("base_model", &hub);
            // The hub takes a model with several of them for a merge.
            out += "base_model_relation: finetune\n";
        }
    }
    let methods = chain.iter().map(|record| record.method().to_owned());
    let tags = ["distillation", "distil"].map(str::to_owned);
    out += &list("tags", &unique(tags.into_iter().chain(methods)));
    out += "# datasets: to be filled in with their names on the hub, if they have any; the files stand below\n";
    out + "---\n"
}

/// A key of YAML with a list of texts; nothing for an empty one.
fn list(key: &str, values: &[String]) -> String {
    if values.is_empty() {
        return String::new();
    }
    let lines = values.iter().map(|value| format!("- {}\n", yaml(value)));
    format!("{key}:\n{}", lines.collect::<String>())
}

/// Each text once, in the order in which it first came.
fn unique(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for text in texts {
        if !out.contains(&text) {
            out.push(text);
        }
    }
    out
}

/// The models that a student comes from: teachers, and what students started from.
fn models(chain: &[Record]) -> impl Iterator<Item = String> {
    let tables = chain.iter().flat_map(|record| {
        let of = |table| record.text(table, "model").map(str::to_owned);
        [of("teacher"), of("student")]
    });
    tables
        .flatten()
        .filter(|model| names::stage(model).is_none())
}

fn introduction(chain: &[Record]) -> String {
    let Some(record) = chain.last() else {
        return String::new();
    };
    let teacher = record.text("teacher", "model").map(names::model);
    let (title, verb) = match &teacher {
        Some(teacher) => (
            format!("Student of {}", code(teacher)),
            format!("distilled from {}", code(teacher)),
        ),
        None => ("A fine-tuned model".to_owned(), "trained".to_owned()),
    };
    let mut out = format!("# {title}\n\nA language model, {verb} by distil.");
    match chain {
        [_] => out += &format!(" Method: {}.\n", method(record)),
        _ => {
            out += " In stages, each from the student of the one before:\n\n";
            for (index, stage) in chain.iter().enumerate() {
                out += &format!("{}. {}\n", index + 1, method(stage));
            }
        }
    }
    if let Some(first) = chain.first() {
        out += &format!("\nThe student began as {}.\n", beginning(first));
    }
    let models = &record.environment["models"];
    let row = |what: &str| {
        let cell = |model: &str| models[model][what].as_u64().map_or("–".to_owned(), count);
        format!("| {what} | {} | {} |\n", cell("teacher"), cell("student"))
    };
    if models.is_object() {
        out += "\n| | teacher | student |\n|---|---|---|\n";
        out += &["layers", "width", "parameters"].map(row).concat();
    }
    out
}

/// The method's name, and where it comes from.
fn method(record: &Record) -> String {
    match about(record.method()) {
        Some(about) => format!(
            "{} ({}; {})",
            about.title,
            code(about.name),
            with_links(about.paper)
        ),
        None => code(record.method()),
    }
}

/// What the student was before its first step.
fn beginning(record: &Record) -> String {
    let student = record.config.get("student");
    let prune = student.and_then(|student| student.get("prune"));
    if let Some(layers) = prune.and_then(|prune| prune.get("layers")) {
        return format!("{layers} evenly spaced layers of the teacher");
    }
    if let Some(keep) = prune.and_then(|prune| prune.get("keep")) {
        return format!("the layers {keep} of the teacher, counted from 0");
    }
    match record.text("student", "model") {
        Some(model) => code(&names::model(model)),
        None => "its configuration says".to_owned(),
    }
}

/// `arXiv 2406.19774` as a link.
fn with_links(paper: &str) -> String {
    let mut parts = paper.split("arXiv ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, rest) = part.split_at(end.unwrap_or(part.len()));
        out += &format!("[arXiv {number}](https://arxiv.org/abs/{number}){rest}");
    }
    out
}

fn data(chain: &[Record]) -> String {
    let mut out = String::from("## Data\n\n| file | used for | sha256 |\n|---|---|---|\n");
    let uses = [
        ("train", "training"),
        ("corpus", "training"),
        ("eval", "measuring"),
    ];
    let rows = chain.iter().flat_map(|record| {
        uses.iter().flat_map(move |(key, used)| {
            let row = move |path: &str| {
                let digest = record.environment["sha256"][path].as_str();
                let (file, digest) = (names::file(path), digest.map_or("–".to_owned(), code));
                format!("| {} | {used} | {digest} |\n", cell(&file))
            };
            names::paths(record, key).into_iter().map(row)
        })
    });
    out += &unique(rows).concat();
    let Some(record) = chain.last() else {
        return out;
    };
    let rows = &record.environment["rows"];
    if let (Some(used), Some(read)) = (rows["used"].as_u64(), rows["read"].as_u64()) {
        let (used, read) = (count(used), count(read));
        out += &format!("\n{used} of {read} training rows were used.\n");
    }
    let limit = |key: &str| record.config.get("data").and_then(|data| data.get(key));
    if let (Some(prompt), Some(response)) =
        (limit("max_prompt_tokens"), limit("max_response_tokens"))
    {
        out += &format!("\nPrompts have at most {prompt} tokens, responses at most {response}.\n");
    }
    out
}

fn results(record: &Record, measured: &[Value]) -> String {
    let mut out = String::from("## Results\n\n");
    let object = |key: &str| -> BTreeMap<String, f64> {
        let object = record.eval[key].as_object();
        let numbers = object.into_iter().flatten();
        numbers
            .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)))
            .collect()
    };
    let (start, student) = (object("start"), object("student"));
    if student.is_empty() && measured.is_empty() {
        return out + "Nothing was measured.\n";
    }
    if !student.is_empty() {
        out += &format!(
            "During {}{}, answers greedy:\n\n\
             | metric | start | student | better | |\n|---|---|---|---|---|\n",
            match names::stage(record.text("student", "model").unwrap_or_default()) {
                Some(_) => "this last stage",
                None => "training",
            },
            held_out(record)
        );
        let place = |name: &str| METRIC_NAMES.iter().position(|known| *known == name);
        let mut names: Vec<&String> = student.keys().collect();
        names.sort_by_key(|name| place(name).unwrap_or(METRIC_NAMES.len()));
        for name in names {
            let value = |of: &BTreeMap<String, f64>| {
                of.get(name).map_or("–".to_owned(), |&value| number(value))
            };
            let known = metric(name);
            let better = match known.and_then(|metric| metric.better) {
                Some(Better::Higher) => "higher",
                Some(Better::Lower) => "lower",
                None => "–",
            };
            out += &format!(
                "| {} | {} | {} | {better} | {} |\n",
                cell(name),
                value(&start),
                value(&student),
                known.map_or(String::new(), |m| m.meaning.replace('|', "\\|"))
            );
        }
    }
    for evaluation in measured {
        out += &format!("\n{}", evaluations::section(evaluation));
    }
    out
}

/// On which rows the run was measured.
fn held_out(record: &Record) -> String {
    let rows = &record.environment["held_out"];
    let counts = (rows["prompts"].as_u64(), rows["references"].as_u64());
    let file = names::paths(record, "eval").first().map(|p| names::file(p));
    match (counts, file) {
        ((Some(prompts), Some(references)), Some(file)) => format!(
            ", on {} prompts and {} references of {}",
            count(prompts),
            count(references),
            code(&file)
        ),
        (_, Some(file)) => format!(", on rows of {}", code(&file)),
        _ => String::new(),
    }
}

fn usage(record: &Record) -> String {
    let template = record.text("data", "template").unwrap_or("chat");
    let (note, prompt) = match template {
        "chat" => (
            String::new(),
            "messages = [{\"role\": \"user\", \"content\": \"What is a tide?\"}]\n\
             inputs = tokenizer.apply_chat_template(\n    \
             messages, add_generation_prompt=True, return_tensors=\"pt\", return_dict=True\n)\n",
        ),
        "alpaca" => (
            "Prompts were in the Alpaca template, which it expects:\n\n".to_owned(),
            "prompt = \"…\"  # in that template\ninputs = tokenizer(prompt, return_tensors=\"pt\")\n",
        ),
        jinja => (
            format!(
                "Prompts were rendered by this template, which it expects:\n\n{}\n",
                block("jinja", jinja)
            ),
            "prompt = \"…\"  # as that template renders it\n\
             inputs = tokenizer(prompt, return_tensors=\"pt\")\n",
        ),
    };
    let python = format!(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         folder = \"student\"  # this folder\n\
         tokenizer = AutoTokenizer.from_pretrained(folder)\n\
         model = AutoModelForCausalLM.from_pretrained(folder)\n\
         {prompt}\
         output = model.generate(**inputs, max_new_tokens=128)\n\
         answer = output[0, inputs[\"input_ids\"].shape[1]:]\n\
         print(tokenizer.decode(answer, skip_special_tokens=True))\n"
    );
    format!(
        "## How to use it\n\n{note}{}\nOr by distil, with this folder's name:\n\n{}",
        block("python", &python),
        block("sh", "distil chat student")
    )
}

fn making(chain: &[Record]) -> String {
    let mut out = String::from("## How it was made\n\n");
    if let Some(record) = chain.last() {
        let text = |key: &str| record.environment[key].as_str();
        out += &format!("By distil {}", text("version").unwrap_or("–"));
        if let Some(commit) = text("commit") {
            out += &format!(", commit {}", code(commit));
        }
        if let Some(device) = text("device") {
            out += &format!(", on {device}");
        }
        out += ".\n\n";
    }
    out += "| run | method | steps | response tokens | seconds of training | of preparation |\n\
            |---|---|---|---|---|---|\n";
    for record in chain {
        let whole = |key: &str| record.eval[key].as_u64().map_or("–".to_owned(), count);
        let seconds = |key: &str| {
            let seconds = record.eval[key].as_f64();
            seconds.map_or("–".to_owned(), |seconds| format!("{seconds:.1}"))
        };
        out += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            cell(&record.name),
            cell(record.method()),
            whole("steps"),
            whole("tokens"),
            seconds("training_seconds"),
            seconds("preparation_seconds"),
        );
    }
    if let Some(record) = chain.last()
        && let (Some(of), Some(steps)) = (
            record.eval["student_step"].as_u64(),
            record.eval["steps"].as_u64(),
        )
        && of != steps
    {
        out += &format!(
            "\nThe student is the best checkpoint, of step {}.\n",
            count(of)
        );
    }
    for record in chain {
        out += &format!(
            "\n<details>\n<summary>The configuration{}</summary>\n\n{}\n</details>\n",
            match chain.len() {
                1 => String::new(),
                _ => format!(" of {}", escaped(&record.name)),
            },
            block("toml", &names::configuration(record))
        );
    }
    out
}

/// A text in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn limits(record: &Record, measured: &[Value]) -> String {
    let mut out = String::from("## Limits\n\n");
    let in_training = record.eval["student"]
        .as_object()
        .is_some_and(|o| !o.is_empty());
    out += match (in_training, measured.is_empty()) {
        (false, true) => "- Nothing was measured, neither its quality nor its safety.\n",
        _ => {
            "- Measured is what stands under Results, on those rows, and nothing else: no other tasks or \
             languages, not whether what it says is true, not whether it is safe.\n"
        }
    };
    if in_training {
        out += "- The numbers measured during training are of one run, without intervals.\n";
        let best = record.config.get("train").and_then(|t| t.get("keep_best"));
        if best.and_then(toml::Value::as_bool) == Some(true) {
            out += "- The same rows chose the best checkpoint, so its numbers on them are somewhat too good.\n";
        }
    }
    out += "- Prompts and responses that are longer than those it was trained on are new to it.\n";
    if record.text("teacher", "model").is_some() {
        out += "- It learned from its teacher, whose mistakes and biases it may share.\n";
    }
    out
}

fn licence(chain: &[Record]) -> String {
    let mut out = String::from(
        "## Licence\n\nTo be filled in by whoever passes it on, here and as `license:` at the head. The \
         licences of what it was made of apply:\n\n",
    );
    for model in unique(models(chain)) {
        let licence = match names::licence(&model) {
            Some(licence) => format!("{licence}, as distil's catalogue has it"),
            None => "not known to distil".to_owned(),
        };
        out += &format!(
            "- the weights of {}: {licence}\n",
            code(&names::model(&model))
        );
    }
    let files = chain.iter().flat_map(|record| {
        let train = names::paths(record, "train");
        train.into_iter().chain(names::paths(record, "corpus"))
    });
    let files = unique(files.map(names::file));
    if !files.is_empty() {
        let files: Vec<String> = files.iter().map(|file| code(file)).collect();
        out += &format!("- the data, {}: not known to distil\n", files.join(", "));
    }
    out
}

#[cfg(test)]
mod tests;
