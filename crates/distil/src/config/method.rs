//! `[method]`: how the student learns. Each method has its own hyperparameters and no others; the
//! formulas stand with the methods themselves.
//!
//! Names, ranges and defaults are those of the list in `keys`: what a user did not set is filled in
//! from there, and the whole is read into one of these types. A key that the types then do not hold
//! has no effect in the chosen combination, and is refused by name.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::data::Data;
use super::document::Document;
use super::keys::{KEYS, METHODS, Preset};
use super::suggest::belongs;
use crate::Result;

/// A method and its hyperparameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Method {
    /// Supervised fine-tuning: cross-entropy on the data's responses.
    Sft,
    /// A divergence to the teacher on the data's responses.
    Kd(Kd),
    /// Cross-entropy on the teacher's samples.
    SeqKd(SeqKd),
    /// A divergence to the teacher on the data's responses and the student's own.
    Gkd(Gkd),
    /// A skewed divergence with adaptive use of the student's own responses.
    DistiLlm(DistiLlm),
    /// Reverse KL by policy gradient.
    MiniLlm(MiniLlm),
    /// Direct preference knowledge distillation and its relatives.
    Dpkd(Dpkd),
    /// REINFORCE on the reward that the teacher's logits induce.
    Llmr(Llmr),
    /// Min–max game with a reward model in a confidence set of preferences.
    Pbkd(Pbkd),
    /// Moment matching with a Q-function and preferences.
    #[serde(rename = "mm_pbkd")]
    MmPbkd(MmPbkd),
}

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides the logits; above 0.
    pub temperature: f64,
    /// Only the k likeliest tokens; 0 is all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability, in (0, 1]; 1 is all.
    pub top_p: f64,
}

impl Sampling {
    /// Whether tokens are drawn from the model's own distribution.
    pub fn is_plain(&self) -> bool {
        self.temperature == 1.0 && self.top_k == 0 && self.top_p >= 1.0
    }
}

/// How responses are sampled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Length limit, in tokens.
    pub max_new_tokens: usize,
    /// How tokens are drawn.
    #[serde(flatten)]
    pub sampling: Sampling,
}

/// Distance from teacher p to student q at one position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "divergence", rename_all = "snake_case")]
pub enum Divergence {
    /// KL(p‖q).
    ForwardKl,
    /// KL(q‖p).
    ReverseKl,
    /// (1−s)·KL(p‖q) + s·KL(q‖p).
    SymmetricKl {
        /// Share s of the reverse KL.
        symmetric_share: f64,
    },
    /// β·KL(p‖m) + (1−β)·KL(q‖m), m = β·p + (1−β)·q.
    Jsd {
        /// β, in [0, 1]; the ends are the limits after division by β and 1−β.
        jsd_beta: f64,
    },
    /// ½ Σ |p − q|.
    Tvd,
    /// KL(p‖α·p + (1−α)·q).
    SkewKl {
        /// α, in [0, 1).
        skew_alpha: f64,
    },
    /// KL(q‖(1−α)·p + α·q).
    SkewReverseKl {
        /// α, in [0, 1).
        skew_alpha: f64,
    },
    /// Forward and reverse KL, weighted by the gap on the teacher's head and tail.
    Akl {
        /// Probability mass of the head.
        akl_head_mass: f64,
    },
}

/// loss = (1 − ce_share)·T²·D(p_T, q_T) + ce_share·CE.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DivergenceTerm {
    /// D.
    #[serde(flatten)]
    pub divergence: Divergence,
    /// T, divides the logits of both models inside D; above 0.
    pub divergence_temperature: f64,
    /// Share of cross-entropy against the response's tokens, in [0, 1].
    pub ce_share: f64,
}

/// Word-level distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kd {
    /// What is minimised.
    #[serde(flatten)]
    pub term: DivergenceTerm,
    /// On which text.
    #[serde(flatten)]
    pub responses: Responses,
}

/// Whose responses a divergence is measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "responses", rename_all = "lowercase")]
pub enum Responses {
    /// The data's.
    Data,
    /// The teacher's samples, drawn once and kept.
    Teacher(Rollout),
}

/// loss = CE(teacher samples).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeqKd {
    /// How the teacher's responses are drawn.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// Responses for every prompt, at least 1.
    pub samples_per_prompt: usize,
}

/// Generalised knowledge distillation (arXiv 2306.13649).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gkd {
    /// What is minimised.
    #[serde(flatten)]
    pub term: DivergenceTerm,
    /// λ: probability that a batch consists of the student's own responses.
    pub student_share: f64,
    /// How the student's responses are drawn.
    #[serde(flatten)]
    pub rollout: Rollout,
}

/// DistiLLM (arXiv 2402.03898).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistiLlm {
    /// What is minimised.
    #[serde(flatten)]
    pub term: DivergenceTerm,
    /// What the threshold rises by when the validation loss has risen.
    pub threshold_step: f64,
    /// Rise of the validation loss that counts, in its unit.
    pub threshold_tolerance: f64,
    /// Student responses kept for replay.
    pub replay_rows: usize,
    /// How the student's responses are drawn.
    #[serde(flatten)]
    pub rollout: Rollout,
}

/// MiniLLM (arXiv 2306.08543).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MiniLlm {
    /// α: share of the teacher in the distribution that responses are drawn from.
    pub teacher_mix: f64,
    /// Whether the first step of the return is summed over the vocabulary instead of sampled.
    pub single_step: bool,
    /// Whether the long-term return is divided by the number of its steps.
    pub length_normalize: bool,
    /// Weight of the language-modelling term; 0 leaves it out.
    pub lm_weight: f64,
    /// Text of the language-modelling term.
    pub lm_source: LmSource,
    /// How responses are drawn.
    #[serde(flatten)]
    pub rollout: Rollout,
}

/// Direct preference knowledge distillation (arXiv 2406.19774).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dpkd {
    /// The paper's loss or the released code's.
    #[serde(flatten)]
    pub form: DpkdForm,
    /// Factor of the log-ratio inside the sigmoid; above 0.
    pub beta: f64,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "lowercase")]
pub enum DpkdForm {
    /// Whole responses (eq. 9).
    Sequence(DpkdSequence),
    /// The teacher's likeliest token against the student's, at every position of the data.
    Token(DpkdToken),
}

/// loss = L_preference + lm_weight·L_lm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DpkdSequence {
    /// The preference loss.
    #[serde(flatten)]
    pub loss: PreferenceKind,
    /// Where the pairs come from.
    #[serde(flatten)]
    pub pairs: Pairs,
    /// Whether each log-ratio is divided by its response's length in tokens (eq. 9, else eq. 8).
    pub length_normalize: bool,
    /// λ of the language-modelling term; 0 leaves it out.
    pub lm_weight: f64,
    /// Text of the language-modelling term.
    pub lm_source: LmSource,
}

/// A loss on a pair of responses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loss", rename_all = "lowercase")]
pub enum PreferenceKind {
    /// −log σ of the margin of implicit rewards.
    Dpkd {
        /// Reference of the implicit rewards.
        reference: Reference,
        /// Assumed share of wrongly ordered pairs, in [0, ½).
        label_smoothing: f64,
    },
    /// The same without length normalisation, as in DPO.
    Dpo {
        /// Reference of the implicit rewards.
        reference: Reference,
        /// Assumed share of wrongly ordered pairs, in [0, ½).
        label_smoothing: f64,
    },
    /// (Δ − 1/(2τ))², Δ the difference of the log-ratios.
    Ipo {
        /// Reference of the log-ratios.
        reference: Reference,
        /// τ, above 0.
        ipo_tau: f64,
    },
    /// −log σ(β log q(y_t) − β log q(y_s)) − log q(y_t).
    Cpo {
        /// Assumed share of wrongly ordered pairs, in [0, ½).
        label_smoothing: f64,
    },
    /// −log σ(β/|y_t| log q(y_t) − β/|y_s| log q(y_s) − γ).
    SimPo {
        /// Assumed share of wrongly ordered pairs, in [0, ½).
        label_smoothing: f64,
        /// γ, the margin aimed at.
        simpo_gamma: f64,
    },
}

/// Reference model of an implicit reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reference {
    /// log q/p with the teacher p.
    Teacher,
    /// log q alone.
    None,
}

/// Where preference pairs come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "pairs", rename_all = "lowercase")]
pub enum Pairs {
    /// A teacher sample, drawn once and kept, preferred to a fresh student sample.
    Samples(Rollout),
    /// The data's own `chosen` and `rejected`.
    Data,
}

/// loss = ce_share·CE(data) + (1 − ce_share)·L_kd + corpus_weight·[…].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DpkdToken {
    /// The loss on Δ.
    #[serde(flatten)]
    pub loss: TokenLoss,
    /// Reference of Δ.
    pub reference: Reference,
    /// Share of cross-entropy on the data, in [0, 1].
    pub ce_share: f64,
    /// Weight c of c·[ce_share·CE(corpus) + (1 − ce_share)·KL(p‖q)(corpus)]; 0 leaves it out.
    pub corpus_weight: f64,
}

/// The loss of DPKD's token form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "token_loss", rename_all = "lowercase")]
pub enum TokenLoss {
    /// −log σ(βΔ).
    Dpkd {
        /// Assumed share of wrongly ordered pairs, in [0, ½).
        label_smoothing: f64,
    },
    /// (Δ − 1/(2β))².
    Ipo,
}

/// LLM-induced reward (arXiv 2409.12500) and K-step returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Llmr {
    /// Value of the next state.
    pub value: StateValue,
    /// Prompt templates that the reward is averaged over; empty is the data's own.
    pub templates: Vec<String>,
    /// What becomes of responses that did not end.
    pub unfinished: Unfinished,
    /// Tokens between two bootstraps (K of KETCHUP); 1 is LLMR.
    pub bootstrap_every: usize,
    /// Whether every token gets the whole response's return.
    pub sentence_level: bool,
    /// What is subtracted from a return.
    pub baseline: Baseline,
    /// Divides advantages; above 0.
    pub return_scale: f64,
    /// Whether advantages are made to have mean 0 and variance 1 over the batch.
    pub normalize_advantage: bool,
    /// Largest weight of a token after the importance ratio; 0 is no limit.
    pub weight_clip: f64,
    /// η of the flattening regulariser, the mean of −log q over the vocabulary.
    pub flatten_weight: f64,
    /// Optimiser steps between refreshes of the behaviour policy; 1 is on-policy.
    pub sync_every: usize,
    /// How the student's responses are drawn.
    #[serde(flatten)]
    pub rollout: Rollout,
}

/// Value of a state under the teacher's q.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateValue {
    /// max_a q(s, a).
    Max,
    /// Σ_a p(a|s) q(s, a).
    Expected,
    /// log Σ_a exp q(s, a).
    Soft,
}

/// What becomes of responses that reached the length limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unfinished {
    /// They are left out, and the loss is multiplied by the share of those that ended.
    Drop,
    /// They take part; the unknown value of the state behind their last token is left out of its
    /// return.
    Mask,
}

/// What is subtracted from a return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// Nothing.
    None,
    /// max_a q(s_t, a).
    MaxQ,
    /// Σ_a p(a|s_t) q(s_t, a).
    ExpectedQ,
    /// The mean over the batch's other responses.
    BatchMean,
    /// mean(G·g²)/mean(g²) over the other responses, g the length of the gradient of log q in the
    /// logits.
    MinVariance,
}

/// Preference-based distillation (arXiv 2505.18952), Algorithms 1 and 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pbkd {
    /// Fixed pairs, or new ones as the student changes.
    #[serde(flatten)]
    pub mode: PbkdMode,
    /// Student responses to every prompt of a step.
    pub samples_per_prompt: usize,
    /// Share of the prompts on whose pairs the reward model is only tested.
    pub held_out_share: f64,
    /// Layers of the reward model, evenly spaced out of the student's at its start.
    pub reward_layers: usize,
    /// R: rewards lie in (−R, R).
    pub reward_bound: f64,
    /// Learning rate of the reward model.
    pub reward_learning_rate: f64,
    /// Steps of maximum likelihood before the game, and again after new pairs.
    pub fit_steps: usize,
    /// Reward steps for each step of the student.
    pub reward_steps: usize,
    /// ζ: how much less likely than the best reward model, in nats over all pairs, a plausible one
    /// may be.
    pub zeta: f64,
    /// Dual variable at the start.
    pub dual_start: f64,
    /// Learning rate of the dual variable.
    pub dual_learning_rate: f64,
    /// What is subtracted from a reward.
    pub baseline: RewardBaseline,
    /// Weight of the cross-entropy on the teacher's samples.
    pub lm_weight: f64,
    /// Weight of the reverse KL to the teacher on the student's samples.
    pub kl_weight: f64,
    /// How both models' responses are drawn.
    #[serde(flatten)]
    pub rollout: Rollout,
}

/// Where PbKD's pairs come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum PbkdMode {
    /// Algorithm 1: pairs made once.
    Offline {
        /// Samples of both models, or the data's own pairs.
        #[serde(flatten)]
        pairs: PairSource,
    },
    /// Algorithm 2: pairs of the current student are added.
    Online {
        /// Optimiser steps between additions.
        iteration_steps: usize,
        /// Who orders the pairs, and how surely.
        #[serde(flatten)]
        judge: JudgeSettings,
    },
}

impl PbkdMode {
    /// Who orders the pairs that the models' responses make; nobody where the data has them.
    pub fn judge(&self) -> Option<&JudgeSettings> {
        match self {
            Self::Online { judge, .. }
            | Self::Offline {
                pairs: PairSource::Samples(judge),
            } => Some(judge),
            Self::Offline {
                pairs: PairSource::Data,
            } => None,
        }
    }
}

/// Samples of both models, or the data's own pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "pairs", rename_all = "lowercase")]
pub enum PairSource {
    /// A teacher sample and a student sample, ordered by the judge.
    Samples(JudgeSettings),
    /// The data's own `chosen` and `rejected`.
    Data,
}

/// Who orders pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct JudgeSettings {
    /// By what.
    pub judge: JudgeKind,
    /// Scale of the Bradley–Terry noise: P(prefer 1) = σ((score₁ − score₂)/noise); 0 is none.
    pub judge_noise: f64,
}

/// By what pairs are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKind {
    /// ROUGE-L against the data's response.
    RougeL,
    /// The teacher's log-probability, a token.
    TeacherLikelihood,
    /// The teacher's sample is always preferred.
    Teacher,
}

/// What is subtracted from a reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardBaseline {
    /// Nothing.
    None,
    /// The mean of the batch's other responses.
    BatchMean,
    /// The reward of the teacher's sample of the same prompt.
    Teacher,
}

/// Moment-matching PbKD (arXiv 2505.18952, Algorithm 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MmPbkd {
    /// Who orders pairs, and how surely.
    #[serde(flatten)]
    pub judge: JudgeSettings,
    /// Layers of the Q-function, evenly spaced out of the student's at its start.
    pub q_layers: usize,
    /// B: Q lies in (−B, B).
    pub q_bound: f64,
    /// κ: weight, in units of B, of the squares that keep tanh from saturating.
    pub q_penalty: f64,
    /// Learning rate of the Q-function.
    pub q_learning_rate: f64,
    /// Q steps for each step of the student.
    pub q_steps: usize,
    /// λ: weight of the preferences' log-likelihood in the Q-function's objective.
    pub preference_weight: f64,
    /// Share of the off-policy moment, on the teacher's samples.
    pub off_policy_share: f64,
    /// Weight of the cross-entropy on the teacher's samples.
    pub lm_weight: f64,
    /// How both models' responses are drawn.
    #[serde(flatten)]
    pub rollout: Rollout,
}

/// Text of a language-modelling term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LmSource {
    /// The teacher's sample, or the data's `chosen`.
    Teacher,
    /// The data's response.
    Data,
    /// `data.corpus`.
    Corpus,
}

/// What a method's steps ask of the teacher. What it is asked before the first step does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeacherInSteps {
    /// Nothing.
    Nothing,
    /// Its head: the hidden states are kept.
    Head,
    /// About texts that it has not read yet.
    Whole,
}

impl Method {
    /// The name as in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Kd(_) => "kd",
            Self::SeqKd(_) => "seqkd",
            Self::Gkd(_) => "gkd",
            Self::DistiLlm(_) => "distillm",
            Self::MiniLlm(_) => "minillm",
            Self::Dpkd(_) => "dpkd",
            Self::Llmr(_) => "llmr",
            Self::Pbkd(_) => "pbkd",
            Self::MmPbkd(_) => "mm_pbkd",
        }
    }

    /// Whether the method learns from a teacher.
    pub fn needs_teacher(&self) -> bool {
        match self {
            Self::Sft => false,
            Self::Dpkd(Dpkd {
                form: DpkdForm::Sequence(sequence),
                ..
            }) => sequence.pairs != Pairs::Data || sequence.loss.needs_reference(),
            _ => true,
        }
    }

    /// What the steps ask of the teacher; `cached`: whether its states on the training texts are kept.
    pub fn teacher_in_steps(&self, cached: bool) -> TeacherInSteps {
        let of_kept_texts = match self {
            Self::Sft | Self::SeqKd(_) => return TeacherInSteps::Nothing,
            Self::Kd(_) => true,
            Self::Gkd(settings) => settings.student_share == 0.0,
            Self::Dpkd(settings) => match &settings.form {
                DpkdForm::Token(token) => token.corpus_weight == 0.0,
                DpkdForm::Sequence(sequence) if sequence.loss.needs_reference() => false,
                DpkdForm::Sequence(_) => return TeacherInSteps::Nothing,
            },
            _ => false,
        };
        match cached && of_kept_texts {
            true => TeacherInSteps::Head,
            false => TeacherInSteps::Whole,
        }
    }

    /// How the method samples, if it does.
    pub fn rollout(&self) -> Option<&Rollout> {
        match self {
            Self::Sft => None,
            Self::Kd(settings) => match &settings.responses {
                Responses::Data => None,
                Responses::Teacher(rollout) => Some(rollout),
            },
            Self::SeqKd(settings) => Some(&settings.rollout),
            Self::Gkd(settings) => Some(&settings.rollout),
            Self::DistiLlm(settings) => Some(&settings.rollout),
            Self::MiniLlm(settings) => Some(&settings.rollout),
            Self::Dpkd(settings) => match &settings.form {
                DpkdForm::Sequence(DpkdSequence {
                    pairs: Pairs::Samples(rollout),
                    ..
                }) => Some(rollout),
                _ => None,
            },
            Self::Llmr(settings) => Some(&settings.rollout),
            Self::Pbkd(settings) => Some(&settings.rollout),
            Self::MmPbkd(settings) => Some(&settings.rollout),
        }
    }

    /// Whether the student answers prompts in every step.
    pub fn samples_student(&self) -> bool {
        self.rollout().is_some() && !matches!(self, Self::SeqKd(_) | Self::Kd(_))
    }

    /// Responses that the teacher gives to every prompt before the first step.
    pub fn teacher_answers(&self) -> usize {
        match self {
            Self::SeqKd(settings) => settings.samples_per_prompt,
            Self::Kd(_) | Self::Dpkd(_) | Self::Pbkd(_) | Self::MmPbkd(_)
                if self.rollout().is_some() =>
            {
                1
            }
            _ => 0,
        }
    }

    /// Text of the language-modelling term, where the method has one that weighs anything.
    pub fn lm_source(&self) -> Option<LmSource> {
        match self {
            Self::MiniLlm(settings) if settings.lm_weight > 0.0 => Some(settings.lm_source),
            Self::Dpkd(Dpkd {
                form: DpkdForm::Sequence(sequence),
                ..
            }) if sequence.lm_weight > 0.0 => Some(sequence.lm_source),
            Self::Dpkd(Dpkd {
                form: DpkdForm::Token(token),
                ..
            }) if token.corpus_weight > 0.0 => Some(LmSource::Corpus),
            _ => None,
        }
    }

    /// Whether the method learns from the rows' own responses.
    pub fn reads_responses(&self) -> bool {
        match self {
            Self::Sft | Self::Gkd(_) | Self::DistiLlm(_) => true,
            Self::Kd(settings) => settings.responses == Responses::Data,
            Self::Dpkd(Dpkd {
                form: DpkdForm::Token(_),
                ..
            }) => true,
            _ => self.lm_source() == Some(LmSource::Data),
        }
    }

    /// Whether the method goes over the rows' prompts, whatever their responses.
    pub fn reads_prompts(&self) -> bool {
        match self {
            Self::SeqKd(_) | Self::MiniLlm(_) | Self::Llmr(_) | Self::MmPbkd(_) => true,
            Self::Kd(settings) => settings.responses != Responses::Data,
            Self::Pbkd(_) | Self::Dpkd(_) => self.rollout().is_some() && !self.reads_pairs(),
            _ => false,
        }
    }

    /// Whether the method learns from the rows' own pairs of responses.
    pub fn reads_pairs(&self) -> bool {
        match self {
            Self::Dpkd(Dpkd {
                form: DpkdForm::Sequence(sequence),
                ..
            }) => sequence.pairs == Pairs::Data,
            Self::Pbkd(settings) => matches!(
                settings.mode,
                PbkdMode::Offline {
                    pairs: PairSource::Data
                }
            ),
            _ => false,
        }
    }

    /// The longest response the method trains on, in tokens.
    pub(crate) fn longest_response(&self, data: &Data) -> usize {
        let sampled = self.rollout().map(|rollout| rollout.max_new_tokens);
        let reads = self.reads_responses()
            || self.reads_pairs()
            || self.lm_source() == Some(LmSource::Corpus);
        let read = reads.then_some(data.max_response_tokens);
        sampled.into_iter().chain(read).max().unwrap_or(0)
    }
}

impl PreferenceKind {
    /// Whether the teacher's log-probabilities take part.
    pub fn needs_reference(&self) -> bool {
        match self {
            Self::Dpkd { reference, .. }
            | Self::Dpo { reference, .. }
            | Self::Ipo { reference, .. } => *reference == Reference::Teacher,
            Self::Cpo { .. } | Self::SimPo { .. } => false,
        }
    }
}

/// The method's table as it stands in the resolved file.
pub(crate) fn table(method: &Method) -> Table {
    // A method is plain data: numbers, names, lists of text.
    Table::try_from(method).unwrap_or_default()
}

/// `typed`: what the user set in `[method]`, each value checked against its key.
pub(crate) fn resolve(typed: Table, data: &Data, document: &Document) -> Result<Method> {
    let Some(name) = typed.get("name").and_then(Value::as_str) else {
        let fix = format!("add [method] name = \"…\", one of {}", METHODS.join(", "));
        return Err(document.refuse("method.name", "not set", fix));
    };
    let mut filled = typed.clone();
    for key in KEYS.iter().filter(|key| belongs(key.owner, name)) {
        let Some(short) = key.path.strip_prefix("method.") else {
            continue;
        };
        if let Preset::Value(default) = key.default
            && !filled.contains_key(short)
            && let Ok(value) = Value::from_str(default)
        {
            filled.insert(short.to_owned(), value);
        }
    }
    derive(&mut filled, data);
    let method = Method::deserialize(filled).map_err(|error| {
        let what = format!("cannot be read: {}", error.message());
        document.refuse("method", what, "compare with `distil methods NAME`")
    })?;
    let held = table(&method);
    if let Some(key) = typed.keys().find(|key| !held.contains_key(*key)) {
        let names: Vec<String> = held.keys().map(|key| format!("`{key}`")).collect();
        let choice = choices(&held);
        return Err(document.refuse(
            &format!("method.{key}"),
            format!("has no effect with {choice}"),
            format!("remove it; with these, [method] has {}", names.join(", ")),
        ));
    }
    Ok(method)
}

/// The choices that decide which other keys there are, as they would be written.
fn choices(held: &Table) -> String {
    let deciding = [
        "name",
        "form",
        "loss",
        "token_loss",
        "pairs",
        "mode",
        "divergence",
    ];
    let made = deciding.iter().filter_map(|key| {
        let value = held.get(*key)?.as_str()?;
        Some(format!("{key} = \"{value}\""))
    });
    made.collect::<Vec<_>>().join(", ")
}

/// Defaults that follow from other values.
fn derive(table: &mut Table, data: &Data) {
    let text = |table: &Table, key: &str| table.get(key)?.as_str().map(str::to_owned);
    let mut set = |key: &str, value: Value| {
        table.entry(key).or_insert(value);
    };
    set(
        "max_new_tokens",
        Value::Integer(i64::try_from(data.max_response_tokens).unwrap_or(i64::MAX)),
    );
    let source = match (data.corpus.is_empty(), text(table, "name").as_deref()) {
        (false, _) => "corpus",
        (true, Some("minillm")) => "data",
        (true, _) => "teacher",
    };
    table
        .entry("lm_source")
        .or_insert_with(|| Value::from(source));
    let loss = text(table, "loss");
    let of_dpkd = |simpo: f64, cpo: f64, others: f64| match loss.as_deref() {
        Some("simpo") => Value::Float(simpo),
        Some("cpo") => Value::Float(cpo),
        _ => Value::Float(others),
    };
    for (key, default) in [
        ("beta", of_dpkd(2.0, 0.1, 0.1)),
        ("lm_weight", of_dpkd(1.0, 0.0, 1.0)),
    ] {
        table.entry(key).or_insert(default);
    }
    let normalized = !matches!(loss.as_deref(), Some("dpo" | "ipo" | "cpo"));
    table
        .entry("length_normalize")
        .or_insert_with(|| Value::from(normalized));
}
