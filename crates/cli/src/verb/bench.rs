//! `distil bench`: speed, as a share of what this machine can do.

use clap::{Args, Subcommand};
use distil::bench::{Figures, HeadCase, SampleCase, StepCase, head, sample, step};
use indicatif::HumanBytes;

use crate::progress::Progress;
use crate::{loading, output, verb};

/// Measure the speed of training, sampling or the output head.
///
/// The share of the roof is the least time this machine needs, from its own measured matrix rate and
/// memory bandwidth, over the time taken. Nothing else should run meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil bench step
  distil bench step --student-layers 16 --batch 8 --length 512
  distil bench sample --json
  distil bench head --tokens 2048")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,

    /// Print a JSON object: bench, case, precision, tokens_per_second, gflops, share_of_roof,
    /// peak_rss_bytes, phases (seconds), roof
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    Step(Step),
    Sample(Sample),
    Head(Head),
}

/// A step of off-policy distillation: teacher, student, head, backward pass, optimiser.
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
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = verb::at_least_one)]
    length: usize,

    /// Steps that are averaged, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = verb::at_least_one)]
    steps: usize,
}

/// Sampling at temperature 1, every sequence to its full length.
#[derive(Debug, Args)]
struct Sample {
    /// The model
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,

    /// Sequences, generated together
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = verb::at_least_one)]
    sequences: usize,

    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = verb::at_least_one)]
    prompt_tokens: usize,

    /// Tokens generated for each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = verb::at_least_one)]
    new_tokens: usize,
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
}

pub(crate) fn run(bench: &Bench, progress: &mut Progress) -> anyhow::Result<()> {
    let figures = match &bench.what {
        What::Step(case) => {
            let model = loading::model(&case.model, progress)?;
            step(
                &model.network,
                &StepCase {
                    student_layers: case.student_layers,
                    batch: case.batch,
                    length: case.length,
                    steps: case.steps,
                },
            )?
        }
        What::Sample(case) => {
            let model = loading::model(&case.model, progress)?;
            sample(
                &model.network,
                &SampleCase {
                    sequences: case.sequences,
                    prompt_tokens: case.prompt_tokens,
                    new_tokens: case.new_tokens,
                },
            )?
        }
        What::Head(case) => head(&HeadCase {
            tokens: case.tokens,
            width: case.width,
            vocabulary: case.vocabulary,
            passes: case.passes,
        })?,
    };
    match bench.json {
        true => output::json(&figures),
        false => output::line(table(&figures)),
    }
}

fn table(figures: &Figures) -> String {
    let mut table = format!(
        "{}: {} ({})\n  {:.0} tokens/s, {:.0} GFLOP/s, {:.0} % of the roof\n",
        figures.bench,
        figures.case,
        figures.precision,
        figures.tokens_per_second,
        figures.gflops,
        100.0 * figures.share_of_roof,
    );
    if let Some(bytes) = figures.peak_rss_bytes {
        table.push_str(&format!("  peak memory {}\n", HumanBytes(bytes)));
    }
    let total: f64 = figures.phases.values().sum();
    for (phase, seconds) in &figures.phases {
        table.push_str(&format!(
            "  {phase:<16} {seconds:>8.3} s {:>5.1} %\n",
            100.0 * seconds / total
        ));
    }
    table.push_str(&format!("  {:<16} {total:>8.3} s\n", "together"));
    table.push_str(&format!(
        "  this machine: {:.0} GFLOP/s in f32 matrix products, {:.1} GB/s read from memory",
        figures.roof.gflops, figures.roof.gigabytes_per_second
    ));
    table
}
