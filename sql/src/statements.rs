//! Where one statement ends and the next begins.

/// The statements of `text` that a semicolon ends, without it and without empty ones, and what follows the last of them.
/// A semicolon in a string, in a quoted name or in a comment ends nothing.
#[must_use]
pub fn split_statements(text: &str) -> (Vec<&str>, &str) {
    let (mut statements, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        let Some(length) = token_length(rest) else { break };
        if next == ';' {
            let statement = text[start..at].trim();
            if !is_blank(statement) {
                statements.push(statement);
            }
            start = at + 1;
        }
        at += length;
    }
    (statements, &text[start..])
}

/// Is there nothing to run: only spaces and comments?
fn is_blank(statement: &str) -> bool {
    let mut rest = statement.trim_start();
    while rest.starts_with("--") || rest.starts_with("/*") {
        let Some(length) = token_length(rest) else { return true };
        rest = rest[length..].trim_start();
    }
    rest.is_empty()
}

/// Bytes up to the end of the string, quoted name, comment or other character that `text` begins with; `None` when its
/// end has not come yet.
fn token_length(text: &str) -> Option<usize> {
    let after = |mark: &str, from: usize| text[from..].find(mark).map(|at| from + at + mark.len());
    match text.as_bytes() {
        // A doubled quote is one string that ends and another that begins: for semicolons the same.
        [b'\'', ..] => after("'", 1),
        [b'"', ..] => after("\"", 1),
        [b'-', b'-', ..] => after("\n", 2),
        [b'/', b'*', ..] => block_comment_length(text),
        _ => text.chars().next().map(char::len_utf8),
    }
}

/// Block comments nest.
fn block_comment_length(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        match text.as_bytes().get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (Vec<&str>, &str) {
        split_statements(text)
    }

    #[test]
    fn every_semicolon_ends_a_statement_wherever_it_stands_in_a_line() {
        assert_eq!(split("select 1; select 2;"), (vec!["select 1", "select 2"], ""));
        assert_eq!(split("select 1;\nselect\n2"), (vec!["select 1"], "\nselect\n2"));
    }

    #[test]
    fn semicolons_in_strings_names_and_comments_end_nothing() {
        for text in [
            "select 'a;\nb'",
            "select 'it''s;'",
            "select 1 as \";\"",
            "select 1 -- one;\n",
            "select /* ; /* ; */ ; */ 1",
        ] {
            assert_eq!(split(text), (vec![], text));
            assert_eq!(split(&format!("{text};")).0, [text.trim()]);
        }
    }

    #[test]
    fn what_is_not_closed_yet_waits_for_more() {
        for text in ["select 'a;", "select \"a;", "select 1 -- a;", "select /* a; /* b; */"] {
            assert_eq!(split(text), (vec![], text));
        }
    }

    #[test]
    fn a_lone_semicolon_is_no_statement() {
        assert_eq!(split(";"), (vec![], ""));
        assert_eq!(split(";; -- nothing\n; /* nor here */ ;"), (vec![], ""));
        assert_eq!(split("select 'ä;ö';").0, ["select 'ä;ö'"]);
    }
}
