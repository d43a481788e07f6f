//! Small grounded texts with planted falsehoods, made from word lists of our own.
//!
//! A text is a context of facts, a question, and a response that restates some of the facts in other words. In a
//! known share of the texts one restated fact is false: another number, another name, or a subject that the context
//! never mentions. Whether it is so is the label that an estimator has to find.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Prompt, context and response of one retrieval request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RagText {
    pub prompt: String,
    pub context: String,
    pub response: String,
    /// Does the response state something that the context does not?
    pub unsupported: bool,
}

const PLACES: [&str; 14] = [
    "Alder Bay",
    "Brightmoor",
    "Cold Harbor",
    "Dunmere",
    "Eastwick Quay",
    "Fennel Cross",
    "Glasswater",
    "Hollow Ridge",
    "Ivory Point",
    "Juniper Falls",
    "Kestrel Hill",
    "Larkspur",
    "Millbrook",
    "Northgate",
];
const THINGS: [&str; 12] = [
    "archive",
    "bakery",
    "clinic",
    "depot",
    "ferry line",
    "greenhouse",
    "harbor office",
    "ice rink",
    "library",
    "observatory",
    "power station",
    "school",
];
const PEOPLE: [&str; 14] = [
    "Ada Quill",
    "Boris Tane",
    "Clara Wynn",
    "Dev Ostrow",
    "Edda Marsh",
    "Felix Oduya",
    "Greta Lind",
    "Hugo Pell",
    "Ines Carrow",
    "Jonas Reed",
    "Kira Vance",
    "Luca Stroud",
    "Mara Fenn",
    "Nils Amber",
];
const UNITS: [&str; 6] = ["visitors a day", "staff members", "square metres", "kilowatts", "volumes", "parcels a week"];

#[derive(Clone, PartialEq)]
struct Fact {
    thing: &'static str,
    place: &'static str,
    claim: Claim,
}

#[derive(Clone, PartialEq)]
enum Claim {
    Opened(u32),
    Amount(u32, &'static str),
    Led(&'static str),
}

impl Fact {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let claim = match rng.random_range(0..3) {
            0 => Claim::Opened(rng.random_range(1850..2025)),
            1 => Claim::Amount(rng.random_range(12..9_000), one_of(&UNITS, rng)),
            _ => Claim::Led(one_of(&PEOPLE, rng)),
        };
        Self { thing: one_of(&THINGS, rng), place: one_of(&PLACES, rng), claim }
    }

    fn same_subject(&self, other: &Self) -> bool {
        (self.thing, self.place) == (other.thing, other.place)
    }

    fn as_stated(&self) -> String {
        let Self { thing, place, claim } = self;
        match claim {
            Claim::Opened(year) => format!("The {thing} of {place} first opened its doors in {year}."),
            Claim::Amount(number, unit) => format!("Records list {number} {unit} for the {thing} of {place}."),
            Claim::Led(person) => format!("The {thing} of {place} is run by {person}."),
        }
    }

    fn restated(&self) -> String {
        let Self { thing, place, claim } = self;
        match claim {
            Claim::Opened(year) => format!("{place}'s {thing} has been open since {year}."),
            Claim::Amount(number, unit) => format!("{place}'s {thing} counts {number} {unit}."),
            Claim::Led(person) => format!("{person} is in charge of {place}'s {thing}."),
        }
    }

    /// The same fact with a wrong number or name.
    fn falsified(&self, rng: &mut ChaCha8Rng) -> Self {
        let claim = match self.claim {
            Claim::Opened(year) => Claim::Opened(year + rng.random_range(1..60)),
            Claim::Amount(number, unit) => Claim::Amount(number + rng.random_range(1..4_000), unit),
            Claim::Led(person) => {
                let others: Vec<&str> = PEOPLE.into_iter().filter(|other| *other != person).collect();
                Claim::Led(one_of(&others, rng))
            }
        };
        Self { claim, ..self.clone() }
    }
}

fn one_of<'a>(words: &[&'a str], rng: &mut ChaCha8Rng) -> &'a str {
    words.choose(rng).copied().unwrap_or_default()
}

/// Draws one text; `unsupported_share` of them state a falsehood.
pub(super) fn draw(unsupported_share: f64, rng: &mut ChaCha8Rng) -> RagText {
    // One fact per subject: two facts about one could contradict each other.
    let mut facts: Vec<Fact> = Vec::new();
    let wanted = rng.random_range(8..=14);
    while facts.len() < wanted {
        let fact = Fact::draw(rng);
        if !facts.iter().any(|known| known.same_subject(&fact)) {
            facts.push(fact);
        }
    }
    let context: Vec<String> = facts.iter().map(Fact::as_stated).collect();
    let asked = rng.random_range(2..=4);
    facts.shuffle(rng);
    let mut answer: Vec<Fact> = facts[..asked].to_vec();
    let prompt = format!("What do the documents say about the {} of {}?", answer[0].thing, answer[0].place);
    let unsupported = rng.random::<f64>() < unsupported_share;
    if unsupported {
        let slot = rng.random_range(0..answer.len());
        answer[slot] = if rng.random::<f64>() < 0.6 {
            answer[slot].falsified(rng)
        } else {
            loop {
                let invented = Fact::draw(rng);
                if !facts.iter().any(|known| known.same_subject(&invented)) {
                    break invented;
                }
            }
        };
    }
    let response: Vec<String> = answer.iter().map(Fact::restated).collect();
    RagText { prompt, context: context.join(" "), response: response.join(" "), unsupported }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// What a sentence of a response would read in the context, had it been taken from there.
    fn source_of(sentence: &str) -> String {
        let (left, right) = sentence.split_once("'s ").expect("every restated fact names a place's thing");
        if let Some((person, place)) = left.split_once(" is in charge of ") {
            format!("The {right} of {place} is run by {person}.")
        } else if let Some((thing, year)) = right.split_once(" has been open since ") {
            format!("The {thing} of {left} first opened its doors in {year}.")
        } else {
            let (thing, amount) = right.split_once(" counts ").expect("there are three kinds of facts");
            format!("Records list {amount} for the {thing} of {left}.")
        }
    }

    #[test]
    fn planted_falsehoods_come_at_the_stated_rate_and_are_in_no_context() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let draws: u32 = 4_000;
        let mut planted = 0;
        for _ in 0..draws {
            let text = draw(0.3, &mut rng);
            planted += u32::from(text.unsupported);
            let sentences = text.response.trim_end_matches('.').split(". ");
            let invented = sentences.filter(|sentence| !text.context.contains(&source_of(sentence))).count();
            assert_eq!(invented, usize::from(text.unsupported), "{text:?}");
        }
        // Binomial(4000, 0.3): standard deviation 29, so 5 of them.
        assert!((f64::from(planted) - 1_200.0).abs() < 145.0, "{planted} planted");
    }
}
