//! Just enough of Rust's syntax: comments, literals, items and paths.

pub(crate) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands as a word of its own.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// Blanks comments and the contents of literals, byte by byte, so that positions and line numbers stay.
pub(crate) fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let is_in_word = at > 0 && is_name(bytes[at - 1] as char);
        let (blank_from, end) = match &bytes[at..] {
            [b'/', b'/', ..] => (at, at + line_length(&bytes[at..])),
            [b'/', b'*', ..] => (at, at + block_comment_length(&bytes[at..])),
            [b'"', ..] => (at + 1, at + string_length(&bytes[at..])),
            [b'r', b'"' | b'#', ..] if !is_in_word => (at + 1, at + raw_string_length(&bytes[at..])),
            [b'b', b'r', b'"' | b'#', ..] if !is_in_word => {
                (at + 2, at + 1 + raw_string_length(&bytes[at + 1..]))
            }
            [b'\'', ..] => (at + 1, at + char_length(&bytes[at..])),
            _ => (at, at + 1),
        };
        if end > at + 1 {
            let blanked = out[blank_from..end].iter_mut().filter(|byte| **byte != b'\n');
            blanked.for_each(|byte| *byte = b' ');
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())
}

fn block_comment_length(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// From the `r`. A raw identifier (`r#type`) is one byte long: it is no string.
fn raw_string_length(bytes: &[u8]) -> usize {
    let hashes = bytes[1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(1 + hashes) != Some(&b'"') {
        return 1;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let start = 2 + hashes;
    let found = bytes[start..].windows(end.len()).position(|window| window == end);
    found.map_or(bytes.len(), |at| start + at + end.len())
}

/// From the quote; a lifetime or label is one byte long.
fn char_length(bytes: &[u8]) -> usize {
    if bytes.get(1) == Some(&b'\\') {
        // The escaped byte may itself be a quote.
        let rest = bytes.iter().skip(3).position(|byte| *byte == b'\'');
        return rest.map_or(1, |at| at + 4);
    }
    // One character of up to four bytes.
    let close = (2..=5).find(|at| bytes.get(*at) == Some(&b'\''));
    let is_one_char =
        |at: &usize| std::str::from_utf8(&bytes[1..*at]).is_ok_and(|text| text.chars().count() == 1);
    close.filter(is_one_char).map_or(1, |at| at + 1)
}

/// Blanks every item that stands below `#[cfg(test)]`.
pub(crate) fn without_test_items(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = start + item_end(&out[start..]);
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Where the item that begins here ends: at its closing brace, or at a semicolon or comma outside of brackets.
pub(crate) fn item_end(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth <= 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Every path of two components or more, with the number of its line; `a::{b, c::{d, e}}` gives three.
pub(crate) fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find(is_name).map(|next| at + next) {
        let mut end = start;
        let mut leaves = Vec::new();
        path_tree(code, &mut end, "", &mut leaves);
        let line = 1 + code[..start].matches('\n').count();
        found.extend(leaves.into_iter().filter(|path| path.contains("::")).map(|path| (line, path)));
        at = end;
    }
    found
}

/// Reads one branch of a path, `prefix` before it, and moves `at` behind it.
fn path_tree(code: &str, at: &mut usize, prefix: &str, leaves: &mut Vec<String>) {
    let name: String = code[*at..].chars().take_while(|c| is_name(*c)).collect();
    *at += name.len();
    let path = if prefix.is_empty() { name } else { format!("{prefix}::{name}") };
    let Some(rest) = code[*at..].strip_prefix("::") else {
        leaves.push(path);
        return;
    };
    match rest.chars().next() {
        Some(c) if is_name(c) => {
            *at += 2;
            path_tree(code, at, &path, leaves);
        }
        Some('{') => {
            *at += 3;
            loop {
                skip_space(code, at);
                match code[*at..].chars().next() {
                    Some(c) if is_name(c) => path_tree(code, at, &path, leaves),
                    Some('}') | None => break,
                    // A comma, a `*`.
                    Some(other) => *at += other.len_utf8(),
                }
            }
            *at = code.len().min(*at + 1);
        }
        // `::<T>` or `::*`.
        _ => leaves.push(path),
    }
}

fn skip_space(code: &str, at: &mut usize) {
    *at += code[*at..].len() - code[*at..].trim_start().len();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &str) -> Vec<String> {
        paths(path).into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn nested_paths_are_taken_apart() {
        assert_eq!(all("use a::{b, c::{d, e::*}};"), ["a::b", "a::c::d", "a::c::e"]);
        assert_eq!(all("x.iter().collect::<Vec<_>>(); B::new()"), ["B::new"]);
        assert_eq!(paths("\n\nuse a::{\n    b,\n};\na::c"), [(3, "a::b".to_owned()), (6, "a::c".to_owned())]);
    }

    #[test]
    fn the_lexer_knows_literals_from_lifetimes() {
        let code = |text| without_comments_and_literals(text);
        assert_eq!(code("a /* b /* c */ d */ e"), format!("a {:17} e", ""));
        assert_eq!(code("'a' 'x '\\'' b"), "'   'x '    b");
        assert_eq!(code("r#\"x\"y\"# z"), "r        z");
        assert_eq!(code("r#type \"\\\"\" z"), "r#type \"    z");
        assert_eq!(code("x // y\nz"), "x     \nz");
        assert_eq!(code("x // y\nz").lines().count(), 2);
    }
}
