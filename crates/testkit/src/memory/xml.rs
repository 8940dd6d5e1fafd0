//! The little XML that is needed.

use std::fmt::Write as _;

/// Text as it may stand in an element.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' | '\n' | '\t' => drop(write!(escaped, "&#{};", u32::from(character))),
            other => escaped.push(other),
        }
    }
    escaped
}

/// `<name>text</name>`, the text escaped.
pub(super) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escaped(text))
}

/// `<name>inside</name>`, what is inside as it is.
pub(super) fn around(name: &str, inside: &str) -> String {
    format!("<{name}>{inside}</{name}>")
}

/// A document.
pub(super) fn document(root: &str, inside: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root}>{inside}</{root}>")
}

/// The texts of all elements of this name, which hold nothing but text.
pub(super) fn texts<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = String> + use<'a> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&open)?;
        let (text, after) = after.split_once(&close)?;
        rest = after;
        Some(plain(text))
    })
}

fn plain(text: &str) -> String {
    // The ampersand last: what it brings forth stands for itself.
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let keys = ["epoch=1/_COMMIT", "a&b<c>\"d'", "&lt;"];
        let xml = document("Delete", &keys.map(|key| element("Key", key)).concat());
        assert_eq!(texts(&xml, "Key").collect::<Vec<_>>(), keys);
        assert_eq!(texts(&xml, "Quiet").next(), None);
    }
}
