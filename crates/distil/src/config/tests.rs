//! The three stages together, as `distil train` runs them.

use super::keys::{METHODS, split};
use super::*;

const SMALL: &str = "
[teacher]
model = \"smollm2-135m-instruct\"
[student]
prune = { layers = 16 }
[data]
train = \"train.jsonl\"
[method]
name = \"dpkd\"
";

fn parse(text: &str, overrides: &[&str]) -> Result<Config> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::parse(text, Path::new("/base/run.toml"), &overrides)
}

#[track_caller]
fn refused(overrides: &[&str], parts: &[&str]) {
    let error = parse(SMALL, overrides).unwrap_err();
    assert!(matches!(error, Error::Config { .. }) && error.is_input());
    for part in parts {
        assert!(
            error.to_string().contains(part),
            "`{part}` is not in: {error}"
        );
    }
}

/// Configurations that between them use every key and every variant.
fn samples() -> Vec<Config> {
    let full = [
        "seed=7",
        "teacher.precision=bf16",
        "student.precision=bf16",
        "student.sampling_precision=f32",
        "data.eval=/d/dev.jsonl",
        "data.limit=9",
        "data.template={{ prompt }}\n\"x\" \\ é",
        "data.on_bad_row=skip",
        "train.steps=30",
        "train.tokens=5000",
        "train.batch=8",
        "train.learning_rate=3e-4",
        "train.schedule=linear",
        "train.warmup_steps=5",
        "train.min_learning_rate_ratio=0.1",
        "train.weight_decay=0",
        "train.beta1=0.8",
        "train.beta2=0.95",
        "train.epsilon=1e-10",
        "train.clip_norm=0",
        "train.checkpoint_every=11",
        "train.keep_last=3",
        "train.keep_best=false",
        "train.micro_batch_tokens=9999",
        "eval.every=0",
        "eval.metrics=[\"response_tokens\", \"rouge_l\"]",
        "eval.rows=5",
        "eval.samples=0",
        "eval.batch=2",
        "eval.max_new_tokens=17",
        "method.beta=0.30000000000000004",
        "method.label_smoothing=0.1",
        "method.length_normalize=false",
        "method.lm_weight=0.5",
        "method.lm_source=corpus",
        "data.corpus=[\"/c/a.txt\", \"/c/b.txt\"]",
        "method.max_new_tokens=99",
        "method.temperature=0.7",
        "method.top_k=40",
        "method.top_p=0.9",
    ];
    let sft = SMALL.replace("[teacher]\nmodel = \"smollm2-135m-instruct\"\n", "");
    vec![
        parse(SMALL, &[]).unwrap(),
        parse(SMALL, &full).unwrap(),
        parse(SMALL, &["method.form=token", "method.ce_share=0.25", "student.prune.keep=[0, 3, 29]"]).unwrap(),
        parse(SMALL, &["method={name=\"kd\", ce_share=0.5, divergence_temperature=2}", "train.epochs=0.1"]).unwrap(),
        parse(SMALL, &["method={name=\"seqkd\", samples_per_prompt=4, temperature=0.5, top_k=1, top_p=0.5}"]).unwrap(),
        parse(SMALL, &["method={name=\"kd\", divergence=\"symmetric_kl\", symmetric_share=0.9}"]).unwrap(),
        parse(SMALL, &["method={name=\"kd\", divergence=\"tvd\", responses=\"teacher\", temperature=0.5}"]).unwrap(),
        parse(SMALL, &["method={name=\"kd\", divergence=\"akl\", akl_head_mass=0.7}"]).unwrap(),
        parse(SMALL, &["method={name=\"gkd\", jsd_beta=0.1, student_share=0.9}", "teacher.cache=true"]).unwrap(),
        parse(SMALL, &["method.name=distillm", "data.eval=/d/dev.jsonl"]).unwrap(),
        parse(SMALL, &["method={name=\"distillm\", divergence=\"skew_reverse_kl\", skew_alpha=0.2}", "data.eval=/d/dev.jsonl"]).unwrap(),
        parse(SMALL, &["method={name=\"minillm\", teacher_mix=0, single_step=false}"]).unwrap(),
        parse(SMALL, &["method={name=\"dpkd\", loss=\"ipo\", ipo_tau=0.3, reference=\"none\"}"]).unwrap(),
        parse(SMALL, &["method={name=\"dpkd\", loss=\"cpo\", pairs=\"data\"}"]).unwrap(),
        parse(SMALL, &["method={name=\"dpkd\", loss=\"simpo\"}"]).unwrap(),
        parse(SMALL, &["method={name=\"dpkd\", form=\"token\", token_loss=\"ipo\"}"]).unwrap(),
        parse(SMALL, &["method={name=\"llmr\", value=\"soft\", templates=[\"chat\", \"Say: {{ prompt }}\"]}"]).unwrap(),
        parse(SMALL, &["method={name=\"pbkd\", judge_noise=0.5}"]).unwrap(),
        parse(SMALL, &["method={name=\"pbkd\", mode=\"offline\", pairs=\"data\"}"]).unwrap(),
        parse(SMALL, &["method.name=mm_pbkd"]).unwrap(),
        parse(&sft, &["method.name=sft", "student.model=/models/x.gguf", "data.eval=/d/dev.jsonl"]).unwrap(),
    ]
}

#[test]
fn resolved_reads_back_as_the_same_configuration() {
    let folder = tempfile::tempdir().unwrap();
    // A folder named like the teacher must not turn its name into a path.
    std::fs::create_dir(folder.path().join("smollm2-135m-instruct")).unwrap();
    let path = folder.path().join("config.toml");
    for config in samples() {
        let text = config.to_toml();
        std::fs::write(&path, &text).unwrap();
        let again = Config::from_resolved(&path).unwrap();
        assert_eq!(again, config, "{text}");
        assert_eq!(again.to_toml(), text);
    }
}

#[test]
fn the_file_written_by_hand_holds_what_serde_would_write() {
    for config in samples() {
        let written: toml::Table = toml::from_str(&config.to_toml()).unwrap();
        let mut expected = toml::Table::try_from(&config).unwrap();
        expected
            .entry("teacher")
            .or_insert(toml::Table::new().into());
        assert_eq!(written, expected);
    }
}

/// The value at a dotted path.
fn at<'a>(table: &'a toml::Table, path: &str) -> Option<&'a toml::Value> {
    let (parent, name) = split(path);
    let table = if parent.is_empty() {
        table
    } else {
        at(table, parent)?.as_table()?
    };
    table.get(name)
}

#[test]
fn every_key_is_used_and_every_listed_default_is_the_one_that_holds() {
    let used: Vec<toml::Table> = samples()
        .iter()
        .map(|config| toml::from_str(&config.to_toml()).unwrap())
        .collect();
    for key in KEYS {
        assert!(
            used.iter().any(|table| at(table, key.path).is_some()),
            "no sample has {}",
            key.path
        );
        let Preset::Value(default) = key.default else {
            continue;
        };
        let methods = match key.owner {
            Owner::Every => METHODS,
            Owner::Of(names) => names,
        };
        let default: toml::Table = toml::from_str(&format!("value = {default}")).unwrap();
        for name in methods {
            let overrides = [&format!("method.name={name}"), "data.eval=/d/dev.jsonl"];
            let config = parse(SMALL, &overrides).unwrap();
            let table: toml::Table = toml::from_str(&config.to_toml()).unwrap();
            // A key that other choices have no use for is not in the file.
            if let Some(value) = at(&table, key.path) {
                assert_eq!(Some(value), default.get("value"), "{} of {name}", key.path);
            }
        }
    }
}

#[test]
fn derived_defaults() {
    let config = parse(
        SMALL,
        &[
            "data.max_response_tokens=77",
            "data.eval=/d/dev.jsonl",
            "eval.every=20",
        ],
    )
    .unwrap();
    let Method::Dpkd(Dpkd {
        form: DpkdForm::Sequence(form),
        ..
    }) = &config.method
    else {
        panic!()
    };
    assert_eq!(
        (
            config.method.rollout().unwrap().max_new_tokens,
            form.lm_source
        ),
        (77, LmSource::Teacher)
    );
    assert_eq!(config.eval.max_new_tokens, 77);
    assert_eq!(config.eval.metrics, ["forward_kl", "rouge_l"]);
    assert_eq!(config.eval.best_metric.as_deref(), Some("forward_kl"));
    assert_eq!(
        (config.train.checkpoint_every, config.train.keep_best),
        (20, true)
    );
    assert_eq!(config.train.length, Length::Epochs(1.0));
    let precisions = |overrides: &[&str]| {
        let Student {
            precision,
            sampling_precision,
            ..
        } = parse(SMALL, overrides).unwrap().student;
        (precision, sampling_precision)
    };
    use Precision::{Bf16, F32};
    assert_eq!(precisions(&[]), (F32, F32));
    assert_eq!(precisions(&["student.precision=bf16"]), (Bf16, Bf16));
    assert_eq!(
        precisions(&["student.precision=bf16", "student.sampling_precision=f32"]),
        (Bf16, F32)
    );
    let samples_only = ["student.sampling_precision=bf16"];
    assert_eq!(precisions(&samples_only), (F32, Bf16));
    assert_eq!(config.teacher.unwrap().precision, F32);

    let nothing_to_measure = parse(SMALL, &[]).unwrap();
    assert!(nothing_to_measure.eval.metrics.is_empty() && !nothing_to_measure.train.keep_best);

    let with_corpus = parse(SMALL, &["data.corpus=/c.txt"]).unwrap();
    let Method::Dpkd(Dpkd {
        form: DpkdForm::Sequence(form),
        ..
    }) = &with_corpus.method
    else {
        panic!()
    };
    assert_eq!(form.lm_source, LmSource::Corpus);
}

#[test]
fn paths_of_the_file_start_at_its_folder_and_those_of_overrides_at_the_current_one() {
    let config = parse(SMALL, &["data.eval=dev.jsonl"]).unwrap();
    assert_eq!(config.data.train, [Path::new("/base/train.jsonl")]);
    assert_eq!(
        config.data.eval,
        Some(std::env::current_dir().unwrap().join("dev.jsonl"))
    );
}

#[test]
fn keys_without_effect_in_the_chosen_combination_are_refused_by_name() {
    refused(
        &["method.ce_share=0.1"],
        &[
            "--set method.ce_share=0.1: method.ce_share: has no effect with name = \"dpkd\", \
             form = \"sequence\", loss = \"dpkd\", pairs = \"samples\"",
            "remove it; with these, [method] has",
        ],
    );
    refused(
        &["method={name=\"kd\", jsd_beta=0.1}"],
        &["method.jsd_beta: has no effect with"],
    );
    refused(
        &["method.loss=cpo", "method.reference=none"],
        &["method.reference: has no effect"],
    );
    refused(
        &["method.pairs=data", "method.top_k=4"],
        &["method.top_k: has no effect"],
    );
    refused(
        &["method.form=token", "method.corpus_weight=0.5"],
        &["method.corpus_weight", "needs data.corpus"],
    );
    refused(
        &["method={name=\"minillm\", top_k=10}"],
        &[
            "method.top_k: reverse KL over a truncated distribution",
            "remove it",
        ],
    );
    refused(
        &["method={name=\"minillm\", lm_source=\"teacher\"}"],
        &["method.lm_source"],
    );
}

#[test]
fn combinations_that_make_no_sense_are_refused_with_the_fix() {
    refused(
        &["train.steps=5", "train.epochs=2"],
        &[
            "--set train.epochs=2: train.epochs",
            "remove one of the two",
        ],
    );
    refused(
        &["student.model=x", "student.prune.layers=2"],
        &["student.model", "exactly one of"],
    );
    refused(
        &["student.prune={layers=2, keep=[0]}"],
        &["student.prune.layers", "exactly one of"],
    );
    refused(
        &["teacher.precision=bf17"],
        &["teacher.precision", "did you mean \"bf16\"?", "`\"f32\"`"],
    );
    refused(
        &["train.steps=5", "train.warmup_steps=5"],
        &[
            "train.warmup_steps: 5 steps of warm-up",
            "smaller than train.steps",
        ],
    );
    refused(
        &[
            "train.schedule=constant",
            "train.min_learning_rate_ratio=0.1",
        ],
        &["never falls", "cosine"],
    );
    refused(
        &["train.micro_batch_tokens=500"],
        &["500 tokens cannot hold", "set it to 512 or more"],
    );
    refused(
        &["method.max_new_tokens=5000"],
        &[
            "/base/run.toml: train.micro_batch_tokens",
            "set it to 5256 or more",
        ],
    );
    refused(
        &["train.keep_best=true"],
        &["nothing is measured", "data.eval"],
    );
    refused(&["eval.metrics=[\"rouge_l\"]"], &["data.eval is not set"]);
    refused(
        &["data.eval=/d", "eval.best_metric=perplexity"],
        &["\"perplexity\" is not measured", "forward_kl, rouge_l"],
    );
    refused(
        &[
            "data.eval=/d",
            "eval.metrics=[\"eos_rate\"]",
            "eval.best_metric=eos_rate",
        ],
        &["no better side"],
    );
    refused(&["method.lm_source=corpus"], &["needs data.corpus"]);
    refused(
        &["data.corpus=/c", "method.lm_source=data"],
        &["data.corpus", "never reads a corpus"],
    );
    refused(
        &["data.corpus=/c", "method.name=kd"],
        &["method `kd`, as it is set, never reads a corpus"],
    );
    refused(&["data.eval=/base/train.jsonl"], &["is also in data.train"]);
    refused(&["data.train=[]"], &["there are no training files"]);
}

#[test]
fn what_is_missing_is_named() {
    let without = |part: &str, overrides: &[&str]| {
        parse(&SMALL.replace(part, ""), overrides)
            .unwrap_err()
            .to_string()
    };
    let teacher = "model = \"smollm2-135m-instruct\"\n";
    assert!(without(teacher, &[]).starts_with(
        "/base/run.toml: teacher.model: not set, but method `dpkd` learns from a teacher; add"
    ));
    assert!(
        without(teacher, &["method.name=sft"])
            .contains("takes layers of the teacher, but teacher.model is not set")
    );
    let rounded = [
        "method.name=sft",
        "student.model=x",
        "teacher.precision=bf16",
    ];
    assert!(without(teacher, &rounded).contains("teacher.precision: there is no teacher"));
    let own_start = [
        "method.name=sft",
        "student.model=x",
        "data.eval=/d",
        "eval.metrics=[\"forward_kl\"]",
    ];
    assert!(without(teacher, &own_start).contains("\"forward_kl\" compares with a teacher"));
    assert!(
        without("prune = { layers = 16 }\n", &[])
            .contains("student: nothing says what the student starts from")
    );
    assert!(
        without("train = \"train.jsonl\"\n", &[])
            .contains("data.train: there are no training files")
    );
    assert!(
        without("name = \"dpkd\"\n", &[])
            .contains("method.name: not set; add [method] name = \"…\", one of sft, kd")
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/nowhere/run.toml"), &[]).unwrap_err();
    assert!(matches!(&error, Error::Read { path, .. } if path == Path::new("/nowhere/run.toml")));
}

#[test]
fn each_loss_has_its_own_defaults() {
    let of = |loss: &str| {
        let config = parse(SMALL, &[&format!("method.loss={loss}")]).unwrap();
        let table: toml::Table = toml::from_str(&config.to_toml()).unwrap();
        ["beta", "lm_weight"].map(|key| at(&table, &format!("method.{key}")).unwrap().as_float())
    };
    assert_eq!(of("dpo"), [Some(0.1), Some(1.0)]);
    assert_eq!(of("cpo"), [Some(0.1), Some(0.0)]);
    assert_eq!(of("simpo"), [Some(2.0), Some(1.0)]);
}

#[test]
fn steps_of_a_run() {
    let mut train = parse(SMALL, &["train.batch=8"]).unwrap().train;
    assert_eq!([1, 8, 9, 16].map(|rows| train.steps(rows)), [1, 1, 2, 2]);
    train.length = Length::Epochs(0.5);
    assert_eq!(train.steps(33), 3);
    train.length = Length::Steps(40);
    assert_eq!(train.steps(1), 40);
}

#[test]
fn combinations_without_meaning_are_refused_by_name() {
    let dev = "data.eval=/d/dev.jsonl";
    for (overrides, parts) in [
        (
            &["method={name=\"gkd\", ce_share=1}"][..],
            &[
                "method.ce_share",
                "no gradient would come from the teacher",
                "sft",
            ][..],
        ),
        (
            &["method={name=\"dpkd\", form=\"token\", ce_share=1}"],
            &["method.ce_share"],
        ),
        (
            &["method.name=llmr", "teacher.cache=true"],
            &["teacher.cache", "has no effect with method `llmr`"],
        ),
        (
            &["method.name=kd", "student.sampling_precision=bf16"],
            &[
                "student.sampling_precision",
                "has no effect: method `kd`",
                "student.precision",
            ],
        ),
        (&["method.name=distillm"], &["data.eval", "no validation"]),
        (
            &["method.name=distillm", dev, "eval.metrics=[\"rouge_l\"]"],
            &["eval.metrics", "forward_kl"],
        ),
        (
            &["method.name=distillm", dev, "eval.every=0"],
            &["eval.every", "never be used"],
        ),
        (
            &["method={name=\"minillm\", top_k=5}"],
            &["method.top_k", "is not the reverse KL"],
        ),
        (
            &["method.name=pbkd", "train.batch=1"],
            &["method.baseline", "samples_per_prompt"],
        ),
        (
            &[
                "method={name=\"llmr\", baseline=\"batch_mean\"}",
                "train.batch=1",
            ],
            &["method.baseline", "teacher's reward"],
        ),
        (
            &["method={name=\"pbkd\", mode=\"offline\", pairs=\"data\", judge_noise=1}"],
            &[
                "method.judge_noise",
                "has no effect with",
                "pairs = \"data\"",
            ],
        ),
        (
            &[
                "method={name=\"dpkd\", lm_weight=0}",
                "data.corpus=[\"/c.jsonl\"]",
            ],
            &["data.corpus", "never reads a corpus"],
        ),
        (
            &["method={name=\"minillm\", lm_source=\"corpus\"}"],
            &["method.lm_source", "needs data.corpus"],
        ),
    ] {
        refused(overrides, parts);
    }
    // What is near to them has a meaning.
    for overrides in [
        &[
            "method={name=\"pbkd\", samples_per_prompt=2}",
            "train.batch=1",
        ][..],
        &["method={name=\"minillm\", lm_weight=0}"],
        &["method.name=kd", "student.precision=bf16"],
        &["method.name=kd", "student.sampling_precision=bf16", dev],
        &[
            "method={name=\"llmr\", sentence_level=true}",
            "train.batch=1",
        ],
    ] {
        parse(SMALL, overrides).unwrap();
    }
}

#[test]
fn every_example_is_a_configuration_and_every_method_has_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let is_toml = path
            .extension()
            .is_some_and(|extension| extension == "toml");
        // A suite is for `distil eval`.
        if !is_toml || path.ends_with("suite.toml") {
            continue;
        }
        let runs = Runs::load(&path, &[]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let configs = match runs {
            Runs::One(config) => vec![*config],
            Runs::Stages(stages) => stages.into_iter().map(|stage| stage.config).collect(),
        };
        for config in configs {
            // What a run of it would keep as its config.toml is read back as the same.
            let resolved = parse(&config.to_toml(), &[]).unwrap();
            assert_eq!(resolved, config, "{}", path.display());
            names.push(config.method.name());
        }
    }
    for method in super::keys::METHODS {
        assert!(names.contains(method), "{method}");
    }
}

const STAGES: &str = "
[teacher]
model = \"smollm2-135m-instruct\"
[student]
prune = { layers = 16 }
[data]
train = \"train.jsonl\"
[train]
batch = 4
[[stage]]
method = { name = \"kd\" }
train.steps = 7
[[stage]]
[stage.method]
name = \"llmr\"
[stage.train]
epochs = 2
batch = 9
";

fn stages(text: &str, overrides: &[&str]) -> Result<Vec<Stage>> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    match Runs::parse(text, Path::new("/base/run.toml"), &overrides)? {
        Runs::Stages(stages) => Ok(stages),
        Runs::One(_) => panic!("stages were expected"),
    }
}

#[test]
fn stages_share_what_stands_outside_of_them() {
    let found = stages(STAGES, &["stage.2.train.batch=5", "seed=3"]).unwrap();
    let names: Vec<&str> = found.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["1-kd", "2-llmr"]);
    let train = |index: usize| &found[index].config.train;
    assert_eq!((train(0).batch, train(1).batch), (4, 5));
    assert_eq!(train(0).length, Length::Steps(7));
    assert_eq!(train(1).length, Length::Epochs(2.0));
    assert!(found.iter().all(|stage| stage.config.seed == 3));
    assert!(matches!(
        Runs::parse(SMALL, Path::new("/base/run.toml"), &[]).unwrap(),
        Runs::One(_)
    ));
}

/// A stage's student starts from the one before's, and is computed as the stage says.
#[test]
fn every_stage_may_have_precisions_of_its_own() {
    let text = STAGES
        .replace("prune = { layers = 16 }", "precision = \"bf16\"")
        .replace(
            "train.steps = 7",
            "train.steps = 7\nstudent = { prune.layers = 16, sampling_precision = \"f32\" }",
        )
        .replace(
            "batch = 9",
            "batch = 9\n[stage.student]\nprecision = \"f32\"",
        );
    let dev = "data.eval=/d/dev.jsonl";
    let found = stages(&text, &[dev]).unwrap();
    use Precision::{Bf16, F32};
    let expected = [(Bf16, F32), (F32, F32)];
    for (stage, (precision, sampling_precision)) in found.iter().zip(expected) {
        let student = Student {
            start: Start::Prune(Prune::Layers(16)),
            precision,
            sampling_precision,
        };
        assert_eq!(stage.config.student, student, "{}", stage.name);
    }
    let later = [dev, "stage.2.student.sampling_precision=bf16"];
    let student = &stages(&text, &later).unwrap()[1].config.student;
    assert_eq!(student.sampling_precision, Bf16);
}

#[test]
fn mistakes_in_stages_are_refused_where_they_stand() {
    let refused = |text: &str, overrides: &[&str], parts: &[&str]| {
        let error = stages(text, overrides).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    };
    let with = |line: &str| STAGES.replace("batch = 9", line);
    refused(
        &with("bach = 9"),
        &[],
        &["run.toml:18: train.bach", "did you mean `batch`?"],
    );
    refused(
        &STAGES.replace(
            "[stage.train]",
            "[stage.student]\nmodel = \"x\"\n[stage.train]",
        ),
        &[],
        &["run.toml:17: student.model", "only the first stage"],
    );
    refused(
        &STAGES.replace("[train]\nbatch = 4", "[method]\nname = \"kd\""),
        &[],
        &["method.name", "outside of the stages", "[stage.method]"],
    );
    refused(
        STAGES,
        &["stage.3.seed=1"],
        &["--set stage.3.seed=1", "stages 1 to 2"],
    );
    refused("stage = 3\n", &[], &["run.toml:1: stage", "[[stage]]"]);
    refused(
        "[stage]\nseed = 1\n",
        &[],
        &["run.toml:1: stage", "[[stage]]"],
    );
    let error = Config::parse(STAGES, Path::new("/base/run.toml"), &[]).unwrap_err();
    assert!(error.to_string().contains("not stages"));
}
