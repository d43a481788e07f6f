//! Words, numbers, names and sentences of a text. Rules only, so that a verdict can be explained.

use std::collections::HashSet;

/// Longest text that is looked at, characters: a bound on the work per verdict.
pub(crate) const CHARACTERS_MAX: usize = 40_000;

/// One word of a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Word {
    /// Lower-cased.
    pub text: String,
    /// Lower-cased, common endings cut.
    pub stem: String,
    /// Written with a capital inside a sentence: most often a name.
    pub is_name: bool,
    /// Starts with a digit.
    pub is_number: bool,
    /// Carries meaning of its own (not an article, pronoun, preposition, auxiliary).
    pub is_content: bool,
}

/// A text taken apart.
pub(crate) struct Parsed {
    /// Words, sentence by sentence.
    pub sentences: Vec<Vec<Word>>,
    /// Ends with, or holds, a question.
    pub questions: usize,
}

impl Parsed {
    pub(crate) fn new(text: &str) -> Self {
        let mut sentences = Vec::new();
        let mut questions = 0;
        let bounded: String = text.chars().take(CHARACTERS_MAX).collect();
        for piece in sentence_pieces(&bounded) {
            questions += usize::from(piece.trim_end().ends_with('?'));
            let words = words(piece);
            if !words.is_empty() {
                sentences.push(words);
            }
        }
        Self { sentences, questions }
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = &Word> {
        self.sentences.iter().flatten()
    }

    pub(crate) fn stems(&self) -> HashSet<&str> {
        self.words().map(|word| word.stem.as_str()).collect()
    }
}

/// Cuts after `.`, `!`, `?` followed by white space, and at line ends; a point inside a number cuts nothing.
fn sentence_pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        if c == '\n' || (c.is_whitespace() && matches!(previous, '.' | '!' | '?')) {
            pieces.push(&text[start..at]);
            start = at;
        }
        previous = c;
    }
    pieces.push(&text[start..]);
    pieces
}

fn words(sentence: &str) -> Vec<Word> {
    let raw = sentence.split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | ',' | '\'' | '’')));
    let mut found = Vec::new();
    for token in raw {
        let token = token.trim_matches(['.', ',', '\'', '’']);
        let is_number = token.starts_with(|c: char| c.is_ascii_digit());
        // Commas group digits and separate words; a trailing 's is grammar.
        for part in token.split(|c: char| c == ',' && !is_number) {
            let part = part.trim_end_matches("'s").trim_end_matches("’s");
            if part.is_empty() {
                continue;
            }
            let lowered: String = part.chars().filter(|c| *c != ',').flat_map(char::to_lowercase).collect();
            let is_name = !found.is_empty() && part.starts_with(char::is_uppercase) && lowered != "i";
            let is_content = is_number || !FUNCTION_WORDS.contains(&lowered.as_str());
            found.push(Word { stem: stem(&lowered), text: lowered, is_name, is_number, is_content });
        }
    }
    found
}

/// Cuts the endings that inflection adds. Crude on purpose: a wrong cut is the same on both sides.
fn stem(word: &str) -> String {
    if !word.is_ascii() || word.len() < 4 || word.starts_with(|c: char| c.is_ascii_digit()) {
        return word.to_owned();
    }
    const ENDINGS: [&str; 12] =
        ["ations", "ation", "ments", "ment", "ings", "ing", "edly", "ies", "ed", "ly", "es", "s"];
    for ending in ENDINGS {
        if let Some(rest) = word.strip_suffix(ending)
            && rest.len() >= 3
        {
            return rest.trim_end_matches(['e', 'i', 'y']).to_owned();
        }
    }
    word.trim_end_matches(['e', 'y']).to_owned()
}

/// Words that deny.
pub(crate) const NEGATIONS: [&str; 14] = [
    "not", "no", "never", "none", "neither", "nor", "without", "cannot", "can't", "don't", "doesn't", "didn't",
    "won't", "isn't",
];

/// Words of the speaker's own.
pub(crate) const FIRST_PERSON: [&str; 9] = ["i", "i'm", "i've", "my", "me", "we", "our", "i'd", "mine"];

const FUNCTION_WORDS: [&str; 112] = [
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because", "been",
    "before", "being", "but", "by", "can", "could", "did", "do", "does", "for", "from", "had", "has", "have", "he",
    "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "like", "may",
    "me", "might", "more", "most", "much", "must", "my", "of", "on", "one", "only", "or", "other", "our", "out",
    "over", "she", "should", "so", "some", "such", "than", "that", "the", "their", "them", "then", "there", "these",
    "they", "this", "those", "to", "too", "up", "us", "very", "was", "we", "well", "were", "what", "when", "where",
    "which", "while", "who", "whom", "whose", "why", "will", "with", "would", "yes", "yet", "you", "your", "yours",
    "it's", "that's", "i'm", "i've", "oh", "not", "no", "am",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_names_and_numbers_are_found() {
        let parsed = Parsed::new("The bank of Milan held 1,500.5 florins. It failed! Did it?\nYes");
        assert_eq!(parsed.sentences.len(), 4);
        assert_eq!(parsed.questions, 1);
        let names: Vec<&str> = parsed.words().filter(|word| word.is_name).map(|word| word.text.as_str()).collect();
        assert_eq!(names, ["milan"]);
        let numbers: Vec<&str> = parsed.words().filter(|word| word.is_number).map(|word| word.text.as_str()).collect();
        assert_eq!(numbers, ["1500.5"]);
    }

    #[test]
    fn inflections_share_a_stem() {
        for (a, b) in [("translated", "translates"), ("country", "countries"), ("moving", "moved"), ("stop", "stops")] {
            assert_eq!(stem(a), stem(b));
        }
    }
}
