//! How long a run takes, estimated.
//!
//! Training is matrix products: their floating-point operations over this machine's measured matrix
//! rate and a share of it that training reaches. Sampling reads all weights once for every token of a
//! batch and is bounded by the memory's bandwidth, until the batch makes it matrix work. Responses that
//! are still to be sampled count as long as they may become.

use distil_kernels as kernels;
use distil_model::Llama;

use super::head_weights;
use super::networks::Networks;
use super::passes::{
    Passes, first_fit, first_judged, kept_text, measured_pairs, student_passes, teacher_passes,
    third_passes,
};
use super::texts::{Lengths, Text, Texts, first_answers, opponent_pairs, student_answers};
use crate::bench::{Roof, forward_operations, head_operations, layer_weights, weight_bytes};
use crate::config::{Config, Method, Precision};
use crate::eval::evaluate::EvalSet;
use crate::eval::metric::{MetricInfo, metric};

/// Share of the measured matrix rate that a step is taken to reach: a little below the 0.64 to 0.74
/// that `distil bench step` showed in f32.
const REACHED: f64 = 0.6;

/// What the machine can do in each precision that a run computes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    f32: Roof,
    /// That of f32 where nothing is computed in bf16.
    bf16: Roof,
}

impl Machine {
    pub(super) fn measure(config: &Config) -> Self {
        let student = &config.student;
        let teacher = config.teacher.as_ref().map(|teacher| teacher.precision);
        let all = [student.precision, student.sampling_precision];
        let rounds = all.into_iter().chain(teacher).any(|p| p != Precision::F32);
        let f32 = Roof::measure();
        Self {
            f32,
            bf16: match rounds {
                true => Roof::measure_in(kernels::Precision::Bf16),
                false => f32,
            },
        }
    }

    fn roof(&self, precision: kernels::Precision) -> &Roof {
        match precision {
            kernels::Precision::F32 => &self.f32,
            kernels::Precision::Bf16 | kernels::Precision::Int8 => &self.bf16,
        }
    }

    /// Seconds of this network's matrix products.
    fn seconds(&self, network: &Llama, operations: f64) -> f64 {
        self.roof(network.precision()).seconds(operations, 0.0) / REACHED
    }
}

/// What the seconds are computed from.
pub(super) struct Work<'a> {
    pub(super) config: &'a Config,
    pub(super) networks: &'a Networks<'a>,
    pub(super) texts: &'a Texts,
    pub(super) machine: &'a Machine,
}

impl Work<'_> {
    fn passes(&self, network: &Llama, passes: &[Passes]) -> f64 {
        let operations = passes.iter().map(|passes| {
            let text = [(passes.text, 1.0)];
            let layers = |l: &Lengths| forward_operations(network, l.tokens(), l.tokens());
            let response = self.texts.sum(&text, |lengths| lengths.response);
            passes.layers * self.texts.sum(&text, layers)
                + passes.head * head_operations(network, response)
        });
        self.machine.seconds(network, operations.sum())
    }

    fn is_cached(&self) -> bool {
        let teacher = self.config.teacher.as_ref();
        teacher.is_some_and(|teacher| teacher.cache)
    }

    /// Seconds of an optimiser step of `rows` rows.
    pub(super) fn step(&self, rows: f64) -> f64 {
        let (method, networks, texts) = (&self.config.method, self.networks, self.texts);
        let answers = student_answers(method);
        let tokens = rows * answers * texts.sampled.tokens();
        let split = tokens > self.config.train.micro_batch_tokens as f64;
        let mut computing = self.passes(networks.student, &student_passes(method, split));
        if let Some(teacher) = networks.teacher {
            computing += self.passes(teacher, &teacher_passes(method, self.is_cached()));
        }
        let mut seconds = 0.0;
        if let Some(third) = &networks.third {
            computing += self.passes(&third.network, &third_passes(method));
            // At most on all there are.
            let pairs = measured_pairs(method).min(texts.rows as f64);
            seconds += self.on_pairs(&third.network, pairs);
        }
        seconds += rows * computing;
        let batch = self.config.eval.batch;
        let precision = self.config.student.sampling_precision.into();
        // A step samples for all its rows or for none.
        let (share, answers) = (answers.min(1.0), rows * answers.max(1.0));
        let sampled = &texts.sampled;
        seconds += share * self.sampling(networks.student, precision, answers, sampled, batch);
        if let (Method::MiniLlm(settings), Some(teacher)) = (method, networks.teacher)
            && settings.teacher_mix > 0.0
        {
            seconds += self.sampling(teacher, teacher.precision(), answers, sampled, batch);
        }
        seconds
    }

    /// So many passes of the reward model over a pair.
    fn on_pairs(&self, network: &Llama, passes: f64) -> f64 {
        let of_pair: Vec<Passes> = opponent_pairs(&self.config.method)
            .into_iter()
            .map(|(text, count)| Passes {
                text,
                layers: count * passes,
                head: 0.0,
            })
            .collect();
        self.passes(network, &of_pair)
    }

    /// Seconds before the first step: samples that are drawn once, and what is learnt from them.
    pub(super) fn before(&self) -> f64 {
        let (method, networks, texts) = (&self.config.method, self.networks, self.texts);
        let batch = self.config.eval.batch;
        let rows = texts.rows as f64;
        let sampled = &texts.sampled;
        let mut seconds = 0.0;
        if let Some(teacher) = networks.teacher {
            let answers = rows * method.teacher_answers() as f64;
            seconds += self.sampling(teacher, teacher.precision(), answers, sampled, batch);
            let judged = 2.0 * rows * first_judged(method);
            let kept = match self.is_cached() {
                true => rows * method.teacher_answers().max(1) as f64,
                false => 0.0,
            };
            let once = [
                Passes {
                    text: Text::Sampled,
                    layers: judged,
                    head: judged,
                },
                Passes {
                    text: kept_text(method),
                    layers: kept,
                    head: 0.0,
                },
            ];
            seconds += self.passes(teacher, &once);
        }
        let precision = self.config.student.sampling_precision.into();
        let answers = rows * first_answers(method) as f64;
        seconds += self.sampling(networks.student, precision, answers, sampled, batch);
        if let Some(third) = &networks.third {
            let batch = rows.min(self.config.train.batch as f64);
            seconds += self.on_pairs(&third.network, batch * first_fit(method));
        }
        seconds
    }

    /// Seconds of one evaluation during training.
    pub(super) fn evaluation(&self, set: &EvalSet) -> f64 {
        let settings = &self.config.eval;
        let metrics: Vec<&MetricInfo> = settings.metrics.iter().filter_map(|m| metric(m)).collect();
        let answers = match metrics.iter().any(|metric| metric.needs_answers()) {
            true => set.prompts.len(),
            false => set.prompts.len().min(settings.samples),
        };
        let asked = set.prompts.iter().take(answers);
        let student = self.networks.student;
        let lengths = Lengths::of(asked.map(|p| {
            let room = student.config().context.saturating_sub(p.prompt.len());
            (p.prompt.len(), settings.max_new_tokens.min(room))
        }));
        let precision = self.config.student.sampling_precision.into();
        let mut seconds =
            self.sampling(student, precision, answers as f64, &lengths, settings.batch);
        let with_teacher = metrics.iter().any(|metric| metric.needs_teacher());
        let scores = |metric: &&MetricInfo| metric.needs_references() && !metric.needs_answers();
        let scored = Lengths::of(
            set.examples
                .iter()
                .map(|e| (e.prompt.len(), e.response.len())),
        );
        let scoring = |network: &Llama| {
            let operations = forward_operations(network, scored.tokens(), scored.tokens())
                + head_operations(network, scored.response);
            let rows = set.examples.len() as f64;
            self.machine.seconds(network, rows * operations)
        };
        if with_teacher || metrics.iter().any(scores) {
            seconds += scoring(student);
        }
        if let (true, Some(teacher)) = (with_teacher, self.networks.teacher) {
            seconds += scoring(teacher);
        }
        seconds
    }

    /// Seconds of `answers` responses: their prompts in one pass, then token by token.
    fn sampling(
        &self,
        network: &Llama,
        precision: kernels::Precision,
        answers: f64,
        lengths: &Lengths,
        batch: usize,
    ) -> f64 {
        if answers <= 0.0 {
            return 0.0;
        }
        let roof = self.machine.roof(precision);
        let prompts = answers * forward_operations(network, lengths.prompt, lengths.prompt);
        let rows = (batch as f64).min(answers).max(1.0);
        let operations = forward_operations(network, rows, 0.0) + head_operations(network, rows);
        let weights = layer_weights(network) + head_weights(network);
        let bytes = weights as f64 * weight_bytes(precision.into());
        let tokens = answers * lengths.response;
        let seconds = roof.seconds(prompts, 0.0) + tokens / rows * roof.seconds(operations, bytes);
        seconds / REACHED
    }
}

/// Evaluations of a run: before its first step, every so many, and after its last.
pub(super) fn evaluations(every: usize, steps: usize) -> usize {
    match every {
        0 => 2,
        every => 1 + steps.div_ceil(every),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, example, measured, networks};
    use super::*;
    use crate::data::example::PromptExample;
    use crate::testing::tiny_network;

    fn machine() -> Machine {
        let f32 = Roof {
            gflops: 1.0,
            bytes_per_second: 1e9,
        };
        let bf16 = Roof { gflops: 4.0, ..f32 };
        Machine { f32, bf16 }
    }

    /// Two rows, with a teacher like the student.
    fn of_work<T>(text: &str, ask: impl FnOnce(&Work<'_>) -> T) -> T {
        let (network, machine) = (tiny_network(1), machine());
        let texts = Texts::of(&[example(4, 6), example(4, 6)], &[], &[], &[], 6, 1000);
        let config = config(text);
        let networks = networks(&config.method, &network, Some(&network));
        ask(&Work {
            config: &config,
            networks: &networks,
            texts: &texts,
            machine: &machine,
        })
    }

    /// Of a step of both and before the first.
    fn seconds(text: &str) -> [f64; 2] {
        of_work(text, |work| [work.step(2.0), work.before()])
    }

    #[test]
    fn seconds_follow_from_what_a_method_computes() {
        let seconds = |text: &str| seconds(&format!("[method]\n{text}\n"));
        let [sft, nothing] = seconds("name = \"sft\"");
        let [kd, _] = seconds("name = \"kd\"");
        assert_eq!(nothing, 0.0);
        // A forward and a backward pass, and one more forward pass of a teacher of the same size.
        assert!((kd / sft - 4.0 / 3.0).abs() < 1e-9, "{kd} {sft}");
        let [gkd, _] = seconds("name = \"gkd\"\nstudent_share = 1.0");
        assert!(gkd > kd, "{gkd} {kd}");
        let [mm_pbkd, once] = seconds("name = \"mm_pbkd\"");
        let [dpkd, again] = seconds("name = \"dpkd\"");
        assert!(mm_pbkd > dpkd, "{mm_pbkd} {dpkd}");
        assert!(once > 0.0 && once == again);
        // Several answers take as much longer.
        let [_, thrice] = seconds("name = \"seqkd\"\nsamples_per_prompt = 3");
        assert!(thrice > once && thrice < 3.1 * once, "{thrice} {once}");
    }

    /// Half of the steps sample for both rows: half of the time, since one row alone would take as long
    /// as two where reading the weights is what takes it.
    #[test]
    fn steps_that_sample_are_whole() {
        let text = "[method]\nname = \"gkd\"\nstudent_share = 0.5\n";
        let [both, step] = of_work(text, |work| {
            let student = work.networks.student;
            let sampled = &work.texts.sampled;
            let both = work.sampling(student, student.precision(), 2.0, sampled, 32);
            [both, work.step(2.0)]
        });
        // The texts are equally long, so training takes the same in every step.
        let trained = seconds("[method]\nname = \"kd\"\n")[0];
        let found = step - trained;
        assert!((found / both - 0.5).abs() < 1e-9, "{found} {both}");
    }

    /// Offline, the student answers once, too, and the reward model is fitted.
    #[test]
    fn what_offline_pbkd_does_once_stands_before_the_first_step() {
        let [_, teacher_alone] = seconds("method.name = \"dpkd\"");
        let offline = |more: &str| {
            let text = format!("[method]\nname = \"pbkd\"\nmode = \"offline\"\n{more}\n");
            seconds(&text)[1]
        };
        let (none, some) = (offline("fit_steps = 1"), offline("fit_steps = 11"));
        let judged = offline("fit_steps = 1\njudge = \"teacher_likelihood\"");
        assert!(none > 2.0 * teacher_alone, "{none} {teacher_alone}");
        assert!(some > none && judged > none, "{some} {judged} {none}");
        // Ten steps are ten times one.
        let step = none - 2.0 * teacher_alone;
        assert!(((some - none) / step - 10.0).abs() < 1e-6, "{some} {none}");
    }

    /// What a cached teacher read in a step, it reads before.
    #[test]
    fn a_cached_teacher_reads_before_the_first_step() {
        let [live, nothing] = seconds("method.name = \"kd\"");
        let [cached, once] = seconds("method.name = \"kd\"\nteacher.cache = true");
        assert_eq!(nothing, 0.0);
        // Both rows are a step's.
        assert!(
            (live - cached - once).abs() < 1e-12,
            "{live} {cached} {once}"
        );
    }

    #[test]
    fn each_network_takes_the_time_of_its_own_precision() {
        let (network, machine) = (tiny_network(1), machine());
        let texts = Texts::of(&[example(4, 6), example(4, 6)], &[], &[], &[], 6, 1000);
        let config = config("[method]\nname = \"kd\"\n");
        let rounded = network.clone().in_precision(kernels::Precision::Bf16);
        let of = |student: &Llama, teacher: &Llama| {
            let networks = networks(&config.method, student, Some(teacher));
            let work = Work {
                config: &config,
                networks: &networks,
                texts: &texts,
                machine: &machine,
            };
            work.step(2.0)
        };
        let kd = of(&network, &network);
        for (found, share) in [
            (of(&network, &rounded), 3.25 / 4.0),
            (of(&rounded, &network), 1.75 / 4.0),
            (of(&rounded, &rounded), 0.25),
        ] {
            assert!((found / kd - share).abs() < 1e-9, "{found} {kd} {share}");
        }
    }

    #[test]
    fn an_evaluation_answers_and_scores_what_its_metrics_ask_for() {
        let (network, machine) = (tiny_network(1), machine());
        let texts = Texts::default();
        let prompt = |n: usize| PromptExample {
            text: String::new(),
            prompt: vec![3; n],
            references: Vec::new(),
            row: 0,
        };
        let set = EvalSet {
            prompts: (1..9).map(prompt).collect(),
            examples: vec![example(4, 6)],
        };
        let of = |metrics: &str| {
            let config = measured(&format!(
                "method.name = \"kd\"\neval.metrics = [{metrics}]\neval.samples = 0\n"
            ));
            let networks = networks(&config.method, &network, Some(&network));
            let work = Work {
                config: &config,
                networks: &networks,
                texts: &texts,
                machine: &machine,
            };
            work.evaluation(&set)
        };
        let [answers, perplexity, kl] = ["\"rouge_l\"", "\"perplexity\"", "\"forward_kl\""].map(of);
        assert!((kl / perplexity - 2.0).abs() < 1e-9, "{kl} {perplexity}");
        let both = of("\"rouge_l\", \"forward_kl\"");
        assert!((both - answers - kl).abs() < 1e-12, "{both} {answers} {kl}");
        assert_eq!(
            [evaluations(0, 9), evaluations(4, 9), evaluations(3, 9)],
            [2, 4, 4]
        );
    }
}
