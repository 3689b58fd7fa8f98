//! What the quickstart does, in numbers, and the configuration that follows from them.

/// The numbers of a quickstart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    /// Reference of the teacher.
    pub(crate) teacher: &'a str,
    /// Layers that the student keeps. The more, the better it speaks again after a short training.
    pub(crate) layers: usize,
    /// Prompts to train on.
    pub(crate) train_prompts: usize,
    /// Prompts to measure on.
    pub(crate) held_out_prompts: usize,
    /// Of these, how many are shown with their answers.
    pub(crate) shown: usize,
    /// Rows with longer prompts (tokens, chat template included) are left out: none has.
    pub(crate) max_prompt_tokens: usize,
    /// Length limit of every answer, in tokens.
    pub(crate) max_new_tokens: usize,
    /// DPKD's tie to the teacher.
    pub(crate) beta: f64,
    /// Weight of the language-modelling term on the teacher's samples. It is what mends a student
    /// that lost layers; the preference term alone learns slowly from a student that says nothing
    /// sensible.
    pub(crate) lm_weight: f64,
    /// Optimiser steps.
    pub(crate) steps: usize,
    /// Pairs of answers a step.
    pub(crate) batch: usize,
    /// Highest learning rate of AdamW.
    pub(crate) learning_rate: f64,
    /// Steps until it is reached.
    pub(crate) warmup_steps: usize,
    /// Steps between checkpoints: what a killed quickstart loses at most.
    pub(crate) checkpoint_every: usize,
    /// Tokens computed at once.
    pub(crate) micro_batch_tokens: usize,
    /// Sequences generated at once; also of the speed that is reported.
    pub(crate) sampling_batch: usize,
    /// Tokens a sequence, where the speed is measured.
    pub(crate) speed_tokens: usize,
}

/// The quickstart as users get it: at most ten minutes on two cores.
pub(crate) const PLAN: Plan<'static> = Plan {
    teacher: "smollm2-135m-instruct",
    layers: 24,
    train_prompts: 320,
    held_out_prompts: 64,
    shown: 2,
    max_prompt_tokens: 96,
    max_new_tokens: 48,
    beta: 0.1,
    lm_weight: 1.0,
    steps: 60,
    batch: 8,
    learning_rate: 2e-4,
    warmup_steps: 4,
    checkpoint_every: 20,
    micro_batch_tokens: 1024,
    sampling_batch: 32,
    speed_tokens: 32,
};

/// Answers that are read back may have some tokens more than were generated: EOS, and where text
/// is cut into tokens differently.
const SPARE_TOKENS: usize = 16;

impl Plan<'_> {
    /// The configuration of the training, as a user would write it; its place is beside `data/`.
    pub(crate) fn configuration(&self, seed: u64) -> String {
        format!(
            r#"# The training of `distil quickstart`, as a configuration of `distil train`. To vary it:
#   distil train quickstart.toml --out other --set method.beta=0.5
seed = {seed}

[teacher]
model = {teacher:?}

[student]
prune = {{ layers = {layers} }}            # evenly spaced layers of the teacher, first and last kept

[data]
train = "data/train.jsonl"           # prompts alone: the teacher answers them
eval = "data/eval.jsonl"             # prompts on other topics, with the teacher's greedy answers
template = "chat"
max_prompt_tokens = {max_prompt_tokens}
max_response_tokens = {max_response_tokens}

[method]
name = "dpkd"                        # what the teacher says is preferred to what the student says
form = "sequence"
beta = {beta:?}
lm_weight = {lm_weight:?}
lm_source = "teacher"
max_new_tokens = {max_new_tokens}

[train]
steps = {steps}
batch = {batch}
micro_batch_tokens = {micro_batch_tokens}
learning_rate = {learning_rate:?}
warmup_steps = {warmup_steps}
checkpoint_every = {checkpoint_every}
keep_last = 1
keep_best = false

[eval]
every = 0                            # before the first step and after the last
metrics = ["forward_kl", "rouge_l"]
rows = {held_out_prompts}
samples = {shown}
max_new_tokens = {max_new_tokens}
batch = {sampling_batch}
"#,
            teacher = self.teacher,
            layers = self.layers,
            max_prompt_tokens = self.max_prompt_tokens,
            max_response_tokens = self.max_new_tokens + SPARE_TOKENS,
            beta = self.beta,
            lm_weight = self.lm_weight,
            max_new_tokens = self.max_new_tokens,
            steps = self.steps,
            batch = self.batch,
            micro_batch_tokens = self.micro_batch_tokens,
            learning_rate = self.learning_rate,
            warmup_steps = self.warmup_steps,
            checkpoint_every = self.checkpoint_every,
            held_out_prompts = self.held_out_prompts,
            shown = self.shown,
            sampling_batch = self.sampling_batch,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, DpkdForm, LmSource, Method, Prune, Start};

    #[test]
    fn the_configuration_says_what_the_plan_says() {
        let text = PLAN.configuration(7);
        let config = Config::parse(&text, Path::new("/q/quickstart.toml"), &[]).unwrap();
        assert_eq!(config.seed, 7);
        assert_eq!(
            config.student.start,
            Start::Prune(Prune::Layers(PLAN.layers))
        );
        assert_eq!(config.data.train, [Path::new("/q/data/train.jsonl")]);
        let Method::Dpkd(dpkd) = &config.method else {
            panic!("{:?}", config.method)
        };
        let DpkdForm::Sequence(form) = &dpkd.form else {
            panic!("{dpkd:?}")
        };
        assert_eq!(form.lm_source, LmSource::Teacher);
        let rollout = config.method.rollout().unwrap();
        assert_eq!(rollout.max_new_tokens, PLAN.max_new_tokens);
        assert_eq!(config.eval.metrics, ["forward_kl", "rouge_l"]);
        assert_eq!(config.train.learning_rate, PLAN.learning_rate);
    }
}
