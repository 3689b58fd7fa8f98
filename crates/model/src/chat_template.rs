//! Chat templates: the Jinja program that a model's authors ship to turn a conversation into the
//! exact text the model was trained on.
//!
//! Rendering follows the conventions of Hugging Face `apply_chat_template`: `trim_blocks` and
//! `lstrip_blocks` on, loop controls, Python's methods on strings, lists and dictionaries, the
//! functions `raise_exception` and `strftime_now`, `{% generation %}` blocks, and a `tojson` that
//! writes what Python's `json.dumps(ensure_ascii=False)` writes. The variables are `messages`,
//! `add_generation_prompt`, the special tokens by name, and `tools` and `documents`, which are
//! none here.
//!
//! A template comes with downloaded weights, so it is not trusted: it sees nothing but these
//! variables, reads no files, and stops after ten million instructions.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};

mod json;

/// Instructions that one rendering may take. Real templates take a few hundred a message.
const STEPS: u64 = 10_000_000;

/// The name under which the environment holds the template; it appears in no message.
const NAME: &str = "chat";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`; templates may know more roles.
    pub role: String,
    /// What is said, as plain text.
    pub content: String,
}

/// A parsed chat template with its special tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
    special: Arc<BTreeMap<String, String>>,
}

impl ChatTemplate {
    /// Parses a template. `special` holds the special tokens that the template may use as
    /// variables, such as `bos_token` and `eos_token`, with their text.
    ///
    /// # Errors
    /// [`ModelError::Template`] with the line, where the source is not valid Jinja.
    pub fn new(source: &str, special: &BTreeMap<String, String>) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| describe(&error))?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_debug(false);
        environment.set_fuel(Some(STEPS));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| describe(&error))?;
        Ok(Self {
            source: source.into(),
            environment: Arc::new(environment),
            special: Arc::new(special.clone()),
        })
    }

    /// The conversation as the text that the model reads. With `add_generation_prompt` the text
    /// ends where the assistant's answer begins.
    ///
    /// # Errors
    /// [`ModelError::Template`] where the template refuses the messages (`raise_exception`, for
    /// instance for roles that do not alternate), fails, or does not end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut variables: BTreeMap<&str, Value> = self
            .special
            .iter()
            .map(|(name, token)| (name.as_str(), Value::from(token.as_str())))
            .collect();
        let turn = |message: &Message| {
            Value::from_pairs([
                ("role", message.role.as_str()),
                ("content", message.content.as_str()),
            ])
        };
        variables.insert("messages", messages.iter().map(turn).collect());
        variables.insert("add_generation_prompt", Value::from(add_generation_prompt));
        variables.insert("tools", Value::from(()));
        variables.insert("documents", Value::from(()));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(Value::from_pairs(variables)))
            .map_err(|error| describe(&error))
    }

    /// The Jinja source as the model's authors wrote it.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// A refusal by the template itself, kept apart from the engine's own errors so that its message
/// reaches the user as the author wrote it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// `raise_exception(message)`: ends the rendering with the author's message.
fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::from(ErrorKind::InvalidOperation).with_source(Refusal(message)))
}

/// `strftime_now(format)`: the local date and time in strftime's notation.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now()).map_err(|error| {
        minijinja::Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now(\"{format}\"): {error}"),
        )
    })
}

/// `tojson(value, ensure_ascii=false, indent=none, separators=none, sort_keys=false)`, as Python's
/// `json.dumps`; nothing is escaped for HTML.
fn tojson(value: &Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let layout = json::Layout {
        ensure_ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        indent: options.get("indent")?,
        separators: options
            .get::<Option<Vec<String>>>("separators")?
            .and_then(|pair| <[String; 2]>::try_from(pair).ok()),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    json::dumps(value, &layout).map_err(|error| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}"))
    })
}

/// Turns `{% generation %}` … `{% endgeneration %}`, which only marks the assistant's text, into
/// `{% with %}` … `{% endwith %}`: a scope of its own without any output, whitespace control kept.
fn without_generation_tags(source: &str) -> String {
    let mut rewritten = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (text, tag) = rest.split_at(at + 2);
        rewritten.push_str(text);
        let word_at = tag.len() - tag.trim_start_matches(['-', '+']).trim_start().len();
        let (opening, word) = tag.split_at(word_at);
        let alone = |end: &str| {
            end.trim_start()
                .trim_start_matches(['-', '+'])
                .starts_with("%}")
        };
        rest = tag;
        for (marker, replacement) in [("generation", "with"), ("endgeneration", "endwith")] {
            if let Some(end) = word.strip_prefix(marker).filter(|end| alone(end)) {
                rewritten.push_str(opening);
                rewritten.push_str(replacement);
                rest = end;
            }
        }
    }
    rewritten.push_str(rest);
    rewritten
}

/// The engine's error in words for the user: the author's own where the template refused, else
/// what failed and in which line.
fn describe(error: &minijinja::Error) -> ModelError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Refusal(message)) = current.downcast_ref() {
            return ModelError::Template {
                what: format!("the template refuses these messages: {message}"),
            };
        }
        cause = current.source();
    }
    let line = error
        .line()
        .map(|line| format!("line {line}: "))
        .unwrap_or_default();
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => {
            format!("{line}the template did not end within {STEPS} instructions")
        }
        (kind, Some(detail)) => format!("{line}{kind}: {detail}"),
        (kind, None) => format!("{line}{kind}"),
    };
    ModelError::Template { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
        }
    }

    fn render(source: &str, messages: &[Message]) -> Result<String> {
        ChatTemplate::new(source, &BTreeMap::new())?.render(messages, false)
    }

    /// Every template, conversation and expected text of the fixture made by
    /// `oracles/chat_templates.py` with `apply_chat_template`.
    #[test]
    fn equals_apply_chat_template() {
        #[derive(Deserialize)]
        struct Fixture {
            special: BTreeMap<String, String>,
            templates: BTreeMap<String, String>,
            conversations: BTreeMap<String, Vec<Message>>,
            cases: Vec<Case>,
        }
        #[derive(Deserialize)]
        struct Case {
            template: String,
            conversation: String,
            add_generation_prompt: bool,
            text: Option<String>,
            error: Option<String>,
        }
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/chat_templates.json"
        );
        let fixture: Fixture = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(fixture.cases.len() >= 100);
        for case in &fixture.cases {
            let template =
                ChatTemplate::new(&fixture.templates[&case.template], &fixture.special).unwrap();
            let messages = &fixture.conversations[&case.conversation];
            let got = template.render(messages, case.add_generation_prompt);
            let name = format!("{} on {}", case.template, case.conversation);
            match (&case.text, &case.error) {
                (Some(text), None) => assert_eq!(&got.expect(&name), text, "{name}"),
                (None, Some(error)) => {
                    let message = got.expect_err(&name).to_string();
                    assert!(message.ends_with(error), "{name}: {message}");
                }
                _ => panic!("{name}: a case has either a text or an error"),
            }
        }
    }

    #[test]
    fn the_authors_refusal_reaches_the_user() {
        let source = "{% macro check(m) %}{% if m.role != 'user' %}{{ raise_exception('Only users, not ' ~ m.role) }}{% endif %}{% endmacro %}{% for m in messages %}{{ check(m) }}{% endfor %}";
        let error = render(source, &[message("tool", "x")]).unwrap_err();
        assert!(matches!(error, ModelError::Template { .. }));
        assert_eq!(
            error.to_string(),
            "chat template: the template refuses these messages: Only users, not tool"
        );
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = render("a\n{% for m in %}", &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("chat template: line 2: syntax error"),
            "{error}"
        );
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let source = "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}{% endfor %}{% endfor %}{% endfor %}";
        let error = render(source, &[]).unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
    }

    #[test]
    fn files_are_out_of_reach() {
        for source in [
            "{% include '/etc/hostname' %}",
            "{% import 'chat.rs' as x %}",
        ] {
            let error = render(source, &[]).unwrap_err().to_string();
            assert!(error.contains("template not found"), "{error}");
        }
    }

    #[test]
    fn tojson_is_pythons() {
        let source = "{{ messages|tojson }}\n{{ messages[0]|tojson(indent=2) }}\n{{ messages[0]|tojson(separators=(',', ':'), ensure_ascii=true, sort_keys=true) }}\n{{ []|tojson(indent=4) }}";
        let text = render(source, &[message("user", "<a> & 'é'\n\u{1}😀")]).unwrap();
        assert_eq!(
            text,
            "[{\"role\": \"user\", \"content\": \"<a> & 'é'\\n\\u0001😀\"}]\n\
             {\n  \"role\": \"user\",\n  \"content\": \"<a> & 'é'\\n\\u0001😀\"\n}\n\
             {\"content\":\"<a> & '\\u00e9'\\n\\u0001\\ud83d\\ude00\",\"role\":\"user\"}\n\
             []"
        );
    }

    #[test]
    fn generation_tags_leave_no_trace_and_keep_whitespace_control() {
        assert_eq!(
            without_generation_tags(
                "a {%- generation -%} b {% endgeneration %}{% if generation %}"
            ),
            "a {%- with -%} b {% endwith %}{% if generation %}"
        );
        let source = "{% set x = 1 %}{% for m in messages %}\n  {% generation %}\n{{ m.content }}{% set x = 2 %}\n  {%- endgeneration %}\n{% endfor %}{{ x }}";
        assert_eq!(
            render(source, &[message("assistant", "hi")]).unwrap(),
            "hi1"
        );
    }

    #[test]
    fn the_date_can_be_asked_for() {
        let text = render("{{ strftime_now('%Y-%m-%d') }}", &[]).unwrap();
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!(
            parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [4, 2, 2],
            "{text}"
        );
        let error = render("{{ strftime_now('%!') }}", &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("strftime_now"), "{error}");
    }

    #[test]
    fn special_tokens_are_variables_and_the_source_is_kept() {
        let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
        let source = "{{ bos_token }}{{ eos_token is defined }}{{ tools is none }}{{ None }}";
        let template = ChatTemplate::new(source, &special).unwrap();
        assert_eq!(template.render(&[], false).unwrap(), "<s>FalseTrueNone");
        assert_eq!(template.source(), source);
    }
}
