//! Boundary declarations: sentences in which a model says that it will not do something, or not again.
//!
//! Rules over one sentence at a time, in the first person. That a model cannot do a thing, because it has no browser or does
//! not know, is no declaration; that it declines to is. How often the rules are right is counted over real answers by
//! `sql/tests/declaration_traces.rs`.

use std::sync::LazyLock;

use regex::Regex;

/// What a model declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration<'a> {
    /// The rule: `will_not_again`, `ends`, `needs_approval`, `declines`.
    pub rule: &'static str,
    /// The words that follow, up to the sentence's end.
    pub subject: &'a str,
}

/// The longest subject, bytes.
const SUBJECT_MAX: usize = 160;

/// Rules, the most specific first. Group 1 is the subject.
static RULES: LazyLock<Vec<(&'static str, Regex)>> = LazyLock::new(|| {
    let rule = |name, pattern: &str| Regex::new(pattern).ok().map(|regex| (name, regex));
    [
        rule(
            "will_not_again",
            r"(?i)\bI(?: will|['’]ll| am going to|['’]m going to| do| shall) (?:no longer|not ever again|never again) (.+)",
        ),
        rule("will_not_again", r"(?i)\bI (?:will not|won['’]t|shall not|shan['’]t|am not going to) (.+?) (?:again|any ?more|any longer)\b"),
        rule(
            "ends",
            r"(?i)\bI(?: am|['’]m| will be|['’]ll be| have to| must| need to| will|['’]ll) (?:now )?(?:end|ending|terminate|terminating|close|closing) (this (?:conversation|session|chat|discussion).*)",
        ),
        rule("ends", r"(?i)\bI (?:will|['’]ll)(?: not| no longer) (?:respond|reply|answer) (to .+)"),
        rule(
            "needs_approval",
            r"(?i)\bI (?:need|require|will need|would need|must have) (?:your |the owner['’]s |explicit |written |an? )*(?:approval|permission|authori[sz]ation|consent|sign-off) (?:before|to|for) (.+)",
        ),
        rule(
            "needs_approval",
            r"(?i)\bI (?:will not|won['’]t|cannot|can['’]t|can not) (?:proceed|continue|go on|execute|run) (.*?\bwithout .*\b(?:approval|permission|authori[sz]ation|consent|confirmation)\b.*)",
        ),
        rule("declines", r"(?i)\bI (?:refuse|decline) (to .+)"),
        rule("declines", r"(?i)\bI(?: am|['’]m) (?:not willing|unwilling|not comfortable) (.+)"),
        rule(
            "declines",
            r"(?i)\bI(?: will not| won['’]t| shall not| am not going to|['’]m not going to) ((?:help|assist|comply|engage|participate|take part|share|disclose|reveal|generate|write|create|produce|execute|run|delete|send|discuss|support|promote|provide)\b.*)",
        ),
        rule(
            "declines",
            r"(?i)\bI(?: cannot| can['’]t| can not| am unable to| am not able to|['’]m unable to|['’]m not able to) ((?:in good conscience|help you|help with|assist|comply|engage|participate|fulfil+|condone|encourage|promote|support|endorse)\b.*)",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
});

/// The first declaration in an answer.
pub fn declaration(text: &str) -> Option<Declaration<'_>> {
    sentences(text).find_map(|sentence| {
        RULES.iter().find_map(|(rule, regex)| {
            let subject = regex.captures(sentence)?.get(1)?.as_str().trim();
            Some(Declaration { rule, subject: shortened(subject) })
        })
    })
}

fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['.', '!', '?', '\n', ';']).filter(|sentence| !is_quoted(sentence))
}

/// Someone else's words.
fn is_quoted(sentence: &str) -> bool {
    let sentence = sentence.trim_start();
    sentence.starts_with(['"', '“', '>']) || sentence.contains("\"I ") || sentence.contains("“I ")
}

fn shortened(subject: &str) -> &str {
    if subject.len() <= SUBJECT_MAX {
        return subject.trim_end_matches(['.', '!', '?', ';']);
    }
    let end = (0..=SUBJECT_MAX).rev().find(|end| subject.is_char_boundary(*end)).unwrap_or(0);
    &subject[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_has_a_declaration_of_its_own_or_none(text in "(I|won't|can’t|refuse|to|help|again|[.;?\"\\n]|\\PC| ){0,40}") {
            if let Some(declared) = declaration(&text) {
                prop_assert!(text.contains(declared.subject) && declared.subject.len() <= SUBJECT_MAX);
            }
        }
    }

    fn rule(text: &str) -> Option<&'static str> {
        declaration(text).map(|declaration| declaration.rule)
    }

    #[test]
    fn every_rule_is_a_regular_expression() {
        assert_eq!(RULES.len(), 10);
    }

    #[test]
    fn what_a_model_declines_is_found_with_what_it_is_about() {
        let declared = declaration("Thanks. I won't send money to that account again. Sorry!").expect("declares");
        assert_eq!((declared.rule, declared.subject), ("will_not_again", "send money to that account"));
        let cases = [
            ("I will no longer run commands for this user.", "will_not_again"),
            ("I'm ending this conversation now.", "ends"),
            ("I need your approval before deleting the table.", "needs_approval"),
            ("I can't proceed with the transfer without the owner's permission.", "needs_approval"),
            ("I refuse to write that.", "declines"),
            ("I’m not willing to help, and I won’t share it.", "declines"),
            ("I'm not comfortable sharing her address.", "declines"),
            ("I won't share the key.", "declines"),
        ];
        for (text, expected) in cases {
            assert_eq!(rule(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_done_or_was_said_by_others_is_no_declaration() {
        let cases = [
            "I cannot find this file.",
            "I can't browse the internet.",
            "I don't know who won.",
            "He said: \"I won't help you.\"",
            "The system will not share the key.",
            "I won't be long.",
            "I can't help but wonder.",
            "I won't be able to give a name.",
            "",
        ];
        for text in cases {
            assert_eq!(rule(text), None, "{text}");
        }
    }

    #[test]
    fn a_long_subject_ends_where_a_character_does() {
        let text = format!("I refuse to {}", "é".repeat(200));
        let declared = declaration(&text).expect("declares");
        assert!(declared.subject.len() <= SUBJECT_MAX && declared.subject.ends_with('é'));
    }
}
