//! How a response aligns with its context, as numbers.

use std::collections::{HashMap, HashSet};

use super::text::{FIRST_PERSON, NEGATIONS, Parsed, Word};

/// Names of the features, in order. Shares are of the response's words, in [0, 1].
pub const FEATURE_NAMES: [&str; 26] = [
    "content_novelty",
    "stem_novelty",
    "bigram_novelty",
    "trigram_novelty",
    "stem_pair_novelty",
    "number_novelty",
    "has_numbers",
    "number_novel_count",
    "name_novelty",
    "has_names",
    "name_novel_count",
    "ln_novel_stems",
    "longest_copy_share",
    "ln_longest_novel_run",
    "best_sentence_coverage",
    "worst_sentence_coverage",
    "mean_sentence_coverage",
    "pairs_in_one_sentence",
    "negation_mismatch",
    "first_person_share",
    "has_question",
    "function_word_share",
    "rare_stem_novelty",
    "ln_response_words",
    "ln_context_words",
    "ln_length_ratio",
];

/// The number of features.
pub(super) const COUNT: usize = FEATURE_NAMES.len();

/// The features of one pair, in the order of [`FEATURE_NAMES`]. Bounded work: only the first 40,000 characters count.
#[must_use]
pub fn features(context: &str, response: &str) -> [f32; COUNT] {
    let (context, response) = (Parsed::new(context), Parsed::new(response));
    let known = Known::new(&context);
    let words: Vec<&Word> = response.words().collect();
    let content: Vec<&Word> = words.iter().copied().filter(|word| word.is_content).collect();
    let novel = |word: &&&Word| !known.stems.contains(word.stem.as_str());
    let novel_stems: HashSet<&str> = content.iter().filter(novel).map(|word| word.stem.as_str()).collect();
    let numbers: Vec<&&Word> = content.iter().filter(|word| word.is_number).collect();
    let names: Vec<&&Word> = content.iter().filter(|word| word.is_name).collect();
    let unknown = |list: &[&&Word]| list.iter().filter(|word| !known.texts.contains(word.text.as_str())).count();
    let (novel_numbers, novel_names) = (unknown(&numbers), unknown(&names));
    let coverage: Vec<f64> = response.sentences.iter().filter_map(|sentence| coverage(sentence, &known)).collect();
    let (copy, novel_run) = runs(&words, &known);
    let count = words.len().max(1) as f64;
    let context_words = context.words().count() as f64;

    let values = [
        share(content.iter().filter(|word| !known.texts.contains(word.text.as_str())).count(), content.len()),
        share(content.iter().filter(novel).count(), content.len()),
        gram_novelty(&words, 2, &known.bigrams),
        gram_novelty(&words, 3, &known.trigrams),
        stem_pair_novelty(&content, &known),
        share(novel_numbers, numbers.len()),
        flag(!numbers.is_empty()),
        (novel_numbers as f64).ln_1p(),
        share(novel_names, names.len()),
        flag(!names.is_empty()),
        (novel_names as f64).ln_1p(),
        (novel_stems.len() as f64).ln_1p(),
        copy as f64 / count,
        (novel_run as f64).ln_1p(),
        coverage.iter().copied().fold(0.0, f64::max),
        coverage.iter().copied().reduce(f64::min).unwrap_or(0.0),
        if coverage.is_empty() { 0.0 } else { coverage.iter().sum::<f64>() / coverage.len() as f64 },
        1.0 - stem_pair_apart(&content, &known),
        flag(negates(&words) && !known.negates),
        share(words.iter().filter(|word| FIRST_PERSON.contains(&word.text.as_str())).count(), words.len()),
        flag(response.questions > 0),
        share(words.len() - content.len(), words.len()),
        rare_novelty(&content, &known),
        (words.len() as f64).ln_1p(),
        context_words.ln_1p(),
        (count / (context_words + 1.0)).ln(),
    ];
    values.map(|value| value as f32)
}

/// What the context offers.
struct Known<'a> {
    texts: HashSet<&'a str>,
    stems: HashSet<&'a str>,
    stem_counts: HashMap<&'a str, usize>,
    bigrams: HashSet<Vec<&'a str>>,
    trigrams: HashSet<Vec<&'a str>>,
    stem_pairs: HashSet<(&'a str, &'a str)>,
    sentence_stems: Vec<HashSet<&'a str>>,
    negates: bool,
}

impl<'a> Known<'a> {
    fn new(context: &'a Parsed) -> Self {
        let words: Vec<&Word> = context.words().collect();
        let content: Vec<&Word> = words.iter().copied().filter(|word| word.is_content).collect();
        let mut stem_counts = HashMap::new();
        for word in &content {
            *stem_counts.entry(word.stem.as_str()).or_default() += 1;
        }
        Self {
            texts: words.iter().map(|word| word.text.as_str()).collect(),
            stems: context.stems(),
            stem_counts,
            bigrams: grams(&words, 2).collect(),
            trigrams: grams(&words, 3).collect(),
            stem_pairs: content.windows(2).map(|pair| (pair[0].stem.as_str(), pair[1].stem.as_str())).collect(),
            sentence_stems: context
                .sentences
                .iter()
                .map(|sentence| sentence.iter().map(|word| word.stem.as_str()).collect())
                .collect(),
            negates: negates(&words),
        }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn flag(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

fn negates(words: &[&Word]) -> bool {
    words.iter().any(|word| NEGATIONS.contains(&word.text.as_str()) || word.text.ends_with("n't"))
}

fn grams<'a>(words: &[&'a Word], length: usize) -> impl Iterator<Item = Vec<&'a str>> {
    words
        .windows(length)
        .map(|run| run.iter().map(|word| word.text.as_str()).collect::<Vec<_>>())
        .collect::<Vec<_>>()
        .into_iter()
}

fn gram_novelty(words: &[&Word], length: usize, known: &HashSet<Vec<&str>>) -> f64 {
    let mut counts = (0, 0);
    for gram in grams(words, length) {
        counts.0 += usize::from(!known.contains(&gram));
        counts.1 += 1;
    }
    share(counts.0, counts.1)
}

/// Share of neighbouring content words that are not neighbours (in either order) in the context.
fn stem_pair_novelty(content: &[&Word], known: &Known<'_>) -> f64 {
    let pairs = content.windows(2).map(|pair| (pair[0].stem.as_str(), pair[1].stem.as_str()));
    let novel = pairs.filter(|&(a, b)| !known.stem_pairs.contains(&(a, b)) && !known.stem_pairs.contains(&(b, a)));
    share(novel.count(), content.len().saturating_sub(1))
}

/// Share of neighbouring content words that no one sentence of the context holds together.
fn stem_pair_apart(content: &[&Word], known: &Known<'_>) -> f64 {
    let together = |a: &str, b: &str| known.sentence_stems.iter().any(|stems| stems.contains(a) && stems.contains(b));
    let apart = content.windows(2).filter(|pair| !together(&pair[0].stem, &pair[1].stem));
    share(apart.count(), content.len().saturating_sub(1))
}

/// Share of a sentence's content words that the best single sentence of the context covers; none without content.
fn coverage(sentence: &[Word], known: &Known<'_>) -> Option<f64> {
    let content: Vec<&Word> = sentence.iter().filter(|word| word.is_content).collect();
    if content.is_empty() {
        return None;
    }
    let covered = |stems: &HashSet<&str>| content.iter().filter(|word| stems.contains(word.stem.as_str())).count();
    let best = known.sentence_stems.iter().map(covered).max().unwrap_or(0);
    Some(share(best, content.len()))
}

/// Longest run of words copied trigram by trigram, and longest run of content words that the context lacks.
fn runs(words: &[&Word], known: &Known<'_>) -> (usize, usize) {
    let (mut copy, mut copy_best) = (0, 0);
    for run in grams(words, 3) {
        copy = if known.trigrams.contains(&run) { copy.max(2) + 1 } else { 0 };
        copy_best = copy_best.max(copy);
    }
    let (mut novel, mut novel_best) = (0, 0);
    for word in words.iter().filter(|word| word.is_content) {
        novel = if known.stems.contains(word.stem.as_str()) { 0 } else { novel + 1 };
        novel_best = novel_best.max(novel);
    }
    (copy_best, novel_best)
}

/// Novelty weighted towards what the context says seldom: words that it repeats often count little.
fn rare_novelty(content: &[&Word], known: &Known<'_>) -> f64 {
    let mut sums = (0.0, 0.0);
    for word in content {
        let seen = known.stem_counts.get(word.stem.as_str()).copied().unwrap_or(0);
        let weight = 1.0 / (1.0 + seen as f64);
        sums.0 += weight * flag(seen == 0);
        sums.1 += weight;
    }
    if sums.1 > 0.0 { sums.0 / sums.1 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(name: &str, context: &str, response: &str) -> f32 {
        let index = FEATURE_NAMES.iter().position(|known| *known == name).expect("a known feature");
        features(context, response)[index]
    }

    const CONTEXT: &str = "The bridge opened in 1932. It crosses the harbour of Sydney and carries trains.";

    #[test]
    fn a_copy_has_no_novelty_and_full_coverage() {
        for name in ["content_novelty", "bigram_novelty", "trigram_novelty", "number_novelty", "name_novelty"] {
            assert_eq!(feature(name, CONTEXT, CONTEXT), 0.0, "{name}");
        }
        assert_eq!(feature("worst_sentence_coverage", CONTEXT, CONTEXT), 1.0);
    }

    #[test]
    fn a_changed_number_and_a_changed_name_are_novel() {
        assert_eq!(feature("number_novelty", CONTEXT, "The bridge opened in 1945."), 1.0);
        assert_eq!(feature("name_novelty", CONTEXT, "It crosses the harbour of Melbourne."), 1.0);
        assert_eq!(feature("name_novelty", CONTEXT, "It crosses the harbour of Sydney."), 0.0);
    }

    #[test]
    fn a_denial_that_the_context_does_not_make_is_marked() {
        assert_eq!(feature("negation_mismatch", CONTEXT, "It does not carry trains."), 1.0);
        assert_eq!(feature("negation_mismatch", CONTEXT, "It carries trains."), 0.0);
    }

    #[test]
    fn empty_and_odd_texts_give_finite_numbers() {
        for (context, response) in [("", ""), ("", "words"), ("words", ""), ("?!,.", "…\u{0}"), ("a'b,c.1,2", "''")] {
            assert!(features(context, response).iter().all(|x| x.is_finite()), "{context:?} {response:?}");
        }
    }
}
