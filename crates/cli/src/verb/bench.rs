//! `distil bench`: speed, as a share of what this machine can do.

use clap::{Args, Subcommand};
use distil::bench::{
    Figures, HeadCase, LoadCase, OnPolicyCase, Roofs, SampleCase, ScoreCase, StepCase, head, load,
    on_policy, roofs, sample, score, step,
};
use distil_model::Model;
use indicatif::HumanBytes;
use serde::Serialize;

use crate::arguments::PrecisionArguments;
use crate::progress::Progress;
use crate::{loading, output, verb};

/// Measure the speed of training, sampling, scoring, loading or the output head.
///
/// The share of the roof is the least time this machine needs, from its own measured matrix rate in
/// the precision of the computation and its memory bandwidth, over the time taken. `roof` shows these
/// rates. Nothing else should run meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil bench roof
  distil bench step
  distil bench step --student-layers 16 --batch 8 --length 512 --precision bf16
  distil bench step --on-policy --prompt-tokens 32 --new-tokens 128
  distil bench sample --sequences 1,8,32,128 --json
  distil bench score --precision bf16
  distil bench load --model student
  distil bench head --tokens 2048")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,

    /// Print JSON, an object a line: bench, case, precision, threads, seconds, tokens_per_second,
    /// gflops, share_of_roof, peak_rss_bytes, phases (seconds), roof; of `roof`: bench, threads, f32,
    /// bf16, memory
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What the machine can do: rates of matrix products and of reading memory, with all threads and
    /// with one.
    Roof,
    Step(Step),
    Head(Head),
    Sample(Sample),
    Score(Score),
    Load(Load),
}

/// A step of distillation: teacher, student, head, backward pass, optimiser; with --on-policy on
/// responses that the student samples first.
#[derive(Debug, Args)]
struct Step {
    /// The teacher
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,

    /// Layers that the student keeps of it
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = verb::at_least_one)]
    student_layers: usize,

    /// Sequences
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = verb::at_least_one)]
    batch: usize,

    /// Tokens of each sequence
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = verb::at_least_one,
        conflicts_with = "on_policy")]
    length: usize,

    /// Let the student sample the responses, as GKD does, every one to its full length
    #[arg(long)]
    on_policy: bool,

    /// Tokens of each prompt, with --on-policy
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = verb::at_least_one,
        requires = "on_policy")]
    prompt_tokens: usize,

    /// Tokens of each response, with --on-policy
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = verb::at_least_one,
        requires = "on_policy")]
    new_tokens: usize,

    /// Steps that are averaged, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = verb::at_least_one)]
    steps: usize,

    #[command(flatten)]
    precision: PrecisionArguments,
}

/// The output head with its loss and both gradients, without a model around it.
#[derive(Debug, Args)]
struct Head {
    /// Positions
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = verb::at_least_one)]
    tokens: usize,

    /// Width of student and teacher
    #[arg(long, value_name = "N", default_value_t = 576, value_parser = verb::at_least_one)]
    width: usize,

    /// Vocabulary of both
    #[arg(long, value_name = "N", default_value_t = 49152, value_parser = verb::at_least_one)]
    vocabulary: usize,

    /// Passes that are averaged, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = verb::at_least_one)]
    passes: usize,

    #[command(flatten)]
    precision: PrecisionArguments,
}

/// Sampling at temperature 1, every sequence to its full length.
#[derive(Debug, Args)]
struct Sample {
    /// The model
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,

    /// Sequences, generated together; for each number of a list a measurement
    #[arg(long, value_name = "LIST", default_value = "32", value_delimiter = ',',
        value_parser = verb::at_least_one)]
    sequences: Vec<usize>,

    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = verb::at_least_one)]
    prompt_tokens: usize,

    /// Tokens generated for each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = verb::at_least_one)]
    new_tokens: usize,

    #[command(flatten)]
    precision: PrecisionArguments,
}

/// Log-probabilities of given tokens: a forward pass, and the head at every position.
#[derive(Debug, Args)]
struct Score {
    /// The model
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,

    /// Sequences
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = verb::at_least_one)]
    batch: usize,

    /// Tokens of each sequence
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = verb::at_least_one)]
    length: usize,

    /// Passes that are averaged, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = verb::at_least_one)]
    passes: usize,

    #[command(flatten)]
    precision: PrecisionArguments,
}

/// From nothing to the first token: weights, tokenizer, a short prompt.
///
/// The model is opened once before, so its files are in the system's cache.
#[derive(Debug, Args)]
struct Load {
    /// The model
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,

    /// Starts, of which the one with the median time is reported
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = verb::at_least_one)]
    passes: usize,
}

pub(crate) fn run(bench: &Bench, progress: &mut Progress) -> anyhow::Result<()> {
    match &bench.what {
        What::Roof => bench.print(&roofs()?, roofs_table),
        What::Step(case) => bench.print(&case.measure(progress)?, table),
        What::Head(case) => bench.print(&case.measure()?, table),
        What::Sample(case) => {
            let model = loading::model(&case.model, progress)?;
            for &sequences in &case.sequences {
                bench.print(&case.measure(&model, sequences)?, table)?;
            }
            Ok(())
        }
        What::Score(case) => bench.print(&case.measure(progress)?, table),
        What::Load(case) => bench.print(&case.measure(progress)?, table),
    }
}

impl Bench {
    /// Prints a result as JSON or as the table that `table` makes of it.
    fn print<T: Serialize>(&self, result: &T, table: fn(&T) -> String) -> anyhow::Result<()> {
        match self.json {
            true => output::json(result),
            false => output::line(table(result)),
        }
    }
}

impl Step {
    fn measure(&self, progress: &mut Progress) -> anyhow::Result<Figures> {
        let model = loading::model(&self.model, progress)?;
        let precision = self.precision.precision();
        let figures = match self.on_policy {
            false => step(
                model.network,
                &StepCase {
                    student_layers: self.student_layers,
                    batch: self.batch,
                    length: self.length,
                    steps: self.steps,
                    precision,
                },
            ),
            true => on_policy(
                model.network,
                &OnPolicyCase {
                    student_layers: self.student_layers,
                    batch: self.batch,
                    prompt_tokens: self.prompt_tokens,
                    new_tokens: self.new_tokens,
                    steps: self.steps,
                    precision,
                },
            ),
        };
        Ok(figures?)
    }
}

impl Head {
    fn measure(&self) -> anyhow::Result<Figures> {
        Ok(head(&HeadCase {
            tokens: self.tokens,
            width: self.width,
            vocabulary: self.vocabulary,
            passes: self.passes,
            precision: self.precision.precision(),
        })?)
    }
}

impl Sample {
    fn measure(&self, model: &Model, sequences: usize) -> anyhow::Result<Figures> {
        let case = SampleCase {
            sequences,
            prompt_tokens: self.prompt_tokens,
            new_tokens: self.new_tokens,
            precision: self.precision.precision(),
        };
        Ok(sample(&model.network, &case)?)
    }
}

impl Score {
    fn measure(&self, progress: &mut Progress) -> anyhow::Result<Figures> {
        let model = loading::model(&self.model, progress)?;
        let case = ScoreCase {
            batch: self.batch,
            length: self.length,
            passes: self.passes,
            precision: self.precision.precision(),
        };
        Ok(score(&model.network, &case)?)
    }
}

impl Load {
    fn measure(&self, progress: &mut Progress) -> anyhow::Result<Figures> {
        // Fetches the model, says where it is, and is gone before the measurement.
        let path = loading::model(&self.model, progress)?.path().to_owned();
        let passes = self.passes;
        Ok(load(&path, &LoadCase { passes })?)
    }
}

/// One line of what was computed, one of the result, the phases from the longest on, the roof.
fn table(figures: &Figures) -> String {
    let memory = figures.peak_rss_bytes;
    let memory = memory.map(|bytes| format!(", peak memory {}", HumanBytes(bytes)));
    let mut lines = vec![
        format!(
            "{}: {} ({})",
            figures.bench, figures.case, figures.precision
        ),
        format!(
            "  {:.3} s, {} tokens/s, {:.0} GFLOP/s, {:.0} % of the roof{}",
            figures.seconds,
            rate(figures.tokens_per_second),
            figures.gflops,
            100.0 * figures.share_of_roof,
            memory.unwrap_or_default(),
        ),
    ];
    let mut phases: Vec<(&str, f64)> = figures.phases.iter().map(|(&p, &s)| (p, s)).collect();
    phases.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    lines.extend(phases.into_iter().map(|(phase, seconds)| {
        let percent = 100.0 * seconds / figures.seconds;
        format!("    {phase:<16}{seconds:>9.3} s{percent:>6.1} %")
    }));
    lines.push(format!(
        "  roof: {:.0} GFLOP/s in {} matrix products ({}), {:.1} GB/s read from memory, {}",
        figures.roof.gflops,
        figures.precision,
        figures.roof.instructions,
        figures.roof.gigabytes_per_second,
        threads(figures.threads),
    ));
    lines.join("\n")
}

/// A line for each roof: with all threads, with one.
fn roofs_table(roofs: &Roofs) -> String {
    let matrix = |name: &str, all: f64, one: f64, instructions: &str| {
        format!("  {name:<22}{all:>10.0}{one:>12.0}  GFLOP/s  {instructions}")
    };
    [
        format!(
            "{:<24}{:>10}{:>12}",
            "roof:",
            threads(roofs.threads),
            threads(1)
        ),
        matrix(
            "f32 matrix products",
            roofs.f32.gflops,
            roofs.f32.gflops_one_thread,
            roofs.f32.instructions,
        ),
        matrix(
            "bf16 matrix products",
            roofs.bf16.gflops,
            roofs.bf16.gflops_one_thread,
            roofs.bf16.instructions,
        ),
        format!(
            "  {:<22}{:>10.1}{:>12.1}  GB/s",
            "reading memory",
            roofs.memory.gigabytes_per_second,
            roofs.memory.gigabytes_per_second_one_thread,
        ),
    ]
    .join("\n")
}

fn threads(count: usize) -> String {
    match count {
        1 => "1 thread".into(),
        _ => format!("{count} threads"),
    }
}

/// A rate with a digit behind the point where it is small.
fn rate(number: f64) -> String {
    match number < 100.0 {
        true => format!("{number:.1}"),
        false => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use distil::bench::{MatrixRoof, MemoryRoof, RoofFigures};

    use super::*;

    #[test]
    fn the_table_has_the_longest_phase_first_and_the_roof_last() {
        let figures = Figures {
            bench: "score",
            case: "4 × 256 tokens".into(),
            precision: "bf16",
            threads: 2,
            seconds: 2.0,
            tokens_per_second: 512.0,
            gflops: 300.0,
            share_of_roof: 0.75,
            peak_rss_bytes: None,
            phases: BTreeMap::from([("forward", 0.5), ("head", 1.5)]),
            roof: RoofFigures {
                instructions: "AVX-512",
                gflops: 400.0,
                gigabytes_per_second: 20.0,
            },
        };
        let expected = "\
score: 4 × 256 tokens (bf16)
  2.000 s, 512 tokens/s, 300 GFLOP/s, 75 % of the roof
    head                1.500 s  75.0 %
    forward             0.500 s  25.0 %
  roof: 400 GFLOP/s in bf16 matrix products (AVX-512), 20.0 GB/s read from memory, 2 threads";
        assert_eq!(table(&figures), expected);
    }

    #[test]
    fn every_roof_has_a_line() {
        let matrix = |instructions, gflops| MatrixRoof {
            instructions,
            gflops,
            gflops_one_thread: gflops / 2.0,
        };
        let roofs = Roofs {
            bench: "roof",
            threads: 2,
            f32: matrix("AVX-512", 400.0),
            bf16: matrix("AMX", 1600.0),
            memory: MemoryRoof {
                gigabytes_per_second: 20.0,
                gigabytes_per_second_one_thread: 15.0,
            },
        };
        let expected = "\
roof:                    2 threads    1 thread
  f32 matrix products          400         200  GFLOP/s  AVX-512
  bf16 matrix products        1600         800  GFLOP/s  AMX
  reading memory              20.0        15.0  GB/s";
        assert_eq!(roofs_table(&roofs), expected);
    }
}
