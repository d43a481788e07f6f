//! Vectors of texts from a program of the reader's choice, such as a sentence encoder.
//!
//! **In:** a command, and texts. **Out:** a vector for each. The program reads one JSON string a line and answers each with one line, a JSON
//! array of numbers, in the same order; it may answer in batches. Vectors are scaled to length 1, as hashed n-grams are: neighbours are then
//! near by cosine, and weights learned for one encoder mean the same for another. What it writes to its standard error is for people, and passes through.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::data::Matrix;
use crate::error::{LearnError, Result};

/// Texts as a program sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// What stands for the program in reports and in `embedding_model`.
    pub by: String,
    /// A vector for each query, all of one length, shape `[queries][dim]`.
    pub vectors: Vec<Vec<f32>>,
}

impl Matrix {
    /// Takes the vectors of `command` in place of hashed n-grams: a program and its arguments, parted by spaces. A matrix without texts stays
    /// as it is.
    ///
    /// # Errors
    /// [`LearnError::Encoder`] when the program does not start, fails, or answers with anything but one vector of one length for each text.
    pub fn encoded_by(mut self, command: &str) -> Result<Self> {
        if self.has_texts() {
            let texts: Vec<&str> = self.queries.iter().map(|query| query.text.as_str()).collect();
            self.encoded = Some(Encoded { by: command.to_owned(), vectors: encode(command, &texts)? });
        }
        Ok(self)
    }
}

fn encode(command: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
    let failed = |why: String| LearnError::Encoder { command: command.to_owned(), why };
    let mut words = command.split_whitespace();
    let program = words.next().ok_or_else(|| failed("it names no program".to_owned()))?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("it did not start: {error}")))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed("it has no standard input or output".to_owned()));
    };
    let lines: String = texts.iter().map(|text| format!("{}\n", serde_json::Value::from(*text))).collect();
    // On a thread of its own: a program that answers while it still reads would else wait for us as we for it. Nobody waits for the thread:
    // what the program started may hold the pipe after it, and one that stops reading is seen by what it does not answer.
    thread::spawn(move || input.write_all(lines.as_bytes()));
    let found = vectors(BufReader::new(output), texts.len());
    // It may go on answering for ever. One that is about to end is left to say how.
    let was_stopped = found.is_err() && !ends_soon(&mut child) && child.kill().is_ok();
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    let found = found.map_err(|why| {
        failed(if status.success() || was_stopped { why } else { format!("{why}; it ended with {status}") })
    })?;
    if !status.success() {
        return Err(failed(format!("it ended with {status}")));
    }
    Ok(found)
}

fn ends_soon(child: &mut Child) -> bool {
    const TRIES: usize = 100;
    (0..TRIES).any(|_| {
        thread::sleep(Duration::from_millis(10));
        child.try_wait().is_ok_and(|ended| ended.is_some())
    })
}

/// One vector a line, `count` of them, all with as many numbers and scaled to length 1.
fn vectors(lines: impl BufRead, count: usize) -> std::result::Result<Vec<Vec<f32>>, String> {
    let mut found: Vec<Vec<f32>> = Vec::with_capacity(count);
    for line in lines.lines() {
        let at = found.len() + 1;
        let line = line.map_err(|error| error.to_string())?;
        let vector: Vec<f32> =
            serde_json::from_str(&line).map_err(|error| format!("answer {at} is no JSON array of numbers: {error}"))?;
        if vector.is_empty() || vector.iter().any(|number| !number.is_finite()) {
            return Err(format!("answer {at} is empty, or has a number that is not finite"));
        }
        if let Some(first) = found.first()
            && first.len() != vector.len()
        {
            return Err(format!("answer {at} has {} numbers, the first one {}", vector.len(), first.len()));
        }
        if found.len() == count {
            return Err(format!("it gave more than {count} answers, one for each text"));
        }
        let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
        if length == 0.0 {
            return Err(format!("answer {at} is all zeros, which is near to nothing"));
        }
        found.push(vector.into_iter().map(|number| (f64::from(number) / length) as f32).collect());
    }
    if found.len() < count {
        return Err(format!("it gave {} answers to {count} texts", found.len()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::data::MatrixQuery;
    use super::super::nested::tests::three_kinds;

    /// Answers each line with its length in characters, and 1.
    const LENGTHS: &str =
        "import sys, json\nfor line in sys.stdin:\n    print(json.dumps([len(json.loads(line)), 1]))\n";

    fn script(name: &str, text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let command = format!("python3 -I {}", file.display());
        (folder, command)
    }

    fn refusal(text: &str) -> String {
        let (_folder, command) = script("encoder.py", text);
        // More than a pipe holds.
        let mut matrix = three_kinds();
        matrix.queries[0].text = "x".repeat(1 << 20);
        matrix.encoded_by(&command).unwrap_err().to_string()
    }

    #[test]
    fn each_text_gets_the_vector_that_the_program_answers() {
        let (_folder, command) = script("lengths.py", LENGTHS);
        let mut matrix = three_kinds();
        matrix.queries[0].text = "two\nlines, \"quoted\" \u{fc}".to_owned();
        let matrix = matrix.encoded_by(&command).unwrap();
        let encoded = matrix.encoded.as_ref().unwrap();
        let by_hand = |query: &MatrixQuery| {
            let characters = query.text.chars().count() as f64;
            [characters, 1.0].map(|number| (number / characters.hypot(1.0)) as f32).to_vec()
        };
        let by_hand: Vec<Vec<f32>> = matrix.queries.iter().map(by_hand).collect();
        assert_eq!(encoded.vectors, by_hand);
        assert_eq!(matrix.embeddings(256), by_hand, "in place of hashed n-grams");
        assert_eq!(encoded.by, command);
    }

    #[test]
    fn without_texts_there_is_nothing_to_encode() {
        let mut matrix = three_kinds();
        matrix.queries.iter_mut().for_each(|query| query.text.clear());
        assert!(matrix.encoded_by("no-such-program").unwrap().encoded.is_none());
    }

    #[test]
    fn a_program_that_does_not_do_its_part_is_one_clear_sentence() {
        let absent = three_kinds().encoded_by("no-such-program --fast").unwrap_err().to_string();
        assert!(absent.contains("no-such-program --fast") && absent.contains("did not start"), "{absent}");
        assert!(three_kinds().encoded_by(" ").unwrap_err().to_string().contains("names no program"));
        for (program, why) in [
            ("print('[1]')", "it gave 1 answers to 150 texts"),
            ("import sys\nsys.exit(3)", "it gave 0 answers to 150 texts; it ended with exit status: 3"),
            ("print('[]')", "answer 1 is empty"),
            ("print('[0, 0]')", "answer 1 is all zeros"),
            ("print('[1, 2]')\nprint('[1]')", "answer 2 has 1 numbers, the first one 2"),
            ("print('sorry')", "answer 1 is no JSON array of numbers"),
            // It reads nothing, and would sleep for longer than anybody waits.
            ("import time\nprint('loading', flush=True)\ntime.sleep(3600)", "answer 1 is no JSON array of numbers"),
            ("import os\nos.kill(os.getpid(), 9)", "it ended with signal: 9"),
            ("while True: print('[1]', flush=True)", "it gave more than 150 answers"),
        ] {
            let found = refusal(program);
            assert!(found.contains(why), "{found}");
        }
        let (_folder, command) = script("late.py", &format!("{LENGTHS}sys.exit(4)\n"));
        let late = three_kinds().encoded_by(&command).unwrap_err().to_string();
        assert!(late.contains("it ended with exit status: 4"), "{late}");
    }
}
