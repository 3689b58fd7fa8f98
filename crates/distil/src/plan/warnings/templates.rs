//! What template and tokenizer make of a prompt. Both models read the student's form of it: a teacher
//! that was trained on another one is asked in words it does not know.

use distil_model::{ModelError, Tokenizer};

use super::super::place::Place;
use super::{Warning, percent};
use crate::data::read::DataSet;
use crate::data::row::Prompt;
use crate::data::template::Template;
use crate::error::{Error, Result};

/// Prompts that are rendered in both forms.
pub(super) const COMPARED: usize = 200;

/// A teacher that would read the same prompt otherwise than the student.
pub(super) fn read_differently(
    spec: &str,
    [teacher, student]: [&Tokenizer; 2],
    data: &DataSet,
    prompts: &[(usize, &Prompt)],
) -> Result<Option<Warning>> {
    let fix = "give both models one chat_template and one bos_token in tokenizer_config.json, prune \
               the student from the teacher, or set data.template to the form that the teacher knows";
    let chat = spec == "chat";
    if chat && teacher.chat_template().is_none() {
        let what = "the teacher has no chat template: it reads prompts in the student's, which it may \
                    never have seen";
        return Ok(Some(Warning::new("teacher_template", what, fix)));
    }
    let forms = [teacher, student].map(|tokenizer| Template::new(spec, tokenizer.chat_template()));
    let [Ok(of_teacher), Ok(of_student)] = forms else {
        return Ok(None);
    };
    let (mut count, mut compared, mut first) = (0, 0, None);
    for &(row, prompt) in prompts {
        // What the student's template refuses is no training row.
        let Ok(own) = of_student.render(prompt) else {
            continue;
        };
        compared += 1;
        let other = match of_teacher.render(prompt) {
            Ok(text) => text,
            Err(Error::Model(ModelError::Template { .. }) | Error::Config { .. }) => String::new(),
            Err(error) => return Err(error),
        };
        if teacher.encode_prompt(&other)? != student.encode_prompt(&own)? {
            count += 1;
            first.get_or_insert((row, other, own));
        }
    }
    if let Some((row, other, own)) = first {
        let difference = match other == own {
            true => "the texts are the same, their tokens are not".to_owned(),
            false => {
                let (other, own) = difference(&other, &own);
                format!("{other:?} against {own:?}")
            }
        };
        let what = format!(
            "the teacher's own template and tokenizer make something else than the student's of \
             {count} of {compared} prompts ({}), and it reads the student's form: {difference}",
            percent(count, compared)
        );
        let warning = Warning::new("teacher_template", what, fix);
        return Ok(Some(warning.rows(count, Place::of_row(data, row))));
    }
    if !chat && teacher.chat_template().is_some() {
        let what = "the teacher has a chat template, and data.template is another form: answers to \
                    prompts of a form it was not trained on are usually worse";
        let fix = "set data.template = \"chat\", unless the student is to be asked in this form";
        return Ok(Some(Warning::new("teacher_template", what, fix).note()));
    }
    Ok(None)
}

/// Both texts from a little before the place where they part.
fn difference(a: &str, b: &str) -> (String, String) {
    const BEFORE: usize = 12;
    const SHOWN: usize = 40;
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| -> String {
        let from = same.saturating_sub(BEFORE);
        text.chars().skip(from).take(SHOWN).collect()
    };
    (part(a), part(b))
}

/// Prompts that begin with BOS twice.
pub(super) fn bos_twice(
    data: &DataSet,
    prompts: &[(usize, &[u32])],
    tokenizer: &Tokenizer,
) -> Result<Option<Warning>> {
    let Some(bos) = tokenizer.bos() else {
        return Ok(None);
    };
    let mut found = prompts
        .iter()
        .filter(|(_, prompt)| prompt.starts_with(&[bos, bos]));
    let Some((row, _)) = found.next() else {
        return Ok(None);
    };
    let count = 1 + found.count();
    let what = format!(
        "{count} of {} prompts begin with BOS ({}) twice",
        prompts.len(),
        tokenizer.decode(&[bos], false)?
    );
    let fix = "take it out of the rows or out of data.template: the chat template or the tokenizer \
               adds one by itself";
    let place = Place::of_row(data, *row);
    Ok(Some(
        Warning::new("bos_twice", what, fix).rows(count, place),
    ))
}

/// A padding token that is EOS.
pub(super) fn pad_is_eos(tokenizer: &Tokenizer, eos: u32) -> Result<Option<Warning>> {
    if tokenizer.pad() != Some(eos) {
        return Ok(None);
    }
    let what = format!(
        "the padding token is EOS ({}): harmless here, where nothing is padded and the loss goes by \
         lengths",
        tokenizer.decode(&[eos], false)?
    );
    let fix = "a trainer that masks padding by its id would mask EOS, too, and its student would not \
               learn to stop; give padding a token of its own before you train with such a one";
    Ok(Some(Warning::new("pad_is_eos", what, fix).note()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::super::testing::{data, tokenizer};
    use super::super::Level;
    use super::*;

    /// The same tokenizer with other entries in its configuration.
    fn changed(changes: &[(&str, Value)]) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        tokenizer("smollm.gguf").save(folder.path()).unwrap();
        let path = folder.path().join("tokenizer_config.json");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let mut config: Value = serde_json::from_str(&read(&path)).unwrap();
        for (key, value) in changes {
            config[*key] = value.clone();
        }
        std::fs::write(&path, config.to_string()).unwrap();
        Tokenizer::open(folder.path()).unwrap()
    }

    fn compare(spec: &str, teacher: &Tokenizer, student: &Tokenizer) -> Option<Warning> {
        let data = data("d/x.jsonl", &[json!({"prompt": "Name a colour."})]);
        let prompt = data.rows[0].content.prompt().unwrap();
        read_differently(spec, [teacher, student], &data, &[(0, prompt)]).unwrap()
    }

    #[test]
    fn two_chat_templates_are_compared_by_what_they_make() {
        let same = tokenizer("smollm.gguf");
        assert_eq!(compare("chat", &same, &same), None);
        let template = |end: &str| {
            let source = format!(
                "{{% for m in messages %}}[{{{{ m.role }}}}] {{{{ m.content }}}}{end}{{% endfor %}}"
            );
            changed(&[("chat_template", json!(source))])
        };
        // Written otherwise, and the same on every prompt.
        let (one, other) = (template(""), template("{{ '' }}"));
        assert_eq!(compare("chat", &one, &other), None);
        let found = compare("chat", &same, &one).unwrap();
        assert_eq!((found.level, found.rows), (Level::Warning, Some(1)));
        let text = found.to_string();
        assert!(
            text.contains("1 of 1 prompts (100 %)") && text.contains("[user]"),
            "{text}"
        );
        assert!(text.contains("d/x.jsonl:1"), "{text}");
        let refuses = changed(&[("chat_template", json!("{{ raise_exception('no') }}"))]);
        assert!(compare("chat", &refuses, &same).is_some());
        let none = changed(&[("chat_template", Value::Null)]);
        let found = compare("chat", &none, &same).unwrap();
        assert!(found.what.contains("no chat template"), "{found}");
    }

    #[test]
    fn another_form_than_the_teachers_chat_is_a_note() {
        let same = tokenizer("smollm.gguf");
        let found = compare("alpaca", &same, &same).unwrap();
        assert_eq!(found.level, Level::Note);
        let none = changed(&[("chat_template", Value::Null)]);
        assert_eq!(compare("alpaca", &none, &none), None);
    }

    #[test]
    fn bos_is_counted_at_the_beginning_only() {
        let tokenizer = tokenizer("smollm.gguf");
        let bos = tokenizer.bos().unwrap();
        let data = data(
            "d/x.jsonl",
            &[json!({"prompt": "a"}), json!({"prompt": "b"})],
        );
        let (once, twice) = ([bos, 70, bos, 71], [bos, bos, 70]);
        assert_eq!(bos_twice(&data, &[(0, &once)], &tokenizer).unwrap(), None);
        let both: [(usize, &[u32]); 2] = [(0, &once), (1, &twice)];
        let found = bos_twice(&data, &both, &tokenizer).unwrap().unwrap();
        assert!(found.to_string().starts_with("1 of 2 prompts"), "{found}");
        assert!(found.to_string().contains("d/x.jsonl:2"), "{found}");
    }

    #[test]
    fn padding_that_is_eos_is_a_note() {
        let eos = tokenizer("smollm.gguf").eos().unwrap();
        let end = tokenizer("smollm.gguf").token(eos).unwrap();
        let same = changed(&[("pad_token", json!(end))]);
        assert_eq!(pad_is_eos(&same, eos).unwrap().unwrap().level, Level::Note);
        let none = changed(&[("pad_token", Value::Null)]);
        assert_eq!(pad_is_eos(&none, eos).unwrap(), None);
    }
}
