//! Lists of paths in requests: `kind,"odd, key".x`.

/// The parts of a text between separators outside quotes and parentheses; none if the text is blank.
pub(super) fn split_outside(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0_usize, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if c == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if !(parts.is_empty() && text.trim().is_empty()) {
        parts.push(&text[start..]);
    }
    parts
}
