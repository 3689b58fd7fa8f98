//! The question within a prompt: what a template puts around it stands around every prompt.

/// The prompt without the beginning and the end that it shares with all `others`; whole, if there is
/// no other. Where a template ends and a question begins is not known; what is shared is only taken
/// away up to signs that templates use there, so that no words of the question go with it.
pub(super) fn question<'a>(prompt: &'a str, others: impl Iterator<Item = &'a str>) -> &'a str {
    let shared = others
        .filter(|other| *other != prompt)
        .map(|other| {
            (
                shared(prompt.chars(), other.chars()),
                shared(prompt.chars().rev(), other.chars().rev()),
            )
        })
        .reduce(|all, one| (all.0.min(one.0), all.1.min(one.1)));
    let Some((front, back)) = shared else {
        return prompt;
    };
    let begin = prompt[..front].rfind(['\n', '>', ']']);
    let begin = begin.map_or(0, |place| place + 1);
    let tail = &prompt[prompt.len() - back..];
    let end = tail.find(['\n', '<', '[']);
    let end = end.map_or(prompt.len(), |place| prompt.len() - back + place);
    match prompt.get(begin..end).map(str::trim) {
        None | Some("") => prompt,
        Some(question) => question,
    }
}

/// Bytes of the characters that two texts have in common before they differ.
fn shared(one: impl Iterator<Item = char>, other: impl Iterator<Item = char>) -> usize {
    let same = one.zip(other).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions(template: [&str; 2], texts: &[&str]) -> Vec<String> {
        let prompt = |text: &&str| format!("{}{text}{}", template[0], template[1]);
        let prompts: Vec<String> = texts.iter().map(prompt).collect();
        let all = || prompts.iter().map(String::as_str);
        all().map(|p| question(p, all()).to_owned()).collect()
    }

    #[test]
    fn templates_are_taken_away() {
        let texts = ["Is é red?", "Is it not a red?", "Is é not\nred?"];
        for template in [
            [
                "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n",
                "<|im_end|>\n<|im_start|>assistant\n",
            ],
            ["<s>[INST] ", " [/INST]"],
            [
                "<start_of_turn>user\n",
                "<end_of_turn>\n<start_of_turn>model\n",
            ],
            ["Below is.\n\n### Instruction:\n", "\n\n### Response:\n"],
            ["", ""],
        ] {
            assert_eq!(questions(template, &texts), texts, "{template:?}");
        }
    }

    #[test]
    fn a_prompt_without_another_is_left_whole() {
        assert_eq!(question("<a>b<c>", [].into_iter()), "<a>b<c>");
        assert_eq!(
            questions(["<a>", "<c>"], &["b", "b"]),
            ["<a>b<c>", "<a>b<c>"]
        );
        // Of the first nothing would be left, or less than nothing.
        assert_eq!(questions(["<a>", "<c>"], &["", "x"]), ["<a><c>", "x"]);
        assert_eq!(
            questions(["", ""], &[">\n>", ">\n>\n>"]),
            [">\n>", ">\n>\n>"]
        );
    }
}
