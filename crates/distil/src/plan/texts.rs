//! The sequences of a step: whose text they are, how many of them each row has, and how long they are.

use crate::config::{Dpkd, DpkdForm, LmSource, Method, Pbkd, PbkdMode};
use crate::data::example::{Example, PairExample, PromptExample};

/// Whose text a sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// A row's own response.
    Data,
    /// The preferred response of a row's own pair.
    Chosen,
    /// The rejected one.
    Rejected,
    /// A sample of the teacher or the student.
    Sampled,
    /// A text of `data.corpus`.
    Corpus,
}

/// How many sequences of which text there are for each row of a step, on average.
pub(super) type Sequences = Vec<(Text, f64)>;

/// What the method's objective is computed on, its language-modelling term left aside.
pub(super) fn objective_texts(method: &Method) -> Sequences {
    let one = |text| vec![(text, 1.0)];
    match method {
        Method::Kd(_) if !method.reads_responses() => one(Text::Sampled),
        // DistiLLM keeps to the data's responses until the validation loss rises.
        Method::Sft | Method::Kd(_) | Method::DistiLlm(_) => one(Text::Data),
        Method::SeqKd(_) | Method::MiniLlm(_) | Method::Llmr(_) => one(Text::Sampled),
        Method::Gkd(settings) => {
            let share = settings.student_share;
            vec![(Text::Data, 1.0 - share), (Text::Sampled, share)]
        }
        Method::Dpkd(Dpkd {
            form: DpkdForm::Token(_),
            ..
        }) => one(Text::Data),
        Method::Dpkd(_) | Method::MmPbkd(_) => pair_texts(method),
        Method::Pbkd(settings) => vec![(Text::Sampled, settings.samples_per_prompt as f64)],
    }
}

/// The two responses of a pair.
fn pair_texts(method: &Method) -> Sequences {
    match method.reads_pairs() {
        true => vec![(Text::Chosen, 1.0), (Text::Rejected, 1.0)],
        false => vec![(Text::Sampled, 2.0)],
    }
}

/// Whether the objective needs both responses of a pair in one micro-batch.
pub(super) fn in_pairs(method: &Method) -> bool {
    matches!(
        method,
        Method::MmPbkd(_)
            | Method::Dpkd(Dpkd {
                form: DpkdForm::Sequence(_),
                ..
            })
    )
}

/// All that the student is trained on: what the objective is computed on, and the text of a
/// language-modelling term that is not among it.
pub(super) fn trained_texts(method: &Method) -> Sequences {
    let term = match (method, method.lm_source()) {
        (Method::Pbkd(settings), _) if settings.lm_weight > 0.0 => Some(Text::Sampled),
        (_, Some(LmSource::Data)) => Some(Text::Data),
        (_, Some(LmSource::Corpus)) => Some(Text::Corpus),
        _ => None,
    };
    let mut texts = objective_texts(method);
    texts.extend(term.map(|text| (text, 1.0)));
    texts
}

/// What a large step consists of, if not of all that the student is trained on: the responses of a step
/// of GKD and of DistiLLM are all the data's or all the student's.
fn kinds_of_step(method: &Method) -> Vec<Sequences> {
    let alone = |text| vec![(text, 1.0)];
    match method {
        Method::Gkd(_) => {
            let some = trained_texts(method).into_iter();
            let some = some.filter(|(_, share)| *share > 0.0);
            some.map(|(text, _)| alone(text)).collect()
        }
        Method::DistiLlm(_) => vec![alone(Text::Data), alone(Text::Sampled)],
        _ => vec![trained_texts(method)],
    }
}

/// The samples that the network which the student plays against is asked about: the teacher's and the
/// student's.
pub(super) fn opponent_samples(method: &Method) -> Sequences {
    let count = match method {
        Method::Pbkd(settings) => 1.0 + settings.samples_per_prompt as f64,
        Method::MmPbkd(_) => 2.0,
        _ => return Vec::new(),
    };
    vec![(Text::Sampled, count)]
}

/// The pair of preferences that it is fitted to, for each row.
pub(super) fn opponent_pairs(method: &Method) -> Sequences {
    match method {
        Method::Pbkd(_) => pair_texts(method),
        _ => Vec::new(),
    }
}

/// Responses that the student samples for each row of a step, on average.
pub(super) fn student_answers(method: &Method) -> f64 {
    match method {
        Method::Gkd(settings) => settings.student_share,
        // Its threshold is not known beforehand: at 1, the most, half of all steps sample.
        Method::DistiLlm(_) => 0.5,
        Method::Pbkd(settings) => settings.samples_per_prompt as f64,
        _ => f64::from(u8::from(method.samples_student())),
    }
}

/// Responses that the student gives to every prompt before the first step: offline PbKD's pairs.
pub(super) fn first_answers(method: &Method) -> usize {
    match method {
        Method::Pbkd(Pbkd {
            mode: PbkdMode::Offline { .. },
            samples_per_prompt,
            ..
        }) if !method.reads_pairs() => *samples_per_prompt,
        _ => 0,
    }
}

/// Lengths of some sequences, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Lengths {
    /// Mean of the prompts.
    pub(super) prompt: f64,
    /// Mean of the responses.
    pub(super) response: f64,
    /// The longest prompt with its response.
    pub(super) longest: usize,
    /// Variance of prompt and response together.
    pub(super) variance: f64,
}

impl Lengths {
    /// Of sequences given as tokens of prompt and of response.
    pub(super) fn of(sequences: impl Iterator<Item = (usize, usize)>) -> Self {
        let [mut count, mut prompts, mut responses, mut longest] = [0_usize; 4];
        let mut squares = 0.0;
        for (prompt, response) in sequences {
            count += 1;
            prompts += prompt;
            responses += response;
            longest = longest.max(prompt + response);
            squares += ((prompt + response) as f64).powi(2);
        }
        let mean = |sum: usize| sum as f64 / count.max(1) as f64;
        Self {
            prompt: mean(prompts),
            response: mean(responses),
            longest,
            variance: (squares / count.max(1) as f64 - mean(prompts + responses).powi(2)).max(0.0),
        }
    }

    /// Prompt and response together, on average.
    pub(super) fn tokens(&self) -> f64 {
        self.prompt + self.response
    }
}

/// The sequences of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Texts {
    /// Rows that are used.
    pub(super) rows: usize,
    data: Lengths,
    chosen: Lengths,
    rejected: Lengths,
    pub(super) sampled: Lengths,
    corpus: Lengths,
}

impl Texts {
    /// Of what was loaded. Responses that are to be sampled have the length that is allowed them,
    /// `new_tokens`, as far as the `context` of the models reaches.
    pub(super) fn of(
        examples: &[Example],
        prompts: &[PromptExample],
        pairs: &[PairExample],
        corpus: &[Example],
        new_tokens: usize,
        context: usize,
    ) -> Self {
        let lengths = |example: &Example| (example.prompt.len(), example.response.len());
        // An epoch goes over the pairs or the prompts where there are any; examples beside them are
        // the text of a language-modelling term.
        let asked: Vec<usize> = match (pairs, prompts) {
            ([], []) => examples.iter().map(|e| e.prompt.len()).collect(),
            ([], _) => prompts.iter().map(|p| p.prompt.len()).collect(),
            _ => pairs.iter().map(|pair| pair.chosen.prompt.len()).collect(),
        };
        Self {
            rows: asked.len(),
            data: Lengths::of(examples.iter().map(lengths)),
            chosen: Lengths::of(pairs.iter().map(|pair| lengths(&pair.chosen))),
            rejected: Lengths::of(pairs.iter().map(|pair| lengths(&pair.rejected))),
            sampled: Lengths::of(asked.iter().map(|&prompt| {
                let room = context.saturating_sub(prompt);
                (prompt, new_tokens.min(room))
            })),
            corpus: Lengths::of(corpus.iter().map(lengths)),
        }
    }

    fn lengths(&self, text: Text) -> &Lengths {
        match text {
            Text::Data => &self.data,
            Text::Chosen => &self.chosen,
            Text::Rejected => &self.rejected,
            Text::Sampled => &self.sampled,
            Text::Corpus => &self.corpus,
        }
    }

    /// Sum over these sequences.
    pub(super) fn sum(&self, sequences: &[(Text, f64)], of: impl Fn(&Lengths) -> f64) -> f64 {
        let each = |&(text, count): &(Text, f64)| count * of(self.lengths(text));
        sequences.iter().map(each).sum()
    }

    /// Tokens of a large step of `rows` rows: some have more than the average.
    pub(super) fn largest_step(&self, method: &Method, rows: f64) -> usize {
        let large = |sequences: &Sequences| {
            let tokens = rows * self.sum(sequences, Lengths::tokens);
            let variance = rows * self.sum(sequences, |lengths| lengths.variance);
            // A cast from a float saturates.
            (tokens + 3.0 * variance.sqrt()) as usize
        };
        kinds_of_step(method).iter().map(large).max().unwrap_or(0)
    }

    /// The longest sequence that the method trains on or samples, in tokens.
    pub(super) fn longest(&self, method: &Method) -> usize {
        let trained = trained_texts(method).into_iter();
        trained
            .filter(|(_, count)| *count > 0.0)
            .map(|(text, _)| text)
            .chain(method.rollout().map(|_| Text::Sampled))
            .map(|text| self.lengths(text).longest)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{example, method};
    use super::*;

    #[test]
    fn every_method_has_its_sequences_a_row() {
        let total =
            |sequences: Sequences| -> f64 { sequences.iter().map(|(_, count)| count).sum() };
        // Sequences that the student is trained on, that it samples.
        for (text, trained, sampled) in [
            ("name = \"sft\"", 1.0, 0.0),
            ("name = \"kd\"", 1.0, 0.0),
            ("name = \"kd\"\nresponses = \"teacher\"", 1.0, 0.0),
            ("name = \"seqkd\"\nsamples_per_prompt = 4", 1.0, 0.0),
            ("name = \"gkd\"\nstudent_share = 0.25", 1.0, 0.25),
            ("name = \"distillm\"", 1.0, 0.5),
            ("name = \"minillm\"", 2.0, 1.0),
            ("name = \"minillm\"\nlm_weight = 0.0", 1.0, 1.0),
            ("name = \"dpkd\"", 2.0, 1.0),
            ("name = \"dpkd\"\nlm_source = \"data\"", 3.0, 1.0),
            ("name = \"dpkd\"\npairs = \"data\"", 2.0, 0.0),
            ("name = \"dpkd\"\nform = \"token\"", 1.0, 0.0),
            ("name = \"llmr\"", 1.0, 1.0),
            ("name = \"pbkd\"\nsamples_per_prompt = 3", 4.0, 3.0),
            ("name = \"pbkd\"\nlm_weight = 0.0", 1.0, 1.0),
            ("name = \"mm_pbkd\"", 2.0, 1.0),
        ] {
            let method = method(text);
            let found = (total(trained_texts(&method)), student_answers(&method));
            assert_eq!(found, (trained, sampled), "{text}");
        }
    }

    #[test]
    fn the_game_has_sequences_of_its_own() {
        let online = method("name = \"pbkd\"\nsamples_per_prompt = 3");
        assert_eq!(opponent_samples(&online), [(Text::Sampled, 4.0)]);
        assert_eq!(opponent_pairs(&online), [(Text::Sampled, 2.0)]);
        let data = method("name = \"pbkd\"\nmode = \"offline\"\npairs = \"data\"");
        let expected = [(Text::Chosen, 1.0), (Text::Rejected, 1.0)];
        assert_eq!(opponent_pairs(&data), expected);
        let moment = method("name = \"mm_pbkd\"");
        assert_eq!(opponent_samples(&moment), [(Text::Sampled, 2.0)]);
        assert!(opponent_pairs(&moment).is_empty());
    }

    #[test]
    fn pairs_of_the_data_are_counted_with_both_responses() {
        let pair = |prompt, chosen, rejected| PairExample {
            chosen: example(prompt, chosen),
            rejected: example(prompt, rejected),
        };
        let pairs = [pair(4, 2, 8), pair(6, 4, 2)];
        let texts = Texts::of(&[], &[], &pairs, &[], 10, 1000);
        assert_eq!(texts.rows, 2);
        let dpkd = method("name = \"dpkd\"\npairs = \"data\"");
        let trained = trained_texts(&dpkd);
        // Means: prompts of 5 tokens, chosen responses of 3, rejected ones of 5.
        assert_eq!(texts.sum(&trained, Lengths::tokens), 8.0 + 10.0);
        assert_eq!(texts.sum(&trained, |lengths| lengths.response), 3.0 + 5.0);
        assert_eq!(texts.longest(&dpkd), 12);
        // PbKD has its prompts answered, too.
        let pbkd = method("name = \"pbkd\"\nmode = \"offline\"\npairs = \"data\"");
        assert_eq!(texts.longest(&pbkd), 16);
    }

    /// The mean of both kinds is a step that never comes.
    #[test]
    fn a_large_step_is_of_one_kind() {
        let texts = Texts::of(&[example(4, 6), example(4, 6)], &[], &[], &[], 20, 1000);
        let of = |text: &str| texts.largest_step(&method(text), 3.0);
        assert_eq!(of("name = \"gkd\"\nstudent_share = 0.25"), 3 * 24);
        assert_eq!(of("name = \"gkd\"\nstudent_share = 0.0"), 3 * 10);
        assert_eq!(of("name = \"distillm\""), 3 * 24);
        // A policy gradient on samples, and the data's responses in the same step.
        assert_eq!(of("name = \"minillm\""), 3 * (24 + 10));
    }

    #[test]
    fn samples_end_where_the_context_does() {
        let texts = Texts::of(&[example(4, 6), example(8, 6)], &[], &[], &[], 20, 10);
        assert_eq!((texts.sampled.response, texts.sampled.longest), (4.0, 10));
        let over = Texts::of(&[example(4, 6)], &[], &[], &[], 20, 3);
        assert_eq!(over.sampled.response, 0.0);
    }

    #[test]
    fn an_epoch_goes_over_the_prompts_where_examples_are_for_another_term() {
        let prompt = PromptExample {
            text: String::new(),
            prompt: vec![3; 7],
            references: Vec::new(),
            row: 0,
        };
        let examples = [example(1, 2), example(1, 4), example(1, 30)];
        let texts = Texts::of(&examples, &[prompt], &[], &[], 5, 1000);
        assert_eq!((texts.rows, texts.data.response), (1, 12.0));
        let minillm = method("name = \"minillm\"");
        assert_eq!(texts.longest(&minillm), 31);
        let without = method("name = \"minillm\"\nlm_weight = 0.0");
        assert_eq!(texts.longest(&without), 12);
    }
}
