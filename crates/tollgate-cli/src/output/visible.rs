//! Shows text of unknown origin, such as the names of keys, so that it cannot control the terminal or imitate other text.

use std::fmt::Write as _;

use serde_json::Value;

/// Escapes control and formatting characters. All text that users and applications have chosen is written by this function.
pub(crate) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            visible.extend(character.escape_default());
        } else {
            visible.push(character);
        }
    }
    visible
}

/// A document on one line of JSON. Escapes the same characters, as JSON does.
pub(crate) fn json(document: &Value) -> String {
    let mut visible = String::new();
    // Such a character is always in a string: JSON has no other place for it.
    for character in document.to_string().chars() {
        if is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(visible, "\\u{unit:04x}");
            }
        } else {
            visible.push(character);
        }
    }
    visible
}

/// Whether a character controls the terminal, the line, or the direction of the text, or has no width. Joiners within words of some
/// scripts, and in emoji, are allowed.
fn is_hidden(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    character.is_control() || is_format
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn control_and_bidirectional_characters_are_escaped() {
        for (text, seen) in [
            ("deploy «é» 日本", "deploy «é» 日本"),
            ("a\nb\x1b[31m\u{7f}\u{9b}", "a\\nb\\u{1b}[31m\\u{7f}\\u{9b}"),
            ("\u{202e}yolped\u{2066}", "\\u{202e}yolped\\u{2066}"),
            ("a\u{200b}b\u{2028}\u{feff}", "a\\u{200b}b\\u{2028}\\u{feff}"),
            ("👩\u{200d}🚀", "👩\u{200d}🚀"),
        ] {
            assert_eq!(visible(text), seen);
        }
    }

    #[test]
    fn json_with_escaped_characters_is_the_same_document() {
        let document = json!({ "a\u{202e}": "\u{9b}31m \u{e0041} \n \"quoted\" é" });
        let text = json(&document);
        assert!(text.chars().all(|character| !is_hidden(character)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    }
}
