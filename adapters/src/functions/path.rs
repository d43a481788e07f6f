//! Paths into JSON: `a.b[0].c`, `a[*].b`, `["x.y"]`, `$`.

use datafusion::common::{Result, exec_err};
use sonic_rs::PointerNode;

/// Steps between wildcards: `a[*].b.c` is `[a]`, then `[b, c]` in each element.
pub(super) type Path = Vec<Vec<PointerNode>>;

pub(super) fn parse(text: &str) -> Result<Path> {
    let mut path: Path = vec![Vec::new()];
    let mut rest = text.strip_prefix('$').unwrap_or(text);
    while !rest.is_empty() {
        let step = if let Some(after) = rest.strip_prefix("[*]") {
            path.push(Vec::new());
            rest = after;
            continue;
        } else if let Some(quoted) = rest.strip_prefix("[\"") {
            let Some((key, after)) = quoted.split_once("\"]") else { return wrong(text) };
            rest = after;
            PointerNode::Key(key.to_owned().into())
        } else if let Some(index) = rest.strip_prefix('[') {
            let Some((index, after)) = index.split_once(']') else { return wrong(text) };
            let Ok(index) = index.parse() else { return wrong(text) };
            rest = after;
            PointerNode::Index(index)
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let (key, after) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
            if key.is_empty() {
                return wrong(text);
            }
            rest = after;
            PointerNode::Key(key.to_owned().into())
        };
        path.last_mut().expect("it starts with one").push(step);
    }
    Ok(path)
}

fn wrong(path: &str) -> Result<Path> {
    exec_err!("{path} is not a path: write a.b[0].c, a[*].b or [\"a.b\"]")
}
