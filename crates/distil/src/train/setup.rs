//! From a configuration to models and token ids.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use distil_model::files::sha256_of;
use distil_model::reference::{self, Progress};
use distil_model::{Llama, Model, Outline, prune};

use super::checkpoint;
use crate::config::{Config, LmSource, Method, OnBadRow as BadRow, Prune, Start};
use crate::data::counts::Counts;
use crate::data::example::{
    Encoding, Limits, PairExample, PromptExample, examples, pairs, prompted_examples, prompts,
};
use crate::data::read::{DataSet, OnBadRow};
use crate::data::template::Template;
use crate::error::{Error, Result};
use crate::eval::evaluate::EvalSet;
use crate::event::Event;
use crate::method::Material;
use crate::teacher::{self, TeacherModel};

/// What a run starts from.
pub struct Setup {
    /// Models and training rows.
    pub material: Material,
    /// Held-out rows, if the configuration names any.
    pub eval: Option<EvalSet>,
    /// How many training rows were used, and why others were not.
    pub counts: Counts,
    /// Name and sha256 of every input file.
    pub sha256: Vec<(String, String)>,
    /// The rows as they were read.
    pub sources: Sources,
}

/// The rows of a run's files, before any template and any limit.
#[derive(Debug, Default)]
pub struct Sources {
    /// Those of `data.train`.
    pub train: DataSet,
    /// Those of `data.eval`.
    pub held_out: Option<DataSet>,
    /// Those of `data.corpus`, where the method reads it.
    pub corpus: Option<DataSet>,
    /// What became of the training rows as text of a language-modelling term, where an epoch goes
    /// over something else.
    pub text_counts: Option<Counts>,
}

/// Resolves a model reference, telling `events` about downloads, and opens the model.
///
/// # Errors
/// The reference cannot be resolved, or the model cannot be read.
pub fn open_model(reference: &str, events: &mut dyn FnMut(Event<'_>)) -> Result<Model> {
    Ok(open_outline(reference, events)?.load(&Device::flex())?)
}

/// As [`open_model`], all but the weights.
fn open_outline(reference: &str, events: &mut dyn FnMut(Event<'_>)) -> Result<Outline> {
    let (mut name, mut total, mut done) = (String::new(), 0, 0);
    let resolved = reference::resolve(reference, &mut |progress| match progress {
        Progress::Start { file, bytes } => {
            name = format!("fetching {file}");
            total = bytes.unwrap_or(0) as usize;
            done = 0;
            events(Event::Progress {
                what: &name,
                done,
                total,
            });
        }
        Progress::Advance { bytes } => {
            done += bytes as usize;
            events(Event::Progress {
                what: &name,
                done,
                total,
            });
        }
        Progress::Done => {}
        Progress::Note(text) => events(Event::Note(text)),
    })?;
    Ok(Outline::open(&resolved.path)?)
}

/// The layers a student keeps of a teacher with `layers` layers.
///
/// # Errors
/// The number of layers is impossible.
pub fn kept_layers(choice: &Prune, layers: usize) -> Result<Vec<usize>> {
    match choice {
        Prune::Layers(keep) => Ok(prune::evenly_spaced(layers, *keep)?),
        Prune::Keep(keep) => Ok(keep.clone()),
    }
}

/// Opens models and data, and checks that they go together. The student's weights are those of
/// `checkpoint`, if one is given. The teacher's are read only if a student is made of them.
///
/// # Errors
/// Anything is missing, malformed, or does not fit.
pub fn setup(
    config: &Config,
    checkpoint: Option<&Path>,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Setup> {
    let device = Device::flex();
    let mut teacher = match &config.teacher {
        Some(settings) => {
            let outline = open_outline(&settings.model, events)?;
            let precision = settings.precision.into();
            Some(TeacherModel::new(outline, precision, device.clone()))
        }
        None => None,
    };
    let start = match (&config.student.start, &teacher) {
        (Start::Model(reference), _) => open_outline(reference, events)?,
        (Start::Prune(_), Some(teacher)) => teacher.outline.clone(),
        (Start::Prune(_), None) => {
            return Err(Error::Mismatch {
                what: "student.prune needs a teacher to prune".into(),
                fix: "add [teacher] model = \"…\"".into(),
            });
        }
    };
    let student = match (checkpoint, &config.student.start, &mut teacher) {
        (Some(path), ..) => checkpoint::open(path, &device)?,
        (None, Start::Prune(choice), Some(teacher)) => {
            let teacher = teacher.plain()?;
            let keep = kept_layers(choice, teacher.network.config().layers)?;
            teacher.with_network(teacher.network.with_layers(&keep)?)
        }
        (None, ..) => start.load(&device)?,
    };
    let vocabulary = match &teacher {
        Some(teacher) => teacher::align_outlines(&teacher.outline, &start)?,
        None => start.config.vocabulary,
    };
    if let Some(teacher) = teacher.as_ref().map(|teacher| &teacher.outline)
        && teacher.eos()? != start.eos()?
    {
        let name = |model: &Outline| -> Result<String> {
            let id = model.eos()?;
            Ok(model.tokenizer.token(id).unwrap_or_else(|| id.to_string()))
        };
        return Err(Error::Mismatch {
            what: format!(
                "the teacher ends its answers with {:?} and the student with {:?}: the student \
                 would learn a token that does not stop it",
                name(teacher)?,
                name(&start)?
            ),
            fix: "give both the same eos_token in tokenizer_config.json, or prune the student \
                  from the teacher"
                .into(),
        });
    }
    let context = teacher
        .as_ref()
        .map_or(usize::MAX, |teacher| teacher.outline.config.context)
        .min(start.config.context);
    let data = load_data(config, &start, context, events)?;
    Ok(Setup {
        sha256: hashes(config, teacher.as_ref(), &start)?,
        material: Material {
            teacher,
            student: in_training(student, config),
            vocabulary,
            examples: data.examples,
            prompts: data.prompts,
            teacher_prompts: data.teacher_prompts,
            pairs: data.pairs,
            corpus: data.corpus,
        },
        eval: data.eval,
        counts: data.counts,
        sources: data.sources,
    })
}

/// The student as it is trained: its matrix products in the precision that is configured, its
/// activations kept or computed again.
fn in_training(mut student: Model, config: &Config) -> Model {
    student.network = as_trained(student.network, config);
    student
}

fn as_trained(network: Llama, config: &Config) -> Llama {
    network
        .in_precision(config.student.precision.into())
        .with_recompute(config.train.recompute)
}

struct Loaded {
    examples: Vec<crate::data::example::Example>,
    prompts: Vec<PromptExample>,
    teacher_prompts: Vec<Vec<PromptExample>>,
    pairs: Vec<PairExample>,
    corpus: Vec<crate::data::example::Example>,
    eval: Option<EvalSet>,
    counts: Counts,
    sources: Sources,
}

fn load_data(
    config: &Config,
    student: &Outline,
    context: usize,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Loaded> {
    let settings = &config.data;
    let template = Template::new(&settings.template, student.tokenizer.chat_template())?;
    let on_bad_row = match settings.on_bad_row {
        BadRow::Error => OnBadRow::Fail,
        BadRow::Skip => OnBadRow::Skip,
    };
    let encode_pair =
        |prompt: &str, response: &str| student.tokenizer.encode_pair(prompt, response);
    let encoding = Encoding {
        template: &template,
        encode_pair: &encode_pair,
        eos: student.eos()?,
        limits: Limits {
            max_prompt_tokens: settings.max_prompt_tokens,
            max_response_tokens: settings.max_response_tokens,
        },
        on_bad_row,
    };
    let longest = settings.max_prompt_tokens + settings.max_response_tokens;
    if longest > context {
        return Err(Error::Config {
            place: "data.max_prompt_tokens + data.max_response_tokens".into(),
            what: format!("{longest} tokens are more than the context of {context} tokens"),
            fix: "lower one of the two".into(),
        });
    }
    let rows = DataSet::read(&settings.train, on_bad_row)?;
    let mut loaded = Loaded {
        examples: Vec::new(),
        prompts: Vec::new(),
        teacher_prompts: Vec::new(),
        pairs: Vec::new(),
        corpus: Vec::new(),
        eval: None,
        counts: Counts::default(),
        sources: Sources::default(),
    };
    let method = &config.method;
    if method.reads_responses() {
        // What the student is to answer by itself has to ask something.
        let asked = method.samples_student() && !method.reads_prompts();
        (loaded.examples, loaded.counts) = match asked {
            true => prompted_examples(&rows, &encoding)?,
            false => examples(&rows, &encoding)?,
        };
        if method.reads_prompts() || method.reads_pairs() {
            let counts = loaded.counts;
            events(Event::Note(&format!(
                "rows of the language-modelling term: {counts}"
            )));
            loaded.sources.text_counts = Some(counts);
        }
    }
    if method.reads_prompts() {
        (loaded.prompts, loaded.counts) = prompts(&rows, &encoding)?;
    }
    if method.reads_pairs() {
        (loaded.pairs, loaded.counts) = pairs(&rows, &encoding)?;
    }
    if let Method::Llmr(llmr) = method {
        for text in &llmr.templates {
            let template = Template::new(text, student.tokenizer.chat_template())?;
            let encoding = Encoding {
                template: &template,
                ..encoding
            };
            let (as_read, _) = prompts(&rows, &encoding)?;
            loaded.teacher_prompts.push(as_read);
        }
        in_every_template(&mut loaded.prompts, &mut loaded.teacher_prompts);
        if loaded.prompts.is_empty() {
            return Err(Error::Mismatch {
                what: "no row is within data.max_prompt_tokens in every one of method.templates"
                    .into(),
                fix: "raise data.max_prompt_tokens, or shorten the templates".into(),
            });
        }
    }
    // Rows that are used, not rows that are read: one left out for its length counts for nothing.
    if let Some(limit) = settings.limit {
        loaded.examples.truncate(limit);
        loaded.prompts.truncate(limit);
        loaded.pairs.truncate(limit);
    }
    if method.lm_source() == Some(LmSource::Corpus) {
        let corpus = DataSet::read(&settings.corpus, on_bad_row)?;
        let counts;
        (loaded.corpus, counts) = examples(&corpus, &encoding)?;
        events(Event::Note(&format!("corpus rows: {counts}")));
        loaded.sources.corpus = Some(corpus);
    }
    if let Some(path) = &settings.eval {
        let held_out = DataSet::read(std::slice::from_ref(path), on_bad_row)?;
        let set = EvalSet::new(&held_out, &encoding, Some(config.eval.rows))?;
        let asked = held_out.rows.len().min(config.eval.rows);
        events(Event::Note(&format!(
            "held-out rows: {asked} read, {} prompts and {} references within the limits",
            set.prompts.len(),
            set.examples.len()
        )));
        loaded.eval = Some(set);
        loaded.sources.held_out = Some(held_out);
    }
    loaded.sources.train = rows;
    Ok(loaded)
}

/// Leaves the rows that are within the limits in every template, in one order.
fn in_every_template(prompts: &mut Vec<PromptExample>, templates: &mut [Vec<PromptExample>]) {
    let rows = |prompts: &[PromptExample]| -> HashSet<usize> {
        prompts.iter().map(|prompt| prompt.row).collect()
    };
    let lists: Vec<HashSet<usize>> = templates.iter().map(|list| rows(list)).collect();
    prompts.retain(|prompt| lists.iter().all(|rows| rows.contains(&prompt.row)));
    let kept = rows(prompts);
    for list in templates {
        list.retain(|prompt| kept.contains(&prompt.row));
    }
}

fn hashes(
    config: &Config,
    teacher: Option<&TeacherModel>,
    student: &Outline,
) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    let data = &config.data;
    let files = data.train.iter().chain(&data.eval).chain(&data.corpus);
    for path in files {
        all.push((path.display().to_string(), sha256_of(path)?));
    }
    let of_teacher = teacher.map(|teacher| teacher.outline.path().to_owned());
    let mut models: Vec<PathBuf> = of_teacher.into_iter().collect();
    models.push(student.path().to_owned());
    models.dedup();
    for path in models {
        for name in [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ] {
            let file = path.join(name);
            if file.is_file() {
                all.push((file.display().to_string(), sha256_of(&file)?));
            }
        }
        for (name, digest) in distil_model::weights::Weights::open(&path)?.sha256()? {
            let file = if path.is_dir() {
                path.join(&name)
            } else {
                path.clone()
            };
            all.push((Path::display(&file).to_string(), digest));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;
    use distil_kernels::Precision;

    #[test]
    fn a_student_is_trained_as_configured() {
        let trained = |keys: &str| {
            let text = format!(
                "teacher.model = \"x.gguf\"\nstudent.prune.layers = 1\n\
                 data.train = \"a.jsonl\"\nmethod.name = \"kd\"\n{keys}"
            );
            let config = Config::parse(&text, std::path::Path::new("run.toml"), &[]).unwrap();
            let network = as_trained(tiny_network(1), &config);
            (network.precision(), network.recomputes())
        };
        assert_eq!(trained(""), (Precision::F32, false));
        let both = "train.recompute = true\nstudent.precision = \"bf16\"\n";
        assert_eq!(trained(both), (Precision::Bf16, true));
    }
}
