//! The Prometheus text exposition format, and as much of OpenMetrics as differs from it in samples.
//!
//! ```text
//! page   = { line "\n" }
//! line   = "#" anything | sample | ""
//! sample = [ name ] [ "{" [ label { "," label } [ "," ] ] "}" ] value [ timestamp ] [ "#" exemplar ]
//! label  = ( name | string ) "=" string | string (the metric's name)
//! ```
//!
//! Timestamps are whole ms; on pages that end with `# EOF`, which is OpenMetrics, seconds.

use std::borrow::Cow;

/// One sample of a page.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) metric: Cow<'a, str>,
    pub(super) labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(super) value: f64,
    pub(super) timestamp_ms: Option<i64>,
}

impl Sample<'_> {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_ref())
    }
}

/// All samples of a page, or the number of the first line that is none, from 1.
pub(super) fn samples(page: &[u8]) -> Result<Vec<Sample<'_>>, usize> {
    let text = std::str::from_utf8(page)
        .map_err(|error| 1 + page[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count())?;
    let in_seconds = text.trim_end().ends_with("# EOF");
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        samples.push(sample(line, in_seconds).ok_or(index + 1)?);
    }
    Ok(samples)
}

fn sample(line: &str, in_seconds: bool) -> Option<Sample<'_>> {
    let (name, mut rest) = split_name(line);
    let mut metric = (!name.is_empty()).then_some(Cow::Borrowed(name));
    let mut labels = Vec::new();
    rest = rest.trim_start();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = inside.trim_start();
            if let Some(after) = inside.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = match inside.strip_prefix('"') {
                Some(quoted) => string(quoted)?,
                None => {
                    let (label, after) = split_name(inside);
                    (Cow::Borrowed(label), after)
                }
            };
            let after = after.trim_start();
            inside = match after.strip_prefix('=') {
                Some(after) if !label.is_empty() => {
                    let (value, after) = string(after.trim_start().strip_prefix('"')?)?;
                    labels.push((label, value));
                    after
                }
                // A string by itself is the metric's name.
                None if inside.starts_with('"') && metric.is_none() => {
                    metric = Some(label);
                    after
                }
                _ => return None,
            };
            inside = inside.trim_start();
            match inside.strip_prefix(',') {
                Some(after) => inside = after,
                None if inside.starts_with('}') => {}
                None => return None,
            }
        }
    } else if !rest.is_empty() && rest.len() == line.len() - name.len() {
        // Nothing stands between the name and the value.
        return None;
    }
    let numbers = rest.split_once('#').map_or(rest, |(numbers, _exemplar)| numbers);
    let mut numbers = numbers.split_ascii_whitespace();
    let value = number(numbers.next()?)?;
    let timestamp_ms = match numbers.next() {
        None => None,
        Some(text) if in_seconds => {
            let ms = (number(text)? * 1_000.0).round();
            Some((ms.abs() < 9_007_199_254_740_992.0).then_some(ms as i64)?)
        }
        Some(text) => Some(text.parse().ok()?),
    };
    numbers.next().is_none().then_some(())?;
    Some(Sample { metric: metric?, labels, value, timestamp_ms })
}

fn split_name(text: &str) -> (&str, &str) {
    let of_name =
        |(at, c): (usize, char)| c.is_ascii_alphabetic() || c == '_' || c == ':' || (at > 0 && c.is_ascii_digit());
    let end = text.char_indices().find(|at| !of_name(*at)).map_or(text.len(), |(end, _)| end);
    text.split_at(end)
}

/// The rest of a string after its opening quote, without escapes, and what follows it.
fn string(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(value), &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// A value as Go writes floats.
fn number(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        // Rust also reads words that no exporter writes.
        _ if text.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')) => None,
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(sample: &Sample<'_>) -> String {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels = sample.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        let time = sample.timestamp_ms.map_or_else(String::new, |ms| format!(" {ms}"));
        format!("{}{{{labels}}} {}{time}", sample.metric, sample.value)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            metric in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
            labels in proptest::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,8}", "[ -~\n\u{e4}]{0,12}"), 0..4),
            value in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
            timestamp_ms in proptest::option::of(any::<i64>()),
        ) {
            let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let sample = Sample { metric: metric.into(), labels, value, timestamp_ms };
            let page = format!("# HELP x y\n{}\n", write(&sample));
            prop_assert_eq!(samples(page.as_bytes()), Ok(vec![sample]));
        }

        #[test]
        fn no_bytes_stop_the_parser(page in proptest::collection::vec(any::<u8>(), 0..80)) {
            // A panic is what fails here; an error is an answer.
            samples(&page).ok();
        }

        #[test]
        fn no_near_miss_stops_the_parser(page in "[a{}\"=,\\\\# 1\n]{0,40}") {
            samples(page.as_bytes()).ok();
        }
    }

    #[test]
    fn the_forms_of_the_format_are_read() {
        // After the examples of the exposition format's own page.
        let page = "# TYPE http_requests_total counter\n\
             http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
             msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9\n\
             metric_without_timestamp_and_labels 12.47\n\
             something_weird{problem=\"division by zero\"} +Inf -3982045\n\
             {\"my.dotted.metric\", region=\"eu\"} 3\n";
        let read = samples(page.as_bytes()).unwrap();
        let of = |index: usize| (read[index].metric.as_ref(), read[index].value, read[index].timestamp_ms);
        assert_eq!(of(0), ("http_requests_total", 1027.0, Some(1_395_066_363_000)));
        assert_eq!(read[1].label("error"), Some("Cannot find file:\n\"FILE.TXT\""));
        assert_eq!(of(2), ("metric_without_timestamp_and_labels", 12.47, None));
        assert_eq!(of(3), ("something_weird", f64::INFINITY, Some(-3_982_045)));
        assert_eq!((of(4).0, read[4].label("region")), ("my.dotted.metric", Some("eu")));
        let open = samples(b"a_total 17 1520879607.789 # {id=\"x\"} 0.5\n# EOF\n").unwrap();
        assert_eq!((open[0].value, open[0].timestamp_ms), (17.0, Some(1_520_879_607_789)));
    }

    #[test]
    fn the_line_that_is_no_sample_is_named() {
        for (page, line) in [
            ("a 1\nb\n", 2),
            ("{}", 1),
            ("a{x=1} 2", 1),
            ("a{x=\"1\" 2", 1),
            ("a 1 2 3", 1),
            ("a infinity", 1),
            ("a 1\n\n# c\n1a 2", 4),
            ("{\"msg\":\"a log line\"}", 1),
        ] {
            assert_eq!(samples(page.as_bytes()), Err(line), "{page}");
        }
        assert_eq!(samples(b"a 1\n\xff 2"), Err(2));
    }
}
