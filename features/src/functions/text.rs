//! What texts say of each other, where they are kept.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, StringArray, StringBuilder, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::declarations::declaration;

pub(super) fn new_words_used() -> ScalarUDF {
    ScalarUDF::from(NewWordsUsed { signature: Signature::string(3, Volatility::Immutable) })
}

pub(super) fn boundary_declaration() -> ScalarUDF {
    ScalarUDF::from(BoundaryDeclaration { signature: Signature::string(1, Volatility::Immutable) })
}

/// Letters of the shortest word that tells something.
const WORD_LETTERS_MIN: usize = 4;

fn words(text: &str) -> impl Iterator<Item = String> {
    let long = |word: &&str| word.chars().count() >= WORD_LETTERS_MIN;
    text.split(|letter: char| !letter.is_alphanumeric()).filter(long).map(str::to_lowercase)
}

/// Share of the words that are in the prompt and were not in the one before, which the answer has too. `None` without any.
fn used(previous: &str, prompt: &str, response: &str) -> Option<f64> {
    let known: HashSet<String> = words(previous).collect();
    let new: HashSet<String> = words(prompt).filter(|word| !known.contains(word)).collect();
    let said: HashSet<String> = words(response).collect();
    (!new.is_empty()).then(|| new.intersection(&said).count() as f64 / new.len() as f64)
}

/// The share of the words that a prompt adds to the one before which its answer takes up.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NewWordsUsed {
    signature: Signature,
}

/// Texts of a column of any type of text.
fn texts(column: &ArrayRef) -> Result<StringArray> {
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

impl ScalarUDFImpl for NewWordsUsed {
    fn name(&self) -> &'static str {
        "new_words_used"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let (previous, prompts, responses) = (texts(&columns[0])?, texts(&columns[1])?, texts(&columns[2])?);
        let rows = previous.iter().zip(prompts.iter()).zip(responses.iter());
        let shares: Float64Array =
            rows.map(|((previous, prompt), response)| used(previous?, prompt?, response?)).collect();
        Ok(ColumnarValue::Array(Arc::new(shares)))
    }
}

/// The first boundary declaration in a text, as `declaration` and `subject`; NULL where there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundaryDeclaration {
    signature: Signature,
}

fn declared_fields() -> Fields {
    Fields::from(vec![Field::new("declaration", DataType::Utf8, true), Field::new("subject", DataType::Utf8, true)])
}

impl ScalarUDFImpl for BoundaryDeclaration {
    fn name(&self) -> &'static str {
        "boundary_declaration"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(declared_fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let (mut rules, mut subjects, mut found) = (StringBuilder::new(), StringBuilder::new(), Vec::new());
        for text in &texts(&columns[0])? {
            let declared = text.and_then(declaration);
            rules.append_option(declared.as_ref().map(|declared| declared.rule));
            subjects.append_option(declared.as_ref().map(|declared| declared.subject));
            found.push(declared.is_some());
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(rules.finish()), Arc::new(subjects.finish())];
        let structs = StructArray::try_new(declared_fields(), columns, Some(NullBuffer::from(found)))?;
        Ok(ColumnarValue::Array(Arc::new(structs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_result_counts_what_is_new_and_taken_up() {
        let previous = "Where is the library?";
        let prompt = "Where is the library? search: Bodleian, Broad Street, closed Sunday";
        // New: bodleian, broad, street, closed, sunday, search. Taken up: bodleian, broad, street.
        assert_eq!(used(previous, prompt, "The Bodleian library is in BROAD street."), Some(0.5));
        assert_eq!(used(prompt, prompt, "anything"), None);
        assert_eq!(used("", "a b c", "a b c"), None, "short words tell nothing");
    }
}
