//! The learning rate of a step: a linear warm-up to the peak, then constant, linear or half a
//! cosine down to a share of it.

use crate::config::{Schedule, Train};

/// Learning rate of `step` (from 1) of `steps`.
pub fn learning_rate(settings: &Train, step: usize, steps: usize) -> f64 {
    let peak = settings.learning_rate;
    let warmup = settings.warmup_steps;
    if step <= warmup {
        return peak * step as f64 / warmup as f64;
    }
    // 0 at the first step after the warm-up, 1 at the last step of all.
    let span = steps.saturating_sub(warmup + 1).max(1) as f64;
    let progress = ((step - warmup - 1) as f64 / span).min(1.0);
    let share = match settings.schedule {
        Schedule::Constant => return peak,
        Schedule::Linear => 1.0 - progress,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
    };
    let low = settings.min_learning_rate_ratio;
    peak * (low + (1.0 - low) * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings(schedule: &str) -> Train {
        let share = match schedule {
            "constant" => "",
            _ => "min_learning_rate_ratio = 0.1\n",
        };
        let text = format!(
            "[student]\nmodel = \"hf:a/b\"\n[data]\ntrain = \"x.jsonl\"\n[method]\nname = \"sft\"\n\
             [train]\nsteps = 11\nlearning_rate = 0.1\nwarmup_steps = 4\n\
             {share}schedule = \"{schedule}\"\n"
        );
        Config::parse(&text, std::path::Path::new("run.toml"), &[])
            .unwrap()
            .train
    }

    #[test]
    fn rises_to_the_peak_and_falls_to_its_share() {
        for (schedule, middle, last) in [
            ("linear", 0.055, 0.01),
            ("cosine", 0.055, 0.01),
            ("constant", 0.1, 0.1),
        ] {
            let settings = settings(schedule);
            let rate = |step| learning_rate(&settings, step, 11);
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{schedule}: {a} {b}");
            close(rate(1), 0.025);
            close(rate(4), 0.1);
            close(rate(5), 0.1);
            close(rate(8), middle);
            close(rate(11), last);
        }
    }
}
