//! Peak memory of a run, by use.
//!
//! ```text
//! 4Pₜ + 4P (weights) + 4P (gradient) + 8P (AdamW) + activations + logits + cache
//! ```
//!
//! P and Pₜ are the student's and the teacher's parameters, in f32. A third network of R parameters adds
//! 16R if it is trained and 4R if it is not. In bf16 and int8 a network that is only asked is packed: 2
//! bytes or one a weight for the matrices of its layers and its head, 4 for its embedding and vectors. That is the
//! teacher's size then, and what a student that samples so takes beside its weights while it
//! samples.
//!
//! A teacher that the steps do not ask is not there any more when they begin; of one whose hidden
//! states are kept, its head is. The peak is then that of the steps or, where the teacher is the larger
//! model, that of what it does before them.

use distil_kernels as kernels;
use distil_kernels::packed_bytes;
use distil_model::Llama;

use super::networks::Networks;
use super::{F32, Part, head_weights};
use crate::bench::{layer_weights, weight_bytes};
use crate::config::{Config, Method, Precision, TeacherInSteps};

/// Bytes of a network's matrices packed in this precision, those of its layers and its head.
fn packed_matrices(network: &Llama, precision: Precision) -> u64 {
    let weights = layer_weights(network) + head_weights(network);
    (weights as f64 * weight_bytes(precision)) as u64
}

/// Bytes of a network that is only asked.
fn asked_bytes(network: &Llama) -> u64 {
    let plain = match network.precision() {
        kernels::Precision::F32 => return network.size() as u64 * F32,
        // The embedding and the vectors; of a tied head the embedding is kept beside it.
        _ if network.config().tied => network.size() - layer_weights(network),
        _ => network.size() - layer_weights(network) - head_weights(network),
    };
    F32 * plain as u64 + packed_matrices(network, network.precision().into())
}

/// What is in memory at once, at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peak {
    /// Tokens of the largest micro-batch.
    pub(super) at_once: usize,
    /// Whether a step has several micro-batches: their gradients are added up.
    pub(super) several: bool,
    /// Tokens of all sequences that are sampled at once, prompts included, if anything is sampled.
    pub(super) sampled: Option<usize>,
}

/// Bytes of a network's head alone.
fn head_bytes(network: &Llama) -> u64 {
    match network.precision() {
        kernels::Precision::F32 => head_weights(network) as u64 * F32,
        precision => (head_weights(network) as f64 * weight_bytes(precision.into())) as u64,
    }
}

/// What is in memory at the run's peak, by use.
pub(super) fn memory(config: &Config, networks: &Networks<'_>, peak: Peak) -> Vec<Part> {
    let steps = in_steps(config, networks, peak);
    let Some(teacher) = networks.teacher else {
        return steps;
    };
    let before = in_preparation(config, networks.student, teacher, peak);
    let total = |parts: &[Part]| parts.iter().map(|part| part.bytes).sum::<u64>();
    match total(&before) > total(&steps) {
        true => before,
        false => steps,
    }
}

/// While the teacher answers or reads, before the first step; nothing, if it stays for the steps, which
/// need more.
fn in_preparation(config: &Config, student: &Llama, teacher: &Llama, peak: Peak) -> Vec<Part> {
    if config.teacher_in_steps() == TeacherInSteps::Whole || !config.method.needs_teacher() {
        return Vec::new();
    }
    let answered = match config.method.teacher_answers() {
        0 => 0,
        _ => peak.sampled.unwrap_or(0),
    };
    vec![
        Part {
            what: "student's weights",
            bytes: student.size() as u64 * F32,
        },
        Part {
            what: "teacher's weights, before the first step",
            bytes: asked_bytes(teacher),
        },
        Part {
            what: "keys and values while sampling",
            bytes: answered as u64 * cache(teacher, teacher.precision().into()),
        },
    ]
}

fn in_steps(config: &Config, networks: &Networks<'_>, peak: Peak) -> Vec<Part> {
    let left = config.teacher_in_steps();
    let asked = networks.teacher.filter(|_| left != TeacherInSteps::Nothing);
    let student = networks.student;
    let parameters = student.size() as u64;
    let part = |what, numbers: u64| Part {
        what,
        bytes: numbers * F32,
    };
    let mut parts = vec![
        part("student's weights", parameters),
        part("gradient", parameters),
        part("AdamW's moments", 2 * parameters),
        part(
            "activations kept for the backward pass",
            peak.at_once as u64 * activations(student, config.train.recompute),
        ),
        part("logits of a chunk", 2 * chunk_logits(student, peak.at_once)),
    ];
    if peak.several {
        let layers = layer_weights(student) as u64;
        parts.push(part("a micro-batch's own gradient", layers));
    }
    // The student's once for its logits and once for their gradient.
    let mut packed = 2 * head_weights(student) * packed_bytes(student.precision());
    if let Some(teacher) = asked
        && teacher.precision() == kernels::Precision::F32
    {
        packed += head_weights(teacher) * packed_bytes(teacher.precision());
    }
    if packed > 0 {
        parts.push(Part {
            what: "heads packed for a step",
            bytes: packed as u64,
        });
    }
    if let Some(teacher) = asked {
        let (what, bytes) = match left {
            TeacherInSteps::Head => ("teacher's head", head_bytes(teacher)),
            _ => ("teacher's weights", asked_bytes(teacher)),
        };
        parts.push(Part { what, bytes });
    }
    let answers = config.method.samples_student() || config.data.eval.is_some();
    let sampling = config.student.sampling_precision;
    if answers && sampling != Precision::F32 {
        parts.push(Part {
            what: "student packed while it samples",
            bytes: packed_matrices(student, sampling),
        });
    }
    if let Some(third) = &networks.third {
        let copies = match third.trained {
            true => 4,
            false => 1,
        };
        parts.push(part(third.what[0], copies * third.parameters()));
    }
    if let Some(tokens) = peak.sampled {
        let sampling = config.student.sampling_precision;
        let of_student = cache(student, sampling);
        let of_teacher = |teacher: &Llama| cache(teacher, teacher.precision().into());
        let each = match (&config.method, networks.teacher) {
            // Every token is drawn from both.
            (Method::MiniLlm(settings), Some(teacher)) if settings.teacher_mix > 0.0 => {
                of_student + of_teacher(teacher)
            }
            (method, Some(teacher))
                if method.teacher_answers() > 0 && left == TeacherInSteps::Whole =>
            {
                of_student.max(of_teacher(teacher))
            }
            _ => of_student,
        };
        parts.push(Part {
            what: "keys and values while sampling",
            bytes: tokens as u64 * each,
        });
    }
    parts
}

/// Logits that the head has at once: its own limit, or those of all positions if they are fewer.
fn chunk_logits(network: &Llama, positions: usize) -> u64 {
    const MOST: u64 = 16 << 20;
    MOST.min(positions as u64 * network.config().vocabulary as u64)
}

/// Bytes a token in the cache of keys and values.
fn cache(network: &Llama, precision: Precision) -> u64 {
    let c = network.config();
    let bytes = match precision {
        Precision::F32 => 4,
        Precision::Bf16 | Precision::Int8 => 2,
    };
    (2 * c.heads.key_value * c.heads.dimension * c.layers * bytes) as u64
}

/// Numbers a token that a forward pass keeps: in each layer the inputs of its products and of its
/// norms, and what the feed-forward block multiplies. Where layers are computed again, that of one
/// layer and the inputs of all.
fn activations(network: &Llama, recompute: bool) -> u64 {
    let c = network.config();
    let (d, f) = (c.width, c.feed_forward);
    let attention = (2 * c.heads.query + 2 * c.heads.key_value) * c.heads.dimension;
    let layer = 4 * d + attention + 3 * f;
    match recompute {
        false => (c.layers * layer + 2 * d) as u64,
        true => (c.layers * d + layer + 2 * d) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::disk;
    use super::super::testing::{bytes_of, config, method, networks};
    use super::*;
    use crate::testing::tiny_network;

    fn peak(at_once: usize, sampled: Option<usize>) -> Peak {
        Peak {
            at_once,
            several: false,
            sampled,
        }
    }

    #[test]
    fn the_parts_are_those_of_the_formula() {
        let network = tiny_network(1);
        let parameters = network.size() as u64;
        let config = config("method.name = \"kd\"\ntrain.keep_last = 3\neval.batch = 5\n");
        let networks = networks(&config.method, &network, Some(&network));
        let parts = memory(&config, &networks, peak(100, Some(5 * 40)));
        let bytes = |what: &str| bytes_of(&parts, what).unwrap();
        assert_eq!(bytes("student's weights"), 4 * parameters);
        assert_eq!(bytes("AdamW"), 8 * parameters);
        assert_eq!(bytes("teacher"), 4 * parameters);
        // Two layers of 4·16 + (2·4 + 2·2)·4 + 3·24 numbers, and 2·16.
        assert_eq!(bytes("activations"), 4 * 100 * (2 * (64 + 48 + 72) + 32));
        // Keys and values of 2 heads of 4 in two layers, for 5 rows of 40 tokens.
        assert_eq!(bytes("keys and values"), 4 * 5 * 40 * (2 * 2 * 4 * 2));
        // 100 positions of a vocabulary of 24; no more than the limit where there are many.
        assert_eq!(bytes("logits"), 2 * 4 * 100 * 24);
        let many = memory(&config, &networks, peak(1 << 30, None));
        assert_eq!(bytes_of(&many, "logits"), Some(2 * 4 * (16 << 20)));
        // Of the student twice and of the teacher, on machines that pack f32.
        let packed = 3 * 24 * 16 * packed_bytes(kernels::Precision::F32) as u64;
        assert_eq!(bytes_of(&parts, "heads packed").unwrap_or(0), packed);
        assert_eq!(parts.len(), 7 + usize::from(packed > 0));
        let several = Peak {
            several: true,
            ..peak(100, None)
        };
        let several = memory(&config, &networks, several);
        let own = bytes_of(&several, "a micro-batch's own gradient").unwrap();
        assert_eq!(own, 4 * layer_weights(&network) as u64);
        assert_eq!(disk(&config, &networks, 1000)[0].bytes, 4 * 12 * parameters);
        assert_eq!(disk(&config, &networks, 1000).len(), 2);
        // Saved after step 50 and after the last.
        assert_eq!(disk(&config, &networks, 51)[0].bytes, 2 * 12 * parameters);
        let nothing_sampled = memory(&config, &networks, peak(100, None));
        assert_eq!(bytes_of(&nothing_sampled, "keys and values"), None);
    }

    #[test]
    fn a_teacher_counts_while_it_is_there() {
        let teacher = tiny_network(2);
        let student = tiny_network(1).with_layers(&[0]).unwrap();
        let whole = 4 * teacher.size() as u64;
        let of = |text: &str, at_once: usize, sampled: usize| {
            let config = config(text);
            let networks = networks(&config.method, &student, Some(&teacher));
            memory(&config, &networks, peak(at_once, Some(sampled)))
        };
        let teachers = |parts: &[Part]| bytes_of(parts, "teacher").unwrap_or(0);
        assert_eq!(teachers(&of("method.name = \"kd\"", 100, 10)), whole);
        assert_eq!(teachers(&of("method.name = \"sft\"", 100, 10)), 0);
        assert_eq!(teachers(&of("method.name = \"seqkd\"", 100, 10)), 0);
        let cached = "teacher.cache = true\nmethod.name = \"kd\"";
        assert_eq!(teachers(&of(cached, 100, 10)), 4 * 24 * 16);
        let measured = "data.eval = \"b.jsonl\"\neval.metrics = [\"forward_kl\"]\n\
                        method.name = \"seqkd\"";
        assert_eq!(teachers(&of(measured, 100, 10)), whole);
        // So many tokens at once that the steps take less than the teacher's answers.
        let many = of("method.name = \"seqkd\"", 1, 5_000_000);
        assert_eq!(teachers(&many), whole);
        assert_eq!(bytes_of(&many, "AdamW"), None);
    }

    #[test]
    fn a_third_network_is_counted_in_memory_and_on_disk() {
        let network = tiny_network(1);
        // 1920 in the matrices and 2·16 in the norms of a layer, 24·16 in the embedding, 16 in the
        // last norm; the reward's head is of 16 weights and a bias.
        let (two_layers, one_layer) = (4304, 2352);
        assert_eq!(network.size(), 4304);
        for (text, what, memory_bytes, disk_bytes) in [
            (
                "name = \"pbkd\"\nreward_layers = 1",
                "reward model",
                16 * (one_layer + 17),
                12 * (one_layer + 17),
            ),
            (
                "name = \"mm_pbkd\"\nq_layers = 9",
                "Q-function",
                16 * two_layers,
                12 * two_layers,
            ),
            (
                "name = \"llmr\"\nsync_every = 4",
                "lags behind",
                4 * two_layers,
                4 * two_layers,
            ),
        ] {
            let config = config(&format!("train.keep_last = 1\n[method]\n{text}\n"));
            let networks = networks(&config.method, &network, None);
            let parts = memory(&config, &networks, peak(100, None));
            assert_eq!(bytes_of(&parts, what), Some(memory_bytes), "{text}");
            // The last checkpoint and the one being written.
            let parts = disk(&config, &networks, 1000);
            assert_eq!(bytes_of(&parts, what), Some(2 * disk_bytes), "{text}");
        }
        for text in ["name = \"llmr\"", "name = \"kd\""] {
            assert!(networks(&method(text), &network, None).third.is_none());
        }
    }

    /// 1920 weights in the matrices of each of two layers, 24·16 in the embedding, which is the head,
    /// too, and 5·16 in the norms.
    #[test]
    fn a_network_that_is_asked_in_bf16_has_two_bytes_a_packed_weight() {
        let network = tiny_network(1);
        let rounded = network.clone().in_precision(kernels::Precision::Bf16);
        let [layers, embedding, vectors] = [2 * 1920, 24 * 16, 5 * 16];
        let plain = 4 * (layers + embedding + vectors);
        let packed = 2 * (layers + embedding) + 4 * (embedding + vectors);
        assert_eq!(asked_bytes(&network), plain);
        assert_eq!(asked_bytes(&rounded), packed);
        assert_eq!(asked_bytes(&rounded.packed()), packed);
        let text = "method.name = \"gkd\"\nteacher.precision = \"bf16\"\n";
        let of = |text: &str| {
            let (config, teacher) = (config(text), rounded.packed());
            let networks = networks(&config.method, &network, Some(&teacher));
            memory(&config, &networks, peak(100, Some(40)))
        };
        let parts = of(text);
        assert_eq!(bytes_of(&parts, "teacher"), Some(packed));
        assert_eq!(bytes_of(&parts, "student's weights"), Some(plain));
        assert_eq!(bytes_of(&parts, "packed while it samples"), None);
        let parts = of(&format!("{text}student.sampling_precision = \"bf16\"\n"));
        let beside = bytes_of(&parts, "packed while it samples");
        assert_eq!(beside, Some(2 * (layers + embedding)));
    }
}
