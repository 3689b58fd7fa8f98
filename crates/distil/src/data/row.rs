//! One row of a data file: what it asks and what it answers.

use distil_model::chat_template::Message;

/// Where a row was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowSource {
    /// Index of the file among the files that were read.
    pub file: usize,
    /// Line in that file, or row number in formats without lines, from 1.
    pub line: usize,
}

/// A row whose shape was recognised: see [`shape`](super::shape).
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it was found.
    pub source: RowSource,
    /// What it says.
    pub content: Content,
    /// Whether its answer was cut off at a length limit, as `"finish_reason": "length"` says in
    /// what `generate` writes: such an answer has no end to learn or to be paid for.
    pub cut: bool,
}

/// What a model is asked, before any template is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A task and, unless it is empty, the material it is about.
    Instruction {
        /// The task.
        instruction: String,
        /// The material; empty where the task needs none.
        input: String,
    },
    /// A prompt in one piece.
    Raw(String),
    /// A conversation so far; at least one message.
    Messages(Vec<Message>),
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A prompt and good answers to it.
    Completion {
        /// What is asked.
        prompt: Prompt,
        /// Good answers, at least one; training uses the first, metrics all.
        references: Vec<String>,
    },
    /// A prompt and two answers of which one is better.
    Preference {
        /// What is asked.
        prompt: Prompt,
        /// The better answer.
        chosen: String,
        /// The worse answer.
        rejected: String,
        /// Good answers, at least one: the row's own answer if it has one, else `chosen`.
        references: Vec<String>,
    },
    /// A prompt alone: a model is to answer it.
    Prompt(Prompt),
    /// Text for language modelling.
    Text(String),
}

impl Content {
    /// What is asked; none for text.
    pub fn prompt(&self) -> Option<&Prompt> {
        match self {
            Self::Completion { prompt, .. } | Self::Preference { prompt, .. } => Some(prompt),
            Self::Prompt(prompt) => Some(prompt),
            Self::Text(_) => None,
        }
    }

    /// Good answers; empty for a prompt alone and for text.
    pub fn references(&self) -> &[String] {
        match self {
            Self::Completion { references, .. } | Self::Preference { references, .. } => references,
            Self::Prompt(_) | Self::Text(_) => &[],
        }
    }
}
