//! Prompt templates: from what a row asks to the text that the model reads.
//!
//! | template | text |
//! |---|---|
//! | `chat` | the model's own chat template, ending where the assistant's answer begins |
//! | `alpaca` | the instruction format of Stanford Alpaca, with `### Response:` and a newline at the end |
//! | any Jinja string | what it renders to, with a newline at its end kept |
//!
//! A Jinja template may use `instruction`, `input`, `prompt` and `messages`, whatever the row's shape:
//! an instruction with its input is also one `prompt` (joined by a blank line) and one user message; a
//! raw prompt is also an `instruction` with empty `input` and one user message. Of a conversation,
//! `instruction`, `input` and `prompt` exist only if it is a single user message; using a variable
//! that does not exist is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use distil_model::chat_template::{ChatTemplate, Message};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use super::row::Prompt;
use crate::error::{Error, Result};

const VARIABLES: [&str; 4] = ["instruction", "input", "prompt", "messages"];

/// The name under which the environment holds the template; messages show it with a line number.
const NAME: &str = "data.template";

/// Turns prompts into text. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Template(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Chat(ChatTemplate),
    Alpaca,
    Jinja(Arc<Environment<'static>>),
}

impl Template {
    /// A template by its name, `chat` or `alpaca`, or from Jinja source. `chat` is the model's own
    /// chat template, if it has one.
    ///
    /// # Errors
    /// [`Error::Config`] if the model has no chat template and `spec` asks for it, if `spec` is not
    /// valid Jinja, or if it uses an unknown variable or none at all.
    pub fn new(spec: &str, chat: Option<&ChatTemplate>) -> Result<Self> {
        match (spec, chat) {
            ("chat", Some(chat)) => Ok(Self(Kind::Chat(chat.clone()))),
            ("chat", None) => Err(problem(
                "the model has no chat template",
                "set data.template to \"alpaca\" or to a Jinja string such as \"{{ prompt }}\", or \
                 name an instruction-tuned model",
            )),
            ("alpaca", _) => Ok(Self(Kind::Alpaca)),
            (source, _) => {
                jinja(source).map(|environment| Self(Kind::Jinja(Arc::new(environment))))
            }
        }
    }

    /// The text for a prompt; it ends where the response begins.
    ///
    /// # Errors
    /// [`Error::Model`] if the model's chat template refuses the messages, for instance because
    /// roles do not alternate; [`Error::Config`] if an `alpaca` template meets a conversation of
    /// several messages or a Jinja template uses a variable that this prompt does not have.
    pub fn render(&self, prompt: &Prompt) -> Result<String> {
        match &self.0 {
            Kind::Chat(chat) => Ok(chat.render(&messages(prompt), true)?),
            Kind::Alpaca => match instruction_and_input(prompt) {
                Some((instruction, input)) => Ok(alpaca(instruction, input)),
                None => Err(problem(
                    "the alpaca template has no place for a conversation of several messages",
                    "set data.template to \"chat\"",
                )),
            },
            Kind::Jinja(environment) => render_jinja(environment, prompt),
        }
    }
}

/// The format of the Alpaca data set (R. Taori et al., "Stanford Alpaca", 2023).
fn alpaca(instruction: &str, input: &str) -> String {
    if input.is_empty() {
        format!(
            "Below is an instruction that describes a task. \
             Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n\
             ### Response:\n"
        )
    } else {
        format!(
            "Below is an instruction that describes a task, \
             paired with an input that provides further context. \
             Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n\
             ### Input:\n{input}\n\n\
             ### Response:\n"
        )
    }
}

fn jinja(source: &str) -> Result<Environment<'static>> {
    let names = "use \"chat\", \"alpaca\" or a Jinja string with the variables instruction, input, \
                 prompt and messages";
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let syntax = SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .build()
        .map_err(|error| problem(reason(&error), names))?;
    environment.set_syntax(syntax);
    environment.set_debug(false);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    let used = environment
        .add_template_owned(NAME, source.to_owned())
        .and_then(|()| Ok(environment.get_template(NAME)?.undeclared_variables(false)))
        .map_err(|error| problem(reason(&error), names))?;
    let built_in: Vec<String> = environment
        .globals()
        .map(|(name, _)| name.to_owned())
        .collect();
    let mut unknown: Vec<&String> = used
        .iter()
        .filter(|name| !VARIABLES.contains(&name.as_str()) && !built_in.contains(name))
        .collect();
    unknown.sort();
    if let Some(name) = unknown.first() {
        return Err(problem(
            format!("the template uses the unknown variable `{name}`"),
            names,
        ));
    }
    if !used.iter().any(|name| VARIABLES.contains(&name.as_str())) {
        // Most likely a misspelt name; a prompt that is the same for all rows is of no use either.
        return Err(problem(
            format!("`{source}` uses no variable of the row"),
            names,
        ));
    }
    Ok(environment)
}

fn render_jinja(environment: &Environment, prompt: &Prompt) -> Result<String> {
    let message = |message: Message| {
        Value::from_pairs([("role", message.role), ("content", message.content)])
    };
    let conversation: Vec<Value> = messages(prompt).into_iter().map(message).collect();
    let mut variables = BTreeMap::from([("messages", Value::from(conversation))]);
    if let Some((instruction, input)) = instruction_and_input(prompt) {
        variables.insert("instruction", Value::from(instruction));
        variables.insert("input", Value::from(input));
        variables.insert("prompt", Value::from(joined(instruction, input)));
    }
    environment
        .get_template(NAME)
        .and_then(|template| template.render(Value::from_pairs(variables.clone())))
        .map_err(|error| match environment.get_template(NAME) {
            Ok(template) if error.kind() == minijinja::ErrorKind::UndefinedError => {
                let used = template.undeclared_variables(false);
                let missing = VARIABLES
                    .iter()
                    .find(|name| used.contains(**name) && !variables.contains_key(*name));
                match missing {
                    Some(name) => problem(
                        format!("the template uses `{name}`, which a conversation does not have"),
                        "use `messages`, or set data.template to \"chat\"",
                    ),
                    None => problem(reason(&error), "correct the template"),
                }
            }
            _ => problem(reason(&error), "correct the template"),
        })
}

/// The prompt as a conversation.
fn messages(prompt: &Prompt) -> Vec<Message> {
    let user = |content: String| {
        vec![Message {
            role: "user".into(),
            content,
        }]
    };
    match prompt {
        Prompt::Instruction { instruction, input } => user(joined(instruction, input)),
        Prompt::Raw(text) => user(text.clone()),
        Prompt::Messages(messages) => messages.clone(),
    }
}

/// The prompt as one instruction, unless it is a longer conversation.
fn instruction_and_input(prompt: &Prompt) -> Option<(&str, &str)> {
    match prompt {
        Prompt::Instruction { instruction, input } => Some((instruction, input)),
        Prompt::Raw(text) => Some((text, "")),
        Prompt::Messages(messages) => match messages.as_slice() {
            [only] if only.role == "user" => Some((&only.content, "")),
            _ => None,
        },
    }
}

fn joined(instruction: &str, input: &str) -> String {
    if input.is_empty() {
        instruction.to_owned()
    } else {
        format!("{instruction}\n\n{input}")
    }
}

fn problem(what: impl Into<String>, fix: &str) -> Error {
    Error::Config {
        place: NAME.into(),
        what: what.into(),
        fix: fix.into(),
    }
}

/// The engine's message without its habit of naming the template at the end.
fn reason(error: &minijinja::Error) -> String {
    let line = error
        .line()
        .map(|line| format!(" (template line {line})"))
        .unwrap_or_default();
    match error.detail() {
        Some(detail) => format!("{}: {detail}{line}", error.kind()),
        None => format!("{}{line}", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(instruction: &str, input: &str) -> Prompt {
        Prompt::Instruction {
            instruction: instruction.into(),
            input: input.into(),
        }
    }

    fn talk(turns: &[(&str, &str)]) -> Prompt {
        let message = |&(role, content): &(&str, &str)| Message {
            role: role.into(),
            content: content.into(),
        };
        Prompt::Messages(turns.iter().map(message).collect())
    }

    fn render(spec: &str, prompt: &Prompt) -> String {
        Template::new(spec, None).unwrap().render(prompt).unwrap()
    }

    fn chat() -> ChatTemplate {
        let source = "{% for m in messages %}{% if m.role == 'tool' %}\
             {{ raise_exception('no tools here') }}{% endif %}<{{ m.role }}>{{ m.content }}</s>\
             {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        ChatTemplate::new(source, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn chat_is_the_models_own() {
        let template = Template::new("chat", Some(&chat())).unwrap();
        for (prompt, expected) in [
            (instruction("I", "N"), "<user>I\n\nN</s><assistant>"),
            (instruction("I", ""), "<user>I</s><assistant>"),
            (Prompt::Raw("P".into()), "<user>P</s><assistant>"),
            (
                talk(&[
                    ("system", "S"),
                    ("user", "1"),
                    ("assistant", "2"),
                    ("user", "3"),
                ]),
                "<system>S</s><user>1</s><assistant>2</s><user>3</s><assistant>",
            ),
        ] {
            assert_eq!(template.render(&prompt).unwrap(), expected);
        }
        let error = template.render(&talk(&[("tool", "x")])).unwrap_err();
        assert!(error.to_string().contains("no tools here"), "{error}");
        let error = Template::new("chat", None).unwrap_err();
        assert!(error.to_string().contains("no chat template"), "{error}");
    }

    #[test]
    fn alpaca_wording() {
        assert_eq!(
            render("alpaca", &instruction("Sing.", "")),
            "Below is an instruction that describes a task. Write a response that appropriately \
             completes the request.\n\n### Instruction:\nSing.\n\n### Response:\n"
        );
        assert_eq!(
            render("alpaca", &instruction("Add.", "1 2")),
            "Below is an instruction that describes a task, paired with an input that provides \
             further context. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
        );
        assert_eq!(
            render("alpaca", &Prompt::Raw("Sing.".into())),
            render("alpaca", &talk(&[("user", "Sing.")]))
        );
        let template = Template::new("alpaca", None).unwrap();
        let error = template
            .render(&talk(&[("system", "S"), ("user", "U")]))
            .unwrap_err();
        assert!(error.to_string().contains("several messages"), "{error}");
    }

    #[test]
    fn jinja_variables() {
        let row = instruction("I <b>", "N");
        assert_eq!(
            render("Q: {{ instruction }}\n{{ input }}\nA:\n", &row),
            "Q: I <b>\nN\nA:\n"
        );
        assert_eq!(render("{{ prompt }}|", &row), "I <b>\n\nN|");
        assert_eq!(
            render(
                "{{ prompt.strip() }}|{{ input }}",
                &Prompt::Raw(" P ".into())
            ),
            "P|"
        );
        let all =
            "{% for m in messages %}{{ loop.index }}{{ m.role }}{{ m['content'] }};{% endfor %}";
        assert_eq!(
            render(all, &talk(&[("system", "S"), ("user", "U")])),
            "1systemS;2userU;"
        );
        assert_eq!(
            render("{% for i in range(2) %}{{ prompt }}{% endfor %}", &row),
            "I <b>\n\nNI <b>\n\nN"
        );
        assert_eq!(
            render("{% set x = prompt %}{{ x }}", &Prompt::Raw("P".into())),
            "P"
        );
    }

    #[test]
    fn wrong_templates_are_refused() {
        for (spec, part) in [
            ("{{ promt }}", "unknown variable `promt`"),
            ("chatml", "`chatml` uses no variable"),
            ("", "`` uses no variable"),
            ("{{ prompt", "syntax error"),
            ("{% if prompt %}x", "syntax error"),
        ] {
            let error = Template::new(spec, None).unwrap_err();
            assert!(matches!(error, Error::Config { .. }));
            assert!(error.to_string().starts_with("data.template: "), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        let template = Template::new("{{ instruction }}", None).unwrap();
        let error = template
            .render(&talk(&[("system", "S"), ("user", "U")]))
            .unwrap_err();
        assert!(error.to_string().contains("`instruction`"), "{error}");
        let template = Template::new("{{ messages[3].content }}", None).unwrap();
        assert!(template.render(&Prompt::Raw("P".into())).is_err());
    }
}
