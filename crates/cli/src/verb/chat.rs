//! `distil chat`: a conversation with a model, line by line.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use distil::rollout::{Generation, Prompt, generate};
use distil_model::Model;
use distil_model::chat_template::Message;

use crate::arguments::{PrecisionArguments, SamplingArguments};
use crate::failure::WrongInput;
use crate::progress::Progress;
use crate::verb::generate::text_of;
use crate::{loading, output};

/// Talk with a model. It needs a chat template.
///
/// A line is a message; the model remembers the conversation until /reset. /exit or the end of the
/// input (Ctrl-D) ends it. The input need not be a terminal: every line of it is answered.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil chat smollm2-135m-instruct
  distil chat student --temperature 0 --system 'Answer in one sentence.'
  printf 'Hello\\nAnd you?\\n' | distil chat student")]
pub(crate) struct Chat {
    /// The model
    model: String,

    /// Begin with this system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = super::at_least_one)]
    max_new_tokens: usize,

    #[command(flatten)]
    sampling: SamplingArguments,

    /// Start of the random stream
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = super::whole::<u64>)]
    seed: u64,

    #[command(flatten)]
    precision: PrecisionArguments,
}

pub(crate) fn run(chat: &Chat, progress: &mut Progress) -> anyhow::Result<()> {
    let model = loading::asked_model(&chat.model, chat.precision, progress)?;
    let Some(template) = model.tokenizer.chat_template() else {
        return Err(WrongInput::new(
            format!("{} has no chat template", model.path().display()),
            "talk to it with `distil generate MODEL --raw --prompt …`, or name an instruction-tuned model",
        )
        .into());
    };
    let settings = Generation {
        sampling: chat.sampling.sampling(),
        max_new_tokens: chat.max_new_tokens,
        seed: chat.seed,
        batch: 1,
    };
    let begin: Vec<Message> = chat
        .system
        .iter()
        .map(|text| message("system", text))
        .collect();
    let mut conversation = begin.clone();
    let mut turn = 0;
    let stdin = std::io::stdin();
    let interactive = stdin.is_terminal();
    if interactive {
        progress.note("/reset begins anew, /exit ends.");
    }
    loop {
        if interactive {
            let mut stderr = std::io::stderr();
            write!(stderr, "> ")?;
            stderr.flush()?;
        }
        let mut bytes = Vec::new();
        if stdin.lock().read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        let Ok(line) = String::from_utf8(bytes) else {
            progress.warn("a line that is not UTF-8 is left out");
            continue;
        };
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(()),
            "/reset" => {
                conversation.clone_from(&begin);
                progress.note("A new conversation.");
                continue;
            }
            command if command.starts_with('/') && !command.contains(' ') => {
                progress.warn(&format!(
                    "there is no {command}; there are /reset and /exit"
                ));
                continue;
            }
            text => conversation.push(message("user", text)),
        }
        let ids = model
            .tokenizer
            .encode_prompt(&template.render(&conversation, true)?)?;
        if ids.len() >= model.network.config().context {
            progress.warn("the conversation is over the model's context; /reset begins anew");
            conversation.pop();
            continue;
        }
        let answer = answer(&model, &ids, turn, &settings)?;
        turn += 1;
        output::line(&answer)?;
        conversation.push(message("assistant", &answer));
    }
}

fn answer(
    model: &Model,
    ids: &[u32],
    stream: u64,
    settings: &Generation,
) -> anyhow::Result<String> {
    let prompt = Prompt { ids, stream };
    let responses = generate(
        &model.network,
        &model.stop_ids,
        &[prompt],
        settings,
        &mut |_, _| {},
    )?;
    let texts: Result<Vec<String>, _> = responses.iter().map(|r| text_of(model, r)).collect();
    Ok(texts?.concat())
}

fn message(role: &str, content: &str) -> Message {
    Message {
        role: role.into(),
        content: content.into(),
    }
}
