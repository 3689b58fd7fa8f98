//! The quickstart's prompts: instructions × topics of `prompts.toml`, some for training, some held out.
//!
//! Whole topics are held out, so that the measure is of what was never seen: no held-out prompt
//! shares its topic with a training prompt.

use serde::Deserialize;

use crate::data::batch::order;

/// Of how many topics one is held out.
const TOPICS_PER_HELD_OUT: usize = 5;

/// Prompts as a user would type them, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompts {
    /// For training.
    pub(crate) train: Vec<String>,
    /// For measuring.
    pub(crate) held_out: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Material {
    /// Sentences with `{topic}` in them.
    instructions: Vec<String>,
    topics: Vec<String>,
}

fn material() -> Material {
    toml::from_str(include_str!("prompts.toml")).expect("prompts.toml is part of this program")
}

/// Chooses `train` and `held_out` prompts at random, the same for the same seed; fewer, if the
/// material has not so many.
pub(crate) fn compose(seed: u64, train: usize, held_out: usize) -> Prompts {
    let material = material();
    let topics = order(seed, 0, material.topics.len());
    let (held_out_topics, train_topics) = topics.split_at(topics.len() / TOPICS_PER_HELD_OUT);
    let choose = |topics: &[usize], stream: u64, count: usize| {
        let pairs = order(seed, stream, topics.len() * material.instructions.len());
        let prompt = |pair: usize| {
            let (topic, instruction) = (pair % topics.len(), pair / topics.len());
            let topic = &material.topics[topics[topic]];
            material.instructions[instruction].replace("{topic}", topic)
        };
        pairs.into_iter().take(count).map(prompt).collect()
    };
    Prompts {
        train: choose(train_topics, 1, train),
        held_out: choose(held_out_topics, 2, held_out),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The topics that a prompt is made of; one may be part of another's name.
    fn topic(prompt: &str, material: &Material) -> String {
        let fits = |topic: &&String| {
            let made = |instruction: &String| instruction.replace("{topic}", topic) == prompt;
            material.instructions.iter().any(made)
        };
        material.topics.iter().find(fits).unwrap().clone()
    }

    #[test]
    fn material_is_well_formed() {
        let material = material();
        for instruction in &material.instructions {
            assert_eq!(instruction.matches("{topic}").count(), 1, "{instruction}");
        }
        for list in [&material.instructions, &material.topics] {
            let different: BTreeSet<_> = list.iter().collect();
            assert_eq!(different.len(), list.len());
        }
    }

    #[test]
    fn held_out_topics_are_never_trained_on() {
        let material = material();
        for seed in 0..5 {
            let prompts = compose(seed, 320, 64);
            assert_eq!((prompts.train.len(), prompts.held_out.len()), (320, 64));
            let all: BTreeSet<_> = prompts.train.iter().chain(&prompts.held_out).collect();
            assert_eq!(all.len(), 384, "no prompt is there twice");
            let topics = |prompts: &[String]| -> BTreeSet<String> {
                prompts
                    .iter()
                    .map(|prompt| topic(prompt, &material))
                    .collect()
            };
            let (train, held_out) = (topics(&prompts.train), topics(&prompts.held_out));
            assert!(train.is_disjoint(&held_out));
            assert!(train.len() > 50 && held_out.len() > 10);
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(compose(3, 20, 5), compose(3, 20, 5));
        assert_ne!(compose(3, 20, 5), compose(4, 20, 5));
        // More of them are the same ones and others.
        assert_eq!(compose(3, 20, 5).train, compose(3, 30, 5).train[..20]);
    }
}
