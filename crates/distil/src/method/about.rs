//! What the methods are, in words: the text behind `distil methods`.
//!
//! Notation: x prompt, y response, s = (x, y up to here) a state, a token; p teacher, q student, both
//! with their logits divided by the temperature where a method has one. Losses are sums over the
//! response tokens of an optimiser batch, divided by their number, in nats.

/// What a user wants to know before choosing a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// The name as in `method.name`.
    pub name: &'static str,
    /// The name as in the literature.
    pub title: &'static str,
    /// What is minimised.
    pub formula: &'static str,
    /// When to choose it, and when not.
    pub when: &'static str,
    /// Cost of an optimiser step relative to `sft`, and what else it needs. Figures of the comparison
    /// are medians of `cargo xtask compare` as it stands in the book.
    pub cost: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
}

/// Every method, in the order in which a newcomer should try them.
pub const ABOUT: &[About] = &[
    About {
        name: "sft",
        title: "Supervised fine-tuning",
        formula: "loss = − mean log q(y_t | s_t),  y from the data",
        when: "The start of almost every distillation and the baseline to beat. Choose it when the \
               data's responses are better than what the teacher would say, or when there is no \
               teacher. It learns only the one token that the data shows at each position.",
        cost: "1 × by definition: one forward and one backward pass of the student.",
        paper: "The standard maximum-likelihood objective",
    },
    About {
        name: "kd",
        title: "Word-level knowledge distillation",
        formula: "loss = (1 − ce_share) · T² · mean D(p, q)(s_t) + ce_share · mean −log q(y_t|s_t),\n  \
                  y from the data, or sampled from p once (responses = \"teacher\"), T the temperature;\n  \
                  D = Σ_a p(a|s_t) log( p(a|s_t) / q(a|s_t) ), or another divergence: reverse_kl, symmetric_kl,\n  \
                  jsd, tvd, skew_kl, skew_reverse_kl, akl",
        when: "The first method to try with a teacher at hand: it learns the teacher's whole \
               distribution at every position, so it needs far fewer rows than sft. Needs a teacher \
               whose vocabulary is the student's. The student never sees its own mistakes, so long \
               responses may drift; gkd is the remedy.",
        cost: "About 1.2 × (the book's comparison) with a teacher of the student's size, more for a larger one: the teacher \
               runs one forward pass, without backward.",
        paper: "Hinton, Vinyals & Dean 2015, arXiv 1503.02531; on sequences Kim & Rush 2016, arXiv 1606.07947",
    },
    About {
        name: "seqkd",
        title: "Sequence-level knowledge distillation",
        formula: "loss = − mean log q(y_t | s_t),  y sampled from p(· | x) once",
        when: "Choose it when there are prompts without good responses, or when the student has to \
               sound like the teacher. The samples are kept in the run's folder; many samples a \
               prompt (samples_per_prompt) come close to kd.",
        cost: "1 × a step of equally long responses, after the teacher has answered every prompt once. \
               1.2 × in the book's comparison, where the teacher's answers are longer than the data's.",
        paper: "Kim & Rush 2016, arXiv 1606.07947",
    },
    About {
        name: "gkd",
        title: "Generalised knowledge distillation",
        formula: "loss = (1 − ce_share) · T² · mean D(p, q)(s_t) + ce_share · mean −log q(y_t|s_t),\n  \
                  y sampled from q in a batch with probability student_share, else from the data;\n  \
                  D = divergence, by default JSD(β) = β KL(p‖m) + (1 − β) KL(q‖m), m = βp + (1 − β)q",
        when: "When kd is good on the data's text but the student drifts on its own: it is corrected, \
               token by token and by the whole distribution, on what it says itself. The first \
               on-policy method to try; needs a student that already answers sensibly.",
        cost: "As kd, and a fresh sample of the student in student_share of the steps: 1.8 × in the \
               book's comparison, with half of them.",
        paper: "Agarwal, Vieillard, Zhou, Stanczyk, Ramos, Geist & Bachem 2024, arXiv 2306.13649",
    },
    About {
        name: "distillm",
        title: "DistiLLM: skewed divergence, adaptive use of student samples",
        formula: "loss = mean KL( p ‖ αp + (1 − α)q )(s_t)  (or the skewed reverse KL),\n  \
                  with r uniform in [0, 1), step t of N and threshold φ:\n  \
                  r < φ(1 − t/N): y ~ q, kept for replay;  r < φ: a kept y;  else y from the data;\n  \
                  φ += threshold_step whenever the validation loss rises by threshold_tolerance",
        when: "When sampling is what makes gkd slow: the student's responses are used only once the \
               data begin to overfit, and again from a buffer. Needs data.eval with forward_kl or \
               perplexity among eval.metrics, evaluated often enough (eval.every).",
        cost: "As kd at first; with φ up to gkd's, less where responses are replayed. 1.5 × in the \
               book's comparison, evaluations not counted.",
        paper: "Ko, Kim, Chen & Yun 2024, arXiv 2402.03898",
    },
    About {
        name: "minillm",
        title: "MiniLLM: reverse KL of whole responses by policy gradient",
        formula: "loss = mean_t [ w_t · KL(q‖p)(s_t) − w_t · R̄_{t+1} · log q(y_t|s_t) ] + lm_weight · L_pt,\n  \
                  R_t = Σ_{i≥t} log p/q(y_i|s_i), R̄ divided by its number of steps,\n  \
                  y ~ teacher_mix · p + (1 − teacher_mix) · q, w_t = q over that mixture (held)",
        when: "When the student is too small to cover all that the teacher would say and should \
               keep to the teacher's main modes. Start from a student after sft or kd; small \
               learning rates. Watch response_tokens and student_entropy for collapse.",
        cost: "A sample drawn with both models, then two forward passes of each head and one \
               backward pass; the language-modelling term is another sft step. 5.5 × in the book's \
               comparison.",
        paper: "Gu, Dong, Wei & Huang 2024, arXiv 2306.08543 (eqs. 2–5, Algorithm 1)",
    },
    About {
        name: "dpkd",
        title: "Direct preference knowledge distillation",
        formula: "form = \"sequence\": loss = L_kd + lm_weight · L_pt,\n  \
                  L_kd = − mean log σ( β/|y_t| · log q(y_t|x)/p(y_t|x) − β/|y_s| · log q(y_s|x)/p(y_s|x) ),\n  \
                  y_t sampled from the teacher, y_s from the student as it is now, or the data's own pairs;\n  \
                  loss = \"dpo\" without the lengths; \"ipo\": (Δ − 1/(2·ipo_tau))²; \"cpo\": no p, and −log q(y_t);\n  \
                  \"simpo\": no p, and simpo_gamma taken off the margin;\n  \
                  L_pt = cross-entropy on the text that lm_source names\n\
                  form = \"token\": loss = ce_share · CE(data) + (1 − ce_share) · mean −log σ( β · Δ(s_t) ),\n  \
                  Δ(s) = log q(a_p|s)/q(a_q|s) − log p(a_p|s)/p(a_q|s),  a_p, a_q the likeliest tokens of p and q;\n  \
                  corpus_weight · [ ce_share · CE + (1 − ce_share) · KL(p‖q) ] on a corpus",
        when: "When the student already answers sensibly (after sft, kd, or pruning) and its answers \
               are to become more like the teacher's: it is corrected on what it says itself. \
               The sequence form is the paper's; the token form is what the authors' released code \
               does, cheaper because nothing is sampled. Watch that the likelihood of teacher \
               samples does not fall along with that of the student's own.",
        cost: "Sequence form: two responses a prompt through teacher and student, and a fresh sample \
               of the student, which takes a quarter of a quickstart step's time: 5 × in the book's comparison. \
               Token form: as kd.",
        paper: "Li, Gu, Dong, Wang, Cheng & Wei 2024, arXiv 2406.19774 (eqs. 6–9, Algorithm 1)",
    },
    About {
        name: "llmr",
        title: "LLMR: reinforcement by the teacher's induced reward",
        formula: "loss = − mean w_t · log q(a_t|s_t) + flatten_weight · mean_t mean_b −log q(b|s_t),\n  \
                  q̂(s, a) = teacher's logit, centred over the vocabulary;  r_t = q̂(s_t, a_t) − V(s_{t+1}),\n  \
                  V = max q̂, Σ p q̂ or log Σ exp q̂, 0 after EOS;  G_t = Σ_{i≥t} r_i;\n  \
                  w_t = clip( (G_t − baseline)/return_scale · q/behaviour, ± weight_clip )",
        when: "When the whole response matters more than each token, and the teacher is prompted \
               rather than tuned (several templates can be averaged). Start from a student after kd or \
               seqkd (a schedule of stages does both), with a small learning rate. distil reward \
               shows the reward before anything is trained on it. Returns fall with every token, \
               so watch response_tokens.",
        cost: "A fresh sample of the student, two forward passes of its head, one backward pass, and \
               the teacher's forward pass once a template: 2.5 × in the book's comparison.",
        paper: "Li, Hao & Mou 2024, arXiv 2409.12500; K-step returns after KETCHUP (same group)",
    },
    About {
        name: "pbkd",
        title: "PbKD: a game against the worst reward that explains preferences",
        formula: "min_q max_{r ∈ R(D)} E_{y~p} r(x, y) − E_{y~q} r(x, y),\n  \
                  R(D) = { r : Σ log σ(r(y₁) − r(y₀)) over D ≥ its maximum − zeta }, |r| < reward_bound;\n  \
                  reward step: up the gap + dual · likelihood;  dual += rate · (how far outside of R(D));\n  \
                  student step: REINFORCE on r, + kl_weight · KL(q‖p) + lm_weight · cross-entropy on y ~ p",
        when: "When what is wanted is known by comparisons (a metric against references, the \
               teacher's likelihood, people's choices) rather than by a distribution. Online mode \
               keeps asking about what the student says now; offline learns from fixed pairs. \
               Start from a student after seqkd or kd.",
        cost: "As llmr, and a reward model of reward_layers layers that is stepped as often as the \
               student and fitted again (fit_steps) after every addition of pairs, which is most \
               of the time: 14 × in the book's comparison, where pairs join in every step. The teacher \
               answers every prompt once.",
        paper: "Jia 2025, arXiv 2505.18952 (Algorithms 1 and 2)",
    },
    About {
        name: "mm_pbkd",
        title: "Moment-matching preference-based knowledge distillation",
        formula: "min_q max_Q  M(Q) + λ · mean log σ( D_Q(y_win) − D_Q(y_lose) ) − q_penalty · B · mean Σ_a ½(p+q) z_a²,\n  \
                  Q = B·tanh(z),\n  \
                  M(Q) = mean Σ_a (p − q)(a|s_t) · Q(s_t, a), off_policy_share of it on samples of p, the rest \
                  on samples of q;\n  \
                  D_Q(y) = Σ_t A(s_t, y_t),  A(s, a) = Q(s, a) − Σ_a' p(a'|s) Q(s, a');\n  \
                  the student also descends lm_weight · cross-entropy on samples of p",
        when: "When there is a judge worth listening to and the teacher's probabilities are at hand. A \
               Q-function, a small network of its own, looks for the tokens where the student's \
               probabilities do most harm and has to explain the judge's verdicts. With \
               preference_weight = 0 it is stepwise total variation. A game: watch the held-out \
               metrics, not the loss.",
        cost: "Two responses a prompt through teacher and student, a fresh sample of the student, and a \
               forward and backward pass of the Q-function for each of its steps: 6 × in the book's \
               comparison.",
        paper: "Jia 2025, arXiv 2505.18952 (Algorithm 3)",
    },
];

/// What the method `name` is; nothing for a name that is no method.
pub fn about(name: &str) -> Option<&'static About> {
    ABOUT.iter().find(|about| about.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEYS, Kind};

    #[test]
    fn every_configurable_method_is_explained_and_no_other() {
        let key = KEYS.iter().find(|key| key.path == "method.name").unwrap();
        let Kind::Choice(names) = key.kind else {
            panic!("{key:?}")
        };
        let explained: Vec<&str> = ABOUT.iter().map(|about| about.name).collect();
        assert_eq!(explained, names);
        assert_eq!(
            about("kd").unwrap().title,
            "Word-level knowledge distillation"
        );
        assert_eq!(about("kdd"), None);
    }
}
